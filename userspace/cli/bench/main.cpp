// SPDX-License-Identifier: Apache-2.0
//
// agentnic-bench: the lab, its servers and clients, experiments and benchmarks.

#include <fmt/format.h>

#include <algorithm>
#include <iostream>
#include <map>
#include <set>
#include <string>

#include "base/file.hpp"
#include "base/hypervisor.hpp"
#include "base/stop.hpp"
#include "cli/common/program.hpp"
#include "cli/common/xsk_options.hpp"
#include "kern/instance.hpp"
#include "kern/libbpf_log.hpp"
#include "kern/netns.hpp"
#include "kern/owner_page.hpp"
#include "lab/compare.hpp"
#include "lab/environment.hpp"
#include "lab/experiment.hpp"
#include "lab/load.hpp"
#include "lab/measure.hpp"
#include "lab/topology.hpp"
#include "path/sockets/udp.hpp"
#include "path/sockets/udp_batch.hpp"
#include "path/xsk/echo.hpp"

namespace {

using namespace agentnic;

struct Options {
  std::string name = lab::kDefaultLab;
  std::string netns;
  std::string transport = "udp";
  std::string wait = "spin";
  std::string loop = "closed";
  std::string bind = "auto";
  std::string address = "0.0.0.0";
  std::string server;
  std::string ifname;
  std::string experiment;
  std::string policy;
  std::string out;
  std::string file;
  std::vector<std::string> ids;
  std::vector<std::string> argv;
  std::uint16_t port = lab::kKernelPort;
  std::uint32_t queue = 0;
  std::uint32_t busy_poll_us = 0;
  unsigned batch = 1;
  std::size_t size = 64;
  unsigned outstanding = 1;
  double rate_per_s = 0;
  double warmup_s = 0.1;
  double duration_s = 1;
  double repeat_s = 0.6;
  int repeats = 5;
  int cpu = -1;
  bool json = false;
  bool list = false;
};

const std::map<std::string, lab::Loop> kLoops = {{"closed", lab::Loop::Closed}, {"open", lab::Loop::Open}};
constexpr std::size_t kMessageBytes = 65536;  // what the kernel joins
constexpr std::size_t kReportMaxBytes = 64 << 20;

Result<int> up(const Options& options) {
  ANIC_TRY(kern::need_privileges("lab up"));
  const lab::Lab lab(options.name);
  ANIC_TRY(lab::lab_up(lab));
  std::cout << fmt::format("lab {} is up\n", options.name);
  for (const auto* host : {&lab.client, &lab.server}) {
    std::cout << fmt::format("  netns {:<18} {}  {}  {}\n", host->netns, host->ifname, host->ipv4,
                             host->ipv6);
  }
  return 0;
}

Result<int> down(const Options& options) {
  ANIC_TRY(kern::need_privileges("lab down"));
  const bool was_there = ANIC_TRY(lab::lab_down(lab::Lab(options.name)));
  std::cout << fmt::format("lab {} {}\n", options.name, was_there ? "is down" : "was not up");
  return 0;
}

Status prepare(const Options& options) {
  catch_stop_signals();
  if (options.cpu >= 0) ANIC_TRY(lab::pin_to_cpu(options.cpu));
  return {};
}

/// Tells whoever started this that requests may come.
void announce(const Options& options, const std::string& obtained) {
  if (options.json) {
    std::cout << Json{{"schema", "agentnic.serve/1"},
                      {"ready", true},
                      {"transport", options.transport},
                      {"obtained", obtained}}
                     .dump()
              << std::endl;
  } else {
    std::cout << fmt::format("serving {} ({}), {}; Ctrl-C ends it", options.transport, obtained, options.wait)
              << std::endl;
  }
}

/// `busy_s`: what the server's CPU was busy for meanwhile, if it stayed on one.
Json served(const Options& options, const std::string& obtained, const path::EchoCounters& counters,
            double busy_s) {
  return {{"schema", "agentnic.serve/1"},   {"argv", options.argv},
          {"transport", options.transport}, {"wait", options.wait},
          {"obtained", obtained},           {"echoed", counters.packets},
          {"failed", counters.failed},      {"cpu_busy_s", options.cpu >= 0 ? Json(busy_s) : Json(nullptr)}};
}

Result<int> finish(const Options& options, const Json& json) {
  if (options.json) {
    std::cout << json.dump() << '\n';
  } else {
    std::cout << fmt::format("echoed {}, failed {}\n", json.at("echoed").get<std::uint64_t>(),
                             json.at("failed").get<std::uint64_t>());
  }
  return 0;
}

Result<int> serve_udp(const Options& options, const kern::NetNs& netns) {
  const auto address = ANIC_TRY(path::Address::parse(options.address, options.port));
  auto socket = ANIC_TRY(netns.run([&] { return path::UdpSocket::bind(address); }));
  announce(options, "kernel socket");
  const double busy_before = lab::cpu_busy_s(options.cpu);
  const auto echo = [&] {
    const path::Wait wait = cli::kWaits.at(options.wait);
    if (options.batch == 1) return path::echo_udp(socket, wait);
    path::UdpBatch batch(options.batch, kMessageBytes);
    return path::echo_udp(socket, batch, wait);
  };
  if (options.batch > 1) ANIC_TRY(path::join_datagrams(socket));
  const auto counters = echo();
  Json json = served(options, "kernel socket", counters, lab::cpu_busy_s(options.cpu) - busy_before);
  json["losses"] = {{"socket_dropped", socket.drops()}};
  return finish(options, json);
}

/// AF_XDP sockets of --iface at --queue, made with this process's own privileges; packets come to them.
Result<path::XskClient> make_xsk_client(const Options& options, const kern::NetNs& netns) {
  if (options.ifname.empty())
    return fail(Exit::BadInput, "which interface?", "--transport xsk needs --iface");
  ANIC_TRY(netns.run([&] { return kern::find_interface(options.ifname); }));
  ANIC_TRY(kern::need_privileges("AF_XDP on " + options.ifname));
  // The pin is opened out here: it may not be visible from inside.
  const kern::XskSlots slots = ANIC_TRY(kern::open_xsk_slots(netns, options.ifname));
  path::XskGrant grant = ANIC_TRY(netns.run([&] {
    return path::bind_xsk(
        {.ifname = options.ifname,
         .queues = {options.queue},
         .shape = {.bind = cli::kBinds.at(options.bind), .busy_poll_us = options.busy_poll_us}});
  }));
  for (path::XskQueueGrant& one : grant.queues)
    one.page = ANIC_TRY(kern::enter_owner(slots, one.queue, one.socket.get()));
  return path::XskClient::adopt(std::move(grant));
}

Result<int> serve_xsk(const Options& options, const kern::NetNs& netns) {
  auto client = ANIC_TRY(make_xsk_client(options, netns));
  path::XskSocket& socket = client.sockets().front();
  const std::string obtained = socket.zero_copy() ? "zerocopy" : "copy";
  announce(options, obtained);
  const double busy_before = lab::cpu_busy_s(options.cpu);
  const auto counters = path::echo_xsk(client, cli::kWaits.at(options.wait));
  const double busy_s = lab::cpu_busy_s(options.cpu) - busy_before;
  Json json = served(options, obtained, counters.echo, busy_s);
  const auto losses = socket.losses();
  json["losses"] = {
      {"rx_dropped", losses.rx_dropped},           {"rx_ring_full", losses.rx_ring_full},
      {"fill_ring_empty", losses.fill_ring_empty}, {"rx_invalid", losses.rx_invalid},
      {"tx_invalid", losses.tx_invalid},           {"refused_kicks", socket.counters().refused_kicks},
      {"bad_checksums", counters.bad_checksums},   {"not_udp", counters.not_udp}};
  json["refused_frames"] = socket.refused();
  json["completed_checksums"] = counters.completed_checksums;
  return finish(options, json);
}

Result<int> serve(const Options& options) {
  ANIC_TRY(prepare(options));
  const auto netns = ANIC_TRY(kern::NetNs::open_or_current(options.netns));
  return options.transport == "xsk" ? serve_xsk(options, netns) : serve_udp(options, netns);
}

std::string microseconds(const Json& json, const char* key) {
  return json.at(key).is_null() ? "-" : fmt::format("{:.1f}", json.at(key).get<double>() / 1000);
}

Result<int> run(const Options& options) {
  ANIC_TRY(prepare(options));
  const path::Address server = ANIC_TRY(path::Address::parse(options.server, options.port));
  const lab::LoadOptions load{.transport = options.transport,
                              .size = options.size,
                              .loop = kLoops.at(options.loop),
                              .wait = cli::kWaits.at(options.wait),
                              .outstanding = options.outstanding,
                              .rate_per_s = options.rate_per_s,
                              .warmup_s = options.warmup_s,
                              .duration_s = options.duration_s};
  const auto netns = ANIC_TRY(kern::NetNs::open_or_current(options.netns));
  std::optional<path::XskClient> client;
  if (options.transport == "xsk") client = ANIC_TRY(make_xsk_client(options, netns));
  ANIC_TRY(netns.enter());
  const auto line = ANIC_TRY(client ? lab::open_xsk_line(std::move(*client), server, options.size)
                                    : lab::open_udp_line(server));
  const auto result = ANIC_TRY(lab::run_load(*line, load));
  Json json = lab::to_json(load, result);
  json["argv"] = options.argv;
  if (options.json) {
    std::cout << json.dump() << '\n';
  } else {
    std::cout << fmt::format(
        "{} B, {} loop, {}: p50 {} us, p99 {} us, p99.9 {} us, {:.0f} answers/s of {:.0f} asked, {} lost, "
        "CPU {:.0f} %{}{}\n",
        options.size, options.loop, options.wait, microseconds(json, "p50_ns"), microseconds(json, "p99_ns"),
        microseconds(json, "p999_ns"), result.achieved_per_s(), result.offered_per_s, result.lost,
        json.at("cpu_machine_pct").get<double>(),
        result.invalid.empty() ? "" : "; NOT VALID: " + result.invalid,
        emulated() ? std::string("; ") + kEmulatedMeans : "");
  }
  return static_cast<int>(result.invalid.empty() ? Exit::Done : Exit::Failed);
}

Result<int> experiment(const Options& options) {
  ANIC_TRY(kern::need_privileges("experiment " + options.experiment));
  ANIC_TRY(lab::make_result_folder(options.out));
  const Json result = ANIC_TRY(lab::run_experiment(options.experiment, {.policy_file = options.policy,
                                                                        .repeats = options.repeats,
                                                                        .duration_s = options.repeat_s,
                                                                        .argv = options.argv}));
  const std::string path = ANIC_TRY(lab::save_result(result, options.out));
  if (options.json) {
    cli::print_json(result);
  } else {
    std::cout << ANIC_TRY(lab::report(result)) << "written: " << path << '\n';
  }
  return static_cast<int>(lab::is_valid(result) ? Exit::Done : Exit::Failed);
}

Result<int> report(const Options& options) {
  const std::string text = ANIC_TRY(read_file(options.file, kReportMaxBytes));
  const Json json = Json::parse(text, nullptr, false);
  if (json.is_discarded()) return fail(Exit::BadInput, fmt::format("report {}: not JSON", options.file));
  std::cout << ANIC_TRY(lab::report(json));
  return 0;
}

Result<int> compare(const Options& options) {
  if (options.list) {
    for (const auto& benchmark : lab::benchmarks())
      std::cout << fmt::format("{:<24} {}\n", benchmark.id, benchmark.what);
    return 0;
  }
  ANIC_TRY(kern::need_privileges("compare"));
  const Json list = ANIC_TRY(lab::run_benchmarks(options.ids));
  if (!options.out.empty()) ANIC_TRY(write_file(options.out, list.dump(1) + "\n"));
  if (options.json) {
    cli::print_json(list);
  } else {
    std::cout << lab::benchmark_table(list);
    for (const Json& one : list)
      std::cout << fmt::format("  {}: {}\n", one.at("id").get<std::string>(),
                               one.at("note").get<std::string>());
  }
  const bool valid = std::ranges::all_of(list, [](const Json& one) { return one.at("valid").get<bool>(); });
  return static_cast<int>(valid ? Exit::Done : Exit::Failed);
}

}  // namespace

int main(int argc, char** argv) {
  kern::capture_libbpf_log(false);
  cli::Program program("agentnic-bench",
                       "The lab: two namespaces, servers and clients, experiments and benchmarks.");
  Options options;
  options.argv.assign(argv, argv + argc);

  auto* lab_command =
      program.command("lab", "make or remove two network namespaces joined by a veth pair", nullptr);
  for (auto* command :
       {program.command(lab_command, "up", "make them; whatever is left of them is removed first",
                        [&] { return up(options); }),
        program.command(lab_command, "down", "remove them; safe to repeat", [&] { return down(options); })}) {
    command->add_option("--name", options.name, "the namespaces are NAME-client and NAME-server")
        ->check([](const std::string& name) {
          const bool good =
              !name.empty() && name.size() < 64 &&
              name.find_first_not_of("abcdefghijklmnopqrstuvwxyz0123456789-") == std::string::npos;
          return good ? std::string() : "a name of a-z 0-9 - belongs here";
        })
        ->capture_default_str();
  }

  const auto endpoint = [&](CLI::App* command) {
    command->add_option("--netns", options.netns, "network namespace");
    command->add_option("--wait", options.wait, "how to wait for a packet: block or spin")
        ->check(CLI::IsMember(cli::kWaits))
        ->capture_default_str();
    command->add_option("--port", options.port, "UDP port")
        ->check(CLI::Range(1, 65535))
        ->capture_default_str();
    command->add_option("--cpu", options.cpu, "stay on this CPU")->check(CLI::Range(0, 4095));
    command->add_flag("--json", options.json, "print JSON, a line each; units are in the key names");
  };
  const auto transport = [&](CLI::App* command) {
    command->add_option("--transport", options.transport, "udp or xsk")
        ->check(CLI::IsMember({"udp", "xsk"}))
        ->capture_default_str();
    command->add_option("--iface", options.ifname,
                        "xsk: interface to which agentnic is attached; its policy says which ports");
    command->add_option("--queue", options.queue, "xsk: receive queue")
        ->check(CLI::Range(0, ANIC_QUEUES_MAX - 1))
        ->capture_default_str();
    command->add_option("--bind", options.bind, "xsk: auto, copy or zerocopy")
        ->check(CLI::IsMember(cli::kBinds))
        ->capture_default_str();
    command->add_option("--busy-poll", options.busy_poll_us, "xsk: preferred busy polling, us; 0: interrupts")
        ->capture_default_str();
  };
  auto* serve_command = program.command("serve", "echo UDP until Ctrl-C, over a kernel socket or AF_XDP",
                                        [&] { return serve(options); });
  endpoint(serve_command);
  transport(serve_command);
  serve_command->add_option("--address", options.address, "udp: local address")->capture_default_str();
  serve_command
      ->add_option("--batch", options.batch, "udp: datagrams of one call, those of a flow joined (GRO)")
      ->check(CLI::Range(1, 1024))
      ->capture_default_str();

  auto* run_command =
      program.command("run", "ask an echo server and keep time", [&] { return run(options); });
  endpoint(run_command);
  transport(run_command);
  run_command->add_option("--server", options.server, "its address")->required();
  run_command->add_option("--size", options.size, "bytes of UDP payload")
      ->check(CLI::Range(lab::kMinSize, lab::kMaxSize))
      ->capture_default_str();
  run_command
      ->add_option(
          "--loop", options.loop,
          "closed: --outstanding at any moment; open: at a fixed rate, latency from the intended send")
      ->check(CLI::IsMember(kLoops))
      ->capture_default_str();
  run_command
      ->add_option("--outstanding", options.outstanding, "closed loop: requests that wait at any moment")
      ->check(CLI::Range(1, 1024))
      ->capture_default_str();
  run_command->add_option("--rate", options.rate_per_s, "open loop: requests per second")
      ->check(CLI::Range(1.0, 1e8));
  run_command->add_option("--warmup", options.warmup_s, "seconds before the measured ones")
      ->check(CLI::Range(0.0, 60.0))
      ->capture_default_str();
  run_command->add_option("--duration", options.duration_s, "seconds to measure")
      ->check(CLI::Range(0.01, 3600.0))
      ->capture_default_str();

  auto* experiment_command =
      program.command("experiment", "run an experiment in a lab of its own; nothing is left of it",
                      [&] { return experiment(options); });
  std::string about;
  std::set<std::string> names;
  for (const auto& [name, what] : lab::experiments()) {
    about += fmt::format("{}{}: {}", about.empty() ? "" : "; ", name, what);
    names.insert(name);
  }
  experiment_command->add_option("NAME", options.experiment, about)->required()->check(CLI::IsMember(names));
  experiment_command->add_option("--policy", options.policy, "policy file")
      ->required()
      ->check(CLI::ExistingFile);
  experiment_command->add_option("--out", options.out, "folder for local-<time>.json and latest.json")
      ->required();
  experiment_command->add_option("--repeats", options.repeats, "of each row, by turns")
      ->check(CLI::Range(1, 1000))
      ->capture_default_str();
  experiment_command->add_option("--duration", options.repeat_s, "seconds to measure in each")
      ->check(CLI::Range(0.01, 3600.0))
      ->capture_default_str();
  experiment_command->add_flag("--json", options.json, "print the result instead of its table");

  auto* report_command =
      program.command("report", "print the table of a result file", [&] { return report(options); });
  report_command->add_option("FILE", options.file, "a file that an experiment wrote")->required();

  auto* compare_command =
      program.command("compare", "run benchmarks, each beside a peer; nothing is left of them",
                      [&] { return compare(options); });
  compare_command->add_option("ID", options.ids, "which; all when none is named");
  compare_command->add_option("--out", options.out, "write the list to this file too");
  compare_command->add_flag("--list", options.list, "say which there are");
  compare_command->add_flag("--json", options.json, "print the list as JSON");

  return program.main(argc, argv);
}
