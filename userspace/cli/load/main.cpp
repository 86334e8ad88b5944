// SPDX-License-Identifier: Apache-2.0
//
// agentnic-load: puts agentnic on an interface, takes it off, says how it is.

#include <fmt/format.h>

#include <algorithm>
#include <iostream>
#include <map>
#include <set>
#include <thread>

#include "audit/chain_key.hpp"
#include "base/clock.hpp"
#include "base/file.hpp"
#include "base/hex.hpp"
#include "base/stop.hpp"
#include "base/user.hpp"
#include "cli/common/program.hpp"
#include "cli/load/failsafe.hpp"
#include "cli/load/guardian.hpp"
#include "cli/load/probe.hpp"
#include "cli/load/propose.hpp"
#include "cli/load/serve.hpp"
#include "cli/load/show.hpp"
#include "kern/change.hpp"
#include "kern/generation.hpp"
#include "kern/instance.hpp"
#include "kern/libbpf_log.hpp"
#include "kern/stats.hpp"
#include "policy/compile.hpp"
#include "policy/parse.hpp"

namespace {

using namespace agentnic;
using agentnic::Json;

struct Options {
  std::string ifname;
  std::string netns;
  std::string policy;
  std::string chain_key;
  std::string mode = "auto";
  std::vector<std::string> require;
  double interval_s = 1;
  bool dry_run = false;
  bool all = false;
  bool json = false;
  bool watch = false;
};

const std::map<std::string, kern::ModeRequest> kModes = {{"auto", kern::ModeRequest::Auto},
                                                         {"native", kern::ModeRequest::Native},
                                                         {"skb", kern::ModeRequest::Skb},
                                                         {"tc", kern::ModeRequest::Tc}};

std::string memory_text(std::uint64_t bytes) {
  return fmt::format("  memory   {} KiB of maps for each interface, with {} possible CPUs\n", bytes / 1024,
                     kern::possible_cpus());
}

/// What would keep this policy from being attached here; it may be for another machine.
std::vector<std::string> notes_of(const policy::Tables& tables) {
  std::set<std::string> users;
  for (const auto& [service, user] : tables.users) users.insert(user);
  std::vector<std::string> notes;
  for (const std::string& user : users) {
    if (const auto uid = find_uid(user); !uid)
      notes.push_back(uid.error().what + " here: attach and update need it, as an owner of services");
  }
  return notes;
}

Result<int> check(const Options& options) {
  const policy::Policy policy = ANIC_TRY(policy::load(options.policy));
  // Cgroups are not looked up.
  const policy::Tables tables = policy::compile(policy, ANIC_TRY(policy::assign_ids(policy, {})));
  const std::uint64_t memory = kern::memory_bytes(tables, kern::possible_cpus());
  const std::vector<std::string> notes = notes_of(tables);
  if (options.json) {
    cli::print_json({{"schema", "agentnic.check/2"},
                     {"file", options.policy},
                     {"valid", true},
                     {"possible_cpus", kern::possible_cpus()},
                     {"map_memory_bytes", memory},
                     {"notes", notes},
                     {"policy", cli::to_json(tables)}});
  } else {
    std::cout << options.policy << ": valid\n" << cli::to_text(tables) << memory_text(memory);
    for (const std::string& note : notes) std::cout << "  note     " << note << '\n';
  }
  return 0;
}

/// The key of the next chain, from a file, in which the one after it takes its place first: whoever reads the
/// file later makes no record of this chain.
Result<kern::ChainKey> take_chain_key(const std::string& path) {
  constexpr std::size_t kMost = 4096;
  auto key = audit::parse_chain_key(ANIC_TRY(read_secret_file(path, kMost)));
  if (!key) {
    key.error().what += ": " + path;
    return fail(std::move(key.error()));
  }
  ANIC_TRY(keep_file(path, audit::chain_key_text(key->next()), 0400));
  const audit::Words first = key->first();
  return kern::ChainKey{.number = key->number, .key = {first.low, first.high}};
}

Result<int> forecast(const Options& options, const kern::NetNs& netns, const policy::Policy& policy,
                     const kern::AttachOptions& wanted) {
  const auto plan = ANIC_TRY(kern::forecast_attach(netns, options.ifname, policy, wanted));
  std::vector<std::string> modes;
  for (const auto mode : plan.plan.modes) modes.push_back(kern::mode_name(mode));
  if (options.json) {
    cli::print_json({{"schema", "agentnic.attach/2"},
                     {"dry_run", true},
                     {"already", plan.already},
                     {"interface", options.ifname},
                     {"netns", netns.name()},
                     {"driver", plan.interface.driver},
                     {"queues", plan.interface.rx_queues},
                     {"modes", modes},
                     {"why", plan.plan.why},
                     {"warnings", plan.warnings},
                     {"pins", plan.pins},
                     {"map_memory_bytes", plan.memory_bytes},
                     {"policy", cli::to_json(plan.tables)}});
    return 0;
  }
  if (plan.already) {
    std::cout << fmt::format("attached to {}{} with this policy; nothing would change\n", options.ifname,
                             netns.suffix());
    return 0;
  }
  std::cout << fmt::format("would attach to {}{} (driver {}, {} receive queues); nothing was changed\n",
                           options.ifname, netns.suffix(), plan.interface.driver, plan.interface.rx_queues)
            << fmt::format("  modes    {}: {}\n", fmt::join(modes, ", then "), plan.plan.why)
            << fmt::format("  pins     {}\n", plan.pins) << memory_text(plan.memory_bytes)
            << cli::to_text(plan.tables);
  for (const auto& warning : plan.warnings) std::cout << "  warning: " << warning << '\n';
  return 0;
}

Result<int> attach(const Options& options) {
  const policy::Policy policy = ANIC_TRY(policy::load(options.policy));
  const kern::NetNs netns = ANIC_TRY(kern::NetNs::open_or_current(options.netns));
  std::vector<std::string> warnings;
  kern::AttachOptions wanted{
      .mode = kModes.at(options.mode), .require = options.require, .warn = [&](const std::string& warning) {
        warnings.push_back(warning);
        if (!options.json) std::cout << "warning: " << warning << '\n' << std::flush;
      }};
  if (!options.chain_key.empty()) wanted.chain_key = [&] { return take_chain_key(options.chain_key); };
  if (options.dry_run) return forecast(options, netns, policy, wanted);
  const auto report = ANIC_TRY(kern::attach_instance(netns, options.ifname, policy, wanted));
  if (options.json) {
    cli::print_json({{"schema", "agentnic.attach/2"},
                     {"dry_run", false},
                     {"interface", options.ifname},
                     {"netns", netns.name()},
                     {"already", report.already},
                     {"hook", kern::hook_name(report.hook)},
                     {"mode", kern::mode_name(report.mode)},
                     {"egress_hook", kern::hook_name(report.egress_hook)},
                     {"why", report.why},
                     {"warnings", warnings},
                     {"notes", report.notes},
                     {"policy", {{"name", policy.name}, {"sha256", hex(policy.digest)}}}});
    return 0;
  }
  std::cout << fmt::format("{} to {}{}: {}, {}, egress {}, policy {}\n",
                           report.already ? "already attached" : "attached", options.ifname, netns.suffix(),
                           kern::mode_name(report.mode), kern::hook_name(report.hook),
                           kern::hook_name(report.egress_hook), policy.name);
  if (!report.why.empty()) std::cout << fmt::format("  why: {}\n", report.why);
  for (const auto& note : report.notes) std::cout << "  " << note << '\n';
  return 0;
}

Result<int> update(const Options& options) {
  const policy::Policy policy = ANIC_TRY(policy::load(options.policy));
  const kern::NetNs netns = ANIC_TRY(kern::NetNs::open_or_current(options.netns));
  const auto report = ANIC_TRY(kern::update_instance(netns, options.ifname, policy, options.dry_run));
  if (options.json) {
    cli::print_json({{"schema", "agentnic.update/1"},
                     {"dry_run", options.dry_run},
                     {"interface", options.ifname},
                     {"netns", netns.name()},
                     {"already", report.already},
                     {"generation_before", report.before},
                     {"generation", report.generation},
                     {"differences", report.differences},
                     {"notes", report.notes}});
    return 0;
  }
  if (report.already) {
    std::cout << fmt::format("{}{} has this policy already; nothing {}\n", options.ifname, netns.suffix(),
                             options.dry_run ? "would change" : "changed");
  } else {
    std::cout << fmt::format("{} {}{}: generation {} -> {}, policy {}\n",
                             options.dry_run ? "would update" : "updated", options.ifname, netns.suffix(),
                             report.before, report.generation, policy.name);
  }
  for (const auto& difference : report.differences) std::cout << "  " << difference << '\n';
  for (const auto& note : report.notes) std::cout << "  note: " << note << '\n';
  return 0;
}

Result<int> upgrade(const Options& options) {
  const kern::NetNs netns = ANIC_TRY(kern::NetNs::open_or_current(options.netns));
  const auto report = ANIC_TRY(kern::upgrade_instance(netns, options.ifname));
  if (options.json) {
    cli::print_json({{"schema", "agentnic.upgrade/1"},
                     {"interface", options.ifname},
                     {"netns", netns.name()},
                     {"program_id_before", report.old_prog_id},
                     {"program_id", report.prog_id},
                     {"notes", report.notes}});
    return 0;
  }
  std::cout << fmt::format("upgraded {}{}: program {} -> {}; counters, flows and policy kept\n",
                           options.ifname, netns.suffix(), report.old_prog_id, report.prog_id);
  for (const auto& note : report.notes) std::cout << "  note: " << note << '\n';
  return 0;
}

/// Says what went with the instance that was detached, and what did not.
void warn_of_rest(const kern::DetachReport& report) {
  for (const std::string& note : report.notes) std::cerr << note << '\n';
  if (report.untaken_records == 0) return;
  std::cerr << fmt::format(
      "{} records of the audit were taken by nobody and are gone with it; hint: agentnic-audit record\n",
      report.untaken_records);
}

Json detached_json(const kern::PinDir& dir, const kern::DetachReport& report) {
  return {{"interface", dir.ifname},
          {"netns_inode", dir.netns_inode},
          {"untaken_records", report.untaken_records},
          {"notes", report.notes}};
}

Result<int> detach_all(const Options& options) {
  ANIC_TRY(kern::need_privileges("detach from all interfaces"));
  Json gone = Json::array();
  std::optional<Error> first_error;
  std::optional<kern::NetNs> only;
  if (!options.netns.empty()) only = ANIC_TRY(kern::NetNs::open(options.netns));
  for (const kern::PinDir& dir : kern::list_pin_dirs()) {
    if (only && dir.netns_inode != only->inode()) continue;
    const auto report = kern::detach_instance(dir);
    if (!report && !first_error) first_error = report.error();
    if (!report || !report->was_there) continue;
    gone.push_back(detached_json(dir, *report));
    if (!options.json) {
      std::cout << fmt::format("detached from {} (netns inode {})\n", dir.ifname, dir.netns_inode)
                << std::flush;
    }
    warn_of_rest(*report);
  }
  ANIC_TRY(kern::clean_pins());
  if (first_error) return fail(*first_error);
  if (options.json) cli::print_json({{"schema", "agentnic.detach/1"}, {"detached", gone}});
  if (!options.json && gone.empty()) std::cout << "nothing attached\n";
  return 0;
}

Result<int> detach(const Options& options) {
  if (options.all) return detach_all(options);
  if (options.ifname.empty())
    return fail(Exit::BadInput, "detach: which interface?", "give its name, or --all");
  const kern::NetNs netns = ANIC_TRY(kern::NetNs::open_or_current(options.netns));
  ANIC_TRY(kern::need_privileges("detach from " + options.ifname));
  const auto instance = kern::find_instance(netns, options.ifname);
  kern::DetachReport report;
  if (instance) {
    report = ANIC_TRY(kern::detach_instance(instance->dir));
  } else {
    ANIC_TRY(
        netns.run([&] { return kern::find_interface(options.ifname); }));  // an unknown name is bad input
    ANIC_TRY(kern::clean_pins());
  }
  if (options.json) {
    Json gone = Json::array();
    if (report.was_there) gone.push_back(detached_json({netns.inode(), options.ifname}, report));
    cli::print_json({{"schema", "agentnic.detach/1"}, {"detached", gone}});
  } else {
    std::cout << fmt::format("{} {}{}\n", report.was_there ? "detached from" : "nothing attached to",
                             options.ifname, netns.suffix())
              << std::flush;
  }
  warn_of_rest(report);
  return 0;
}

/// The instances that a command is about: one, which must be there, or all.
Result<std::vector<kern::InstanceStatus>> selected(const Options& options, const std::string& verb) {
  ANIC_TRY(kern::need_privileges(verb));
  std::vector<kern::InstanceStatus> found;
  if (!options.ifname.empty()) {
    const kern::NetNs netns = ANIC_TRY(kern::NetNs::open_or_current(options.netns));
    auto one = kern::find_instance(netns, options.ifname);
    if (!one) {
      ANIC_TRY(netns.run([&] { return kern::find_interface(options.ifname); }));
      return fail(Exit::Failed,
                  fmt::format("{} {}: agentnic is not attached to it", verb, options.ifname + netns.suffix()),
                  fmt::format("agentnic-load attach {} --policy FILE", options.ifname));
    }
    found.push_back(std::move(*one));
    return found;
  }
  std::optional<kern::NetNs> only;
  if (!options.netns.empty()) only = ANIC_TRY(kern::NetNs::open(options.netns));
  for (const kern::PinDir& dir : kern::list_pin_dirs()) {
    if (only && dir.netns_inode != only->inode()) continue;
    if (auto one = kern::inspect_instance(dir)) found.push_back(std::move(*one));
  }
  return found;
}

Result<int> status(const Options& options) {
  auto instances = ANIC_TRY(selected(options, "status"));
  Json list = Json::array();
  int worst = 0;
  for (auto& instance : instances) {
    kern::look_at_limits(instance);
    std::optional<cli::GuardianView> guardian;
    if (instance.health != kern::Health::Attached) {
      worst = static_cast<int>(Exit::Failed);
    } else if (auto view = cli::view_guardian(instance)) {
      guardian = std::move(*view);
      if (worst == 0 && !guardian->state.failsafes.empty()) worst = cli::kFailSafeStatus;
    } else {
      worst = static_cast<int>(Exit::Failed);  // nobody can tell whether fail-safe is in force
      instance.notes.push_back("the guardian is not known: " + view.error().text());
    }
    std::map<std::uint32_t, anic_owner> owners;
    if (instance.health == kern::Health::Attached) {
      if (auto read = kern::read_owners(instance)) {
        owners = std::move(*read);
      } else {
        instance.notes.push_back("owners of AF_XDP sockets are not known: " + read.error().text());
      }
    }
    kern::NapiState napi;
    if (auto read = kern::read_napi(instance.dir)) {
      napi = std::move(*read);
      instance.notes.insert(instance.notes.end(), napi.notes.begin(), napi.notes.end());
    } else {
      instance.notes.push_back("settings of NAPIs are not known: " + read.error().text());
    }
    if (options.json) {
      Json json = cli::to_json(instance);
      json["owners"] = cli::to_json(owners);
      json["napi"] = cli::to_json(napi);
      json["guardian"] = guardian ? cli::to_json(*guardian) : Json(nullptr);
      list.push_back(json);
    } else {
      std::cout << (guardian ? cli::alarms_text(*guardian, instance) : "") << cli::to_text(instance)
                << cli::to_text(napi) << cli::to_text(owners) << (guardian ? cli::to_text(*guardian) : "");
    }
  }
  if (options.json) cli::print_json({{"schema", "agentnic.status/3"}, {"instances", list}});
  if (!options.json && instances.empty()) std::cout << "nothing attached\n";
  return worst;
}

Result<int> stats_once(const Options& options, const std::vector<kern::InstanceStatus>& instances,
                       std::vector<kern::Stats>& before, double seconds) {
  Json list = Json::array();
  for (std::size_t i = 0; i < instances.size(); ++i) {
    kern::Stats now = ANIC_TRY(kern::read_stats(instances[i]));
    const bool has_before = i < before.size();
    if (options.json) {
      list.push_back(cli::to_json(instances[i], now));
    } else {
      std::cout << cli::to_text(instances[i], now, has_before ? &before[i] : nullptr, seconds);
    }
    if (has_before) {
      before[i] = std::move(now);
    } else {
      before.push_back(std::move(now));
    }
  }
  const Json json = {{"schema", "agentnic.stats/2"}, {"time_unix_ns", wall_ns()}, {"instances", list}};
  if (options.json && options.watch) {
    std::cout << json.dump() << '\n' << std::flush;  // one line each
  } else if (options.json) {
    cli::print_json(json);
  } else if (instances.empty()) {
    std::cout << "nothing attached\n";
  }
  return 0;
}

Result<int> stats(const Options& options) {
  const auto instances = ANIC_TRY(selected(options, "stats"));
  std::vector<kern::Stats> before;
  ANIC_TRY(stats_once(options, instances, before, 1));
  if (!options.watch) return 0;
  catch_stop_signals();
  std::uint64_t last = monotonic_ns();
  while (!stop_requested()) {
    const auto next = last + static_cast<std::uint64_t>(options.interval_s * 1e9);
    while (!stop_requested() && monotonic_ns() < next) {
      std::this_thread::sleep_for(std::chrono::nanoseconds(
          std::min<std::uint64_t>(next - monotonic_ns(), kStopCheckMs * 1'000'000ULL)));
    }
    if (stop_requested()) break;
    const std::uint64_t now = monotonic_ns();
    if (!options.json) std::cout << "\033[H\033[2J";
    ANIC_TRY(stats_once(options, instances, before, static_cast<double>(now - last) * 1e-9));
    std::cout << std::flush;
    last = now;
  }
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  cli::Program program("agentnic-load",
                       "Puts agentnic on a network interface, takes it off, and says how it is.");
  Options options;
  program.app().add_flag_callback(
      "-v", [] { kern::capture_libbpf_log(true); }, "print what libbpf and libxdp say");
  kern::capture_libbpf_log(false);

  const auto common = [&](CLI::App* command) {
    command->add_flag("--json", options.json, "print JSON; units are in the key names");
    return command;
  };
  const auto on_interface = [&](CLI::App* command, bool required) {
    command->add_option("IFACE", options.ifname, "interface")->required(required);
    command->add_option("--netns", options.netns, "look for it in this network namespace (ip netns)");
    return common(command);
  };

  auto* check_command = common(program.command("check", "validate a policy file; needs no privileges",
                                               [&] { return check(options); }));
  check_command->add_option("FILE", options.policy, "policy")->required();

  auto* attach_command = on_interface(
      program.command("attach", "attach to an interface; safe to repeat", [&] { return attach(options); }),
      true);
  attach_command->add_option("--policy", options.policy, "policy file")->required();
  attach_command->add_option(
      "--chain-key", options.chain_key,
      "file with the secret that the audit's key comes from; it is replaced by the next");
  attach_command->add_option("--mode", options.mode, "auto, native, skb or tc")
      ->check(CLI::IsMember(kModes))
      ->capture_default_str();
  attach_command
      ->add_option("--require", options.require,
                   "fail with 3 unless these were obtained: native, skb, tc, dispatcher")
      ->delimiter(',')
      ->check(CLI::IsMember(
          std::vector<std::string>(std::begin(kern::kRequireWords), std::end(kern::kRequireWords))));
  attach_command->add_flag("--dry-run", options.dry_run, "say what would be done; needs no privileges");

  auto* update_command =
      on_interface(program.command("update", "put another policy in force, at once; safe to repeat",
                                   [&] { return update(options); }),
                   true);
  update_command->add_option("--policy", options.policy, "policy file")->required();
  update_command->add_flag("--dry-run", options.dry_run, "say what would change");

  on_interface(program.command("upgrade", "put this build's programs in the place of those that run",
                               [&] { return upgrade(options); }),
               true);

  auto* detach_command = on_interface(
      program.command("detach", "take everything off again; safe to repeat", [&] { return detach(options); }),
      false);
  detach_command
      ->add_flag("--all", options.all, "from every interface, of every network namespace unless --netns")
      ->excludes("IFACE");

  on_interface(program.command("status", "what is attached where, and what is wrong with it",
                               [&] { return status(options); }),
               false);

  auto* stats_command = on_interface(
      program.command("stats",
                      "packets and bytes by reason, lane and service; as JSON by tenant and queue too",
                      [&] { return stats(options); }),
      false);
  stats_command->add_flag("--watch", options.watch,
                          "again and again, with rates; one JSON line each with --json");
  stats_command->add_option("--interval", options.interval_s, "seconds between two, with --watch")
      ->check(CLI::Range(0.1, 3600.0))
      ->capture_default_str();

  cli::add_propose(program);
  cli::add_failsafe(program);
  cli::add_serve(program);

  on_interface(program.command("probe", "what this kernel, these libraries and this driver can do, by trying",
                               [&] { return cli::probe(options.ifname, options.netns, options.json); }),
               false);

  return program.main(argc, argv);
}
