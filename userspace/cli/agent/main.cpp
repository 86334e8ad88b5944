// SPDX-License-Identifier: Apache-2.0
//
// agentnic-agent: runs a controller, built in or any program, as the agent of an interface, with no more
// power than the policy grants.

#include <fcntl.h>
#include <fmt/format.h>
#include <fmt/ranges.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <iostream>
#include <string>
#include <vector>

#include "abi/steer.h"
#include "agent/run.hpp"
#include "agent/wire.hpp"
#include "cli/common/program.hpp"
#include "kern/generation.hpp"
#include "kern/guardian.hpp"
#include "kern/instance.hpp"
#include "kern/libbpf_log.hpp"
#include "kern/maps.hpp"
#include "policy/compile.hpp"
#include "policy/model.hpp"
#include "policy/text.hpp"
#include "policy/units.hpp"

namespace {

using namespace agentnic;
using agentnic::Json;

constexpr std::string_view kExec = "--exec";
constexpr std::uint64_t kMiB = 1U << 20U;

struct Options {
  std::string ifname;
  std::string netns;
  std::string agent;
  std::string controller = "static";
  std::uint64_t seed = 0;
  std::string interval;
  std::uint64_t ticks = 0;
  std::string user = "nobody";
  std::uint32_t processes = 32;
  std::uint64_t memory_mib = 512;
  bool allow_network = false;
  std::vector<std::string> environment;
  std::vector<std::string> command;
  std::string record;
  std::string replay;
  bool json = false;
  bool dry_run = false;
};

std::string text_of(const char (&name)[ANIC_NAME_LEN]) { return {name, ::strnlen(name, sizeof(name))}; }

/// The agent of this name; without a name, the only one that there is.
Result<std::uint32_t> agent_of(const Options& options, const anic_guarding& guarding) {
  std::vector<std::string> names;
  std::uint32_t only = 0;
  for (std::uint32_t id = 1; id < ANIC_AGENTS_MAX; ++id) {
    const std::string name = text_of(guarding.agents[id].name);
    if (name.empty()) continue;
    if (name == options.agent) return id;
    names.push_back(name);
    only = id;
  }
  if (options.agent.empty() && names.size() == 1) return only;
  const std::string hint = names.empty() ? "name one under \"agents\" in the policy"
                                         : fmt::format("--agent {}", fmt::join(names, " or --agent "));
  if (options.agent.empty())
    return fail(
        Exit::BadInput,
        fmt::format("run an agent on {}: the policy in force has {} agents", options.ifname, names.size()),
        hint);
  return fail(Exit::BadInput,
              fmt::format("the policy in force has no agent {}", policy::json_text(options.agent)), hint);
}

/// Names of what is granted, and of no other.
agent::Names names_of(const policy::Tables& tables, const anic_grants& grants) {
  agent::Names names;
  for (std::uint32_t id = 1; id < tables.tenants.size(); ++id) {
    const std::string name = text_of(tables.tenants[id].name);
    if (!name.empty() && (grants.tenants >> (id - 1) & 1U) != 0) names.tenants[id] = name;
  }
  for (std::uint32_t id = 1; id < tables.services.size(); ++id) {
    const anic_service& service = tables.services[id];
    const std::string name = text_of(service.name);
    if (!name.empty() && (service.tenant == 0 || names.tenants.contains(service.tenant)))
      names.services[id] = name;
  }
  return names;
}

/// The CPUs of what is granted and spread over some.
Result<std::vector<agent::Spread>> spreads_of(const kern::Maps& maps, const agent::Names& names,
                                              const anic_grants& grants) {
  std::vector<agent::Spread> spreads;
  for (const auto& [id, name] : names.tenants) {
    for (std::uint8_t cls = ANIC_CLASS_DEFAULT; cls < ANIC_CLASS__MAX; ++cls) {
      if ((grants.classes >> cls & 1U) == 0) continue;
      anic_steering row{};
      ANIC_TRY(maps.read("anic_steering", ANIC_LANE(id, cls), row));
      const std::vector<unsigned> cpus = policy::cpus_of(row.stated);
      if (!cpus.empty())
        spreads.push_back({.tenant = name,
                           .cls = std::string(policy::class_name(cls)),
                           .cpus = {cpus.begin(), cpus.end()}});
    }
  }
  return spreads;
}

Result<std::vector<std::string>> environment_of(const Options& options) {
  std::vector<std::string> environment = {"PATH=/usr/local/bin:/usr/bin:/bin", "HOME=/", "LANG=C.UTF-8"};
  for (const std::string& name : options.environment) {
    const char* value = std::getenv(name.c_str());
    if (value == nullptr)
      return fail(Exit::BadInput, fmt::format("--env {}: it is not set", policy::json_text(name)));
    environment.push_back(fmt::format("{}={}", name, value));
  }
  return environment;
}

/// A file that is not there yet, for the recording: none of those that are there is overwritten.
Result<UniqueFd> create_recording(const std::string& path) {
  UniqueFd fd(::open(path.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_APPEND | O_CLOEXEC, 0600));
  if (fd) return fd;
  return fail(Exit::BadInput, fmt::format("record to {}: {}", policy::json_text(path), std::strerror(errno)),
              errno == EEXIST ? "move it away, or record to another file" : "");
}

/// What nothing was written to, because it did not come to that.
void remove_if_empty(const std::string& path) {
  std::error_code none;
  if (!path.empty() && std::filesystem::file_size(path, none) == 0) std::filesystem::remove(path, none);
}

Result<agent::Settings> settings_of(const Options& options) {
  agent::Settings settings;
  if (!options.command.empty() && options.command[0].contains('/') && options.command[0][0] != '/')
    return fail(Exit::BadInput,
                fmt::format("--exec {}: programs run in /", policy::json_text(options.command[0])),
                "name it from there, with a / before all else");
  settings.command = options.command;
  settings.environment = ANIC_TRY(environment_of(options));
  settings.confinement = ANIC_TRY(agent::confinement_of(options.user));
  settings.confinement.network = options.allow_network;
  settings.processes = options.processes;
  settings.memory_bytes = options.memory_mib * kMiB;
  return settings;
}

Json answer_json(const std::string& line) { return Json::parse(line).at("proposals"); }

/// Prints it; the exit status.
int print_replayed(const agent::Replayed& result, const Options& options) {
  if (result.cut)
    std::cerr << "agentnic-agent: the recording ends in the middle of a line, which is left out" << std::endl;
  if (options.json) {
    Json json = {{"schema", "agentnic.replay/1"},
                 {"observations", result.observations},
                 {"proposals", result.proposals},
                 {"different", result.different},
                 {"first", nullptr},
                 {"cut", result.cut}};
    if (result.first)
      json["first"] = {{"line", result.first->line},
                       {"tick", result.first->tick},
                       {"recorded", answer_json(result.first->recorded)},
                       {"replayed", answer_json(result.first->replayed)}};
    cli::print_json(json);
  } else {
    fmt::print("{} observations, {} proposals: ", result.observations, result.proposals);
    if (result.first) {
      fmt::print(
          "{} answers are not those of the recording\nfirst to line {} of it, tick {}\n  recorded {}  "
          "replayed {}",
          result.different, result.first->line, result.first->tick, result.first->recorded,
          result.first->replayed);
    } else {
      fmt::print("all as recorded\n");
    }
  }
  std::cout.flush();
  std::fflush(stdout);
  return result.first ? static_cast<int>(Exit::Failed) : 0;
}

Result<int> replay(const Options& options, bool choose) {
  agent::Settings settings = ANIC_TRY(settings_of(options));
  if (choose) settings.decider = agent::Decider{.controller = options.controller, .seed = options.seed};
  UniqueFd recording(::open(options.replay.c_str(), O_RDONLY | O_CLOEXEC));
  if (!recording)
    return fail(Exit::BadInput, fmt::format("open the recording {}: {}", policy::json_text(options.replay),
                                            std::strerror(errno)));
  if (!options.record.empty()) settings.record = ANIC_TRY(create_recording(options.record));
  const bool privileged = kern::need_privileges("give up privileges").has_value();
  auto code =
      agent::run_replay(std::move(recording), std::move(settings), privileged,
                        [&](const agent::Replayed& result) { return print_replayed(result, options); });
  remove_if_empty(options.record);
  return code;
}

/// An agent is heard of once an interval; what comes late must not be taken for silence.
Status check_interval(const agent::Start& start) {
  if (start.loop.interval_ns <= start.heartbeat_ns / 2) return {};
  return fail(
      Exit::BadInput,
      fmt::format("an interval of {} is more than half the policy's heartbeat of {}",
                  policy::duration_text(start.loop.interval_ns), policy::duration_text(start.heartbeat_ns)),
      fmt::format("--interval {}", policy::duration_text(start.heartbeat_ns / 2)));
}

Result<int> run(const Options& options) {
  agent::Settings settings = ANIC_TRY(settings_of(options));
  settings.decider = agent::Decider{.controller = options.controller, .seed = options.seed};
  agent::Start start;
  ANIC_TRY(kern::need_privileges("run an agent"));
  const kern::NetNs netns = ANIC_TRY(kern::NetNs::open_or_current(options.netns));
  const auto status = ANIC_TRY(kern::need_attached(netns, options.ifname, "run an agent on"));
  const kern::Maps maps = ANIC_TRY(kern::Maps::pinned(status.dir));
  const anic_guarding guarding = ANIC_TRY(kern::read_guarding(maps));
  start.session.agent = ANIC_TRY(agent_of(options, guarding));
  const anic_agent& granted = guarding.agents[start.session.agent];
  start.session.asked = granted.grants;
  start.names = names_of(ANIC_TRY(kern::read_names(maps)), granted.grants);
  start.loop.ticks = options.ticks;
  start.loop.interval_ns = options.interval.empty() ? guarding.envelope.tick_ns
                                                    : ANIC_TRY(policy::parse_duration(options.interval));
  start.heartbeat_ns = guarding.envelope.heartbeat_ns;
  ANIC_TRY(check_interval(start));
  start.hello.ifname = options.ifname;
  start.hello.agent = text_of(granted.name);
  start.hello.interval_ns = start.loop.interval_ns;
  start.hello.grants = granted.grants;
  start.hello.spreads = ANIC_TRY(spreads_of(maps, start.names, granted.grants));
  if (options.dry_run) {
    std::cout << agent::hello_line(start.hello, start.names);
    return 0;
  }
  if (!options.record.empty()) settings.record = ANIC_TRY(create_recording(options.record));
  const auto ended = agent::run(status.dir, maps, std::move(start), std::move(settings));
  remove_if_empty(options.record);
  if (!ended) return fail(ended.error());
  return 0;
}

/// What is opened later has numbers above those of the standard streams.
void fill_standard_streams() {
  int fd = -1;
  do fd = ::open("/dev/null", O_RDWR | O_CLOEXEC);
  while (fd >= 0 && fd <= STDERR_FILENO);
  if (fd >= 0) ::close(fd);
}

}  // namespace

int main(int argc, char** argv) {
  fill_standard_streams();
  cli::Program program("agentnic-agent",
                       "Runs a controller as the agent of an interface, confined to its grants.");
  Options options;
  kern::capture_libbpf_log(false);
  // All that comes after it is the command, whatever it looks like.
  for (int i = 1; i < argc; ++i) {
    if (argv[i] != kExec) continue;
    options.command.assign(argv + i + 1, argv + argc);
    argc = i + 1;
  }
  CLI::App& app = program.app();
  bool exec = false;
  CLI::Option* ifname = app.add_option("IFACE", options.ifname, "interface");
  CLI::Option* netns =
      app.add_option("--netns", options.netns, "look for it in this network namespace (ip netns)");
  CLI::Option* agent =
      app.add_option("--agent", options.agent, "which of the policy's agents; needed when there are several");
  CLI::Option* controller = app.add_option("--controller", options.controller, "a built-in controller")
                                ->check(CLI::IsMember(agent::controller_names()))
                                ->capture_default_str();
  CLI::Option* seed =
      app.add_option("--seed", options.seed, "of a built-in controller")->capture_default_str();
  app.add_flag(std::string(kExec), exec, "run what follows as the controller: a program and its arguments")
      ->excludes(controller);
  CLI::Option* interval = app.add_option("--interval", options.interval,
                                         "between observations, such as 10ms; else the policy's tick");
  CLI::Option* ticks =
      app.add_option("--ticks", options.ticks, "end after so many observations; 0: when asked to")
          ->capture_default_str();
  app.add_option("--user", options.user, "whom it runs as")->capture_default_str();
  app.add_option("--processes", options.processes, "how many it may have")
      ->check(CLI::Range(2, 4096))
      ->capture_default_str();
  app.add_option("--memory", options.memory_mib, "MiB that it may have")
      ->check(CLI::Range(16, 1 << 20))
      ->capture_default_str();
  app.add_flag("--allow-network", options.allow_network, "let the program of --exec use the network");
  app.add_option("--env", options.environment,
                 "pass this variable on to the program of --exec; may be repeated");
  app.add_option("--record", options.record, "write observations, proposals and decisions to this new file");
  CLI::Option* dry_run =
      app.add_flag("--dry-run", options.dry_run, "print what the agent would be told first, and run nothing");
  CLI::Option* replay_option = app.add_option("--replay", options.replay,
                                              "run the controller against this recording, without a kernel");
  for (CLI::Option* of_a_session : {ifname, netns, agent, interval, ticks, dry_run})
    replay_option->excludes(of_a_session);
  app.add_flag("--json", options.json, "print the result of a replay as JSON")->needs(replay_option);
  program.only([&]() -> Result<int> {
    if (exec && options.command.empty())
      return fail(Exit::BadInput, "--exec: no program is named", "--exec PROGRAM ARGUMENTS...");
    if (!options.replay.empty()) return replay(options, controller->count() + seed->count() > 0);
    if (options.ifname.empty())
      return fail(Exit::BadInput, "no interface is named", "agentnic-agent IFACE, or --replay FILE");
    return run(options);
  });
  return program.main(argc, argv);
}
