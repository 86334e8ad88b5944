// SPDX-License-Identifier: Apache-2.0
//
// agentnic-bench: the lab, its servers and clients, experiments and benchmarks.

#include <fmt/format.h>
#include <fmt/ranges.h>

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
#include "kern/interface.hpp"
#include "kern/libbpf_log.hpp"
#include "kern/netns.hpp"
#include "kern/owner_page.hpp"
#include "kern/queue_rules.hpp"
#include "lab/bulk.hpp"
#include "lab/bulk_paths.hpp"
#include "lab/compare.hpp"
#include "lab/environment.hpp"
#include "lab/experiment.hpp"
#include "lab/load.hpp"
#include "lab/measure.hpp"
#include "lab/tcp_server.hpp"
#include "lab/topology.hpp"
#include "path/sockets/udp.hpp"
#include "path/sockets/udp_batch.hpp"
#include "path/uring/receiver.hpp"
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
  unsigned workers = 1;
  unsigned connections = 1;
  std::size_t zerocopy_from = 0;
  std::size_t streams = 1;
  std::uint64_t bytes = 0;
  unsigned batch = 1;
  std::size_t size = 64;
  unsigned outstanding = 1;
  double rate_per_s = 0;
  double warmup_s = 0.1;
  double duration_s = 1;
  double repeat_s = 0.6;
  int repeats = 5;
  std::uint64_t mib = 64;
  int cpu = -1;
  bool json = false;
  bool bulk = false;
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

/// `busy_s`: what the server's CPUs were busy for meanwhile, if it stayed `on_cpus`.
Json served(const Options& options, const std::string& obtained, bool on_cpus, double busy_s) {
  return {{"schema", "agentnic.serve/1"},   {"argv", options.argv},
          {"transport", options.transport}, {"wait", options.wait},
          {"obtained", obtained},           {"cpu_busy_s", on_cpus ? Json(busy_s) : Json(nullptr)}};
}

Result<int> finish(const Options& options, const Json& json, const std::string& text) {
  std::cout << (options.json ? json.dump() : text) << '\n';
  return 0;
}

/// ... of a server of datagrams.
Result<int> finish(const Options& options, Json json, const path::EchoCounters& counters) {
  json["echoed"] = counters.packets;
  json["failed"] = counters.failed;
  return finish(options, json, fmt::format("echoed {}, failed {}", counters.packets, counters.failed));
}

Result<int> serve_udp(const Options& options, const kern::NetNs& netns) {
  const auto address = ANIC_TRY(path::Address::parse(options.address, options.port));
  auto socket = ANIC_TRY(
      netns.run([&] { return path::UdpSocket::bind(address, {.busy_poll = {.us = options.busy_poll_us}}); }));
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
  Json json = served(options, "kernel socket", options.cpu >= 0, lab::cpu_busy_s(options.cpu) - busy_before);
  json["losses"] = {{"socket_dropped", socket.drops()}};
  return finish(options, std::move(json), counters);
}

Result<int> serve_tcp(const Options& options, const kern::NetNs& netns) {
  lab::TcpServerOptions server{.local = ANIC_TRY(path::Address::parse(options.address, options.port)),
                               .busy_poll = {.us = options.busy_poll_us},
                               .wait = cli::kWaits.at(options.wait)};
  if (options.transport == "uring") {
    server.uring.emplace();
    if (options.zerocopy_from != 0) server.uring->zerocopy_from = options.zerocopy_from;
  }
  const int first = std::max(options.cpu, 0);
  if (options.workers > 1 || options.cpu >= 0) {
    for (unsigned i = 0; i < options.workers; ++i) server.cpus.push_back(first + static_cast<int>(i));
  }
  auto opened = ANIC_TRY(netns.run([&] { return lab::TcpServer::open(server); }));
  const char* mode = server.uring ? "io_uring" : "kernel socket";
  announce(options, mode);
  const auto busy_s = [&] {
    double sum = 0;
    for (const int cpu : server.cpus) sum += lab::cpu_busy_s(cpu);
    return sum;
  };
  const double busy_before = busy_s();
  const auto workers = ANIC_TRY(opened.run());
  const double busy = busy_s() - busy_before;
  path::TcpEchoCounters all;
  Json list = Json::array();
  for (const auto& [worker, uring] : workers) {
    all.accepted += worker.accepted;
    all.reset += worker.reset;
    all.bytes += worker.bytes;
    list.push_back({{"accepted", worker.accepted},
                    {"ended", worker.ended},
                    {"reset", worker.reset},
                    {"full", worker.full},
                    {"most_connections", worker.most},
                    {"echoed_bytes", worker.bytes},
                    {"slow_peers", worker.slow}});
    if (!server.uring) continue;
    list.back()["uring"] = {{"starved", uring.starved},     {"cancelled", uring.cancelled},
                            {"bundles", uring.bundles},     {"zerocopy_sends", uring.zerocopy},
                            {"copied_sends", uring.copied}, {"overflows", uring.overflows}};
  }
  Json json = served(options, mode, !server.cpus.empty(), busy);
  json["workers"] = std::move(list);
  return finish(options, json,
                fmt::format("echoed {} bytes on {} connections, of which {} were reset", all.bytes,
                            all.accepted, all.reset));
}

int print_bulk(const Options& options, const lab::BulkResult& result, const Json& more = Json::object()) {
  if (options.json) {
    Json json = {{"schema", "agentnic.bulk_run/1"},
                 {"argv", options.argv},
                 {"bytes", result.bytes},
                 {"seconds", result.seconds},
                 {"gbps", result.gbps()}};
    json.update(more);
    std::cout << json.dump() << '\n';
  } else {
    std::cout << fmt::format("{} bytes in {:.2f} s, {:.2f} Gbit/s\n", result.bytes, result.seconds,
                             result.gbps());
  }
  return 0;
}

Json streams_json(const lab::HashedBulk& bulk) {
  Json list = Json::array();
  for (const lab::HashedStream& one : bulk.streams)
    list.push_back({{"bytes", one.bytes}, {"sha256", one.sha256}});
  return list;
}

const char* receive_mode_name(path::ReceiveMode mode) {
  switch (mode) {
    case path::ReceiveMode::Multishot:
      return "io_uring, multishot receive";
    case path::ReceiveMode::ZeroCopyNoDevice:
      return "io_uring, zero-copy receive without a device";
    case path::ReceiveMode::ZeroCopy:
      return "io_uring, zero-copy receive";
  }
  return "?";
}

/// The queue of a NIC from which is received without copies, set aside for that until this goes.
class ReceiveQueue {
 public:
  ReceiveQueue() = default;
  ReceiveQueue(const ReceiveQueue&) = delete;
  ReceiveQueue& operator=(const ReceiveQueue&) = delete;
  ~ReceiveQueue() {
    if (const Status done = give_back(); !done)
      std::cerr << "agentnic-bench: " << done.error().text() << '\n';
  }
  /// When the ring is closed.
  Status give_back() {
    if (!dir_) return {};
    const kern::PinDir dir = *std::exchange(dir_, std::nullopt);
    for (const std::string& note : ANIC_TRY(kern::give_back(dir)))
      std::cerr << "agentnic-bench: " << note << '\n';
    return {};
  }
  Status set_aside(const Options& options, const kern::NetNs& netns) {
    const auto plan = ANIC_TRY(kern::plan_receive(
        netns, options.ifname, {options.queue},
        {{.name = "streams", .protocol = IPPROTO_TCP, .port = options.port, .role = ANIC_ROLE_SERVER}}));
    // The record of what was changed is in its pins: a detach undoes it if this is killed.
    const auto status = ANIC_TRY(kern::need_attached(netns, options.ifname, "receive without copies from"));
    ANIC_TRY(kern::set_aside(netns, plan, status.dir));
    dir_ = status.dir;
    return {};
  }

 private:
  std::optional<kern::PinDir> dir_;
};

/// Streams over io_uring, hashed as they come.
Result<int> serve_streams(const Options& options, const kern::NetNs& netns) {
  path::ReceiverOptions receiver{};
  ReceiveQueue queue;  // given back when the receiver's ring is closed
  if (options.transport == "zcrx") {
    receiver.zero_copy = path::ZcrxOptions{.queue = options.queue};
    if (!options.ifname.empty()) {
      receiver.zero_copy->ifindex =
          ANIC_TRY(netns.run([&] { return kern::find_interface(options.ifname); })).ifindex;
      ANIC_TRY(queue.set_aside(options, netns));
    }
  }
  const auto local = ANIC_TRY(path::Address::parse(options.address, options.port));
  std::optional<path::UringReceiver> made = ANIC_TRY(netns.run([&]() -> Result<path::UringReceiver> {
    return path::UringReceiver::open(ANIC_TRY(path::TcpListener::listen(local)), receiver);
  }));
  path::UringReceiver& opened = *made;
  announce(options, receive_mode_name(opened.mode()));
  if (!opened.why().empty()) std::cerr << "agentnic-bench: " << opened.why() << '\n';
  const auto bulk = ANIC_TRY(lab::receive_hashed(opened, options.streams));
  const path::ReceiverCounters counters = opened.counters();
  Json more = {{"mode", receive_mode_name(opened.mode())},
               {"streams", streams_json(bulk)},
               {"starved", counters.starved},
               {"overflows", counters.overflows}};
  if (!opened.why().empty()) more["why"] = opened.why();
  if (const auto& zcrx = counters.zero_copy) {
    more["zero_copy"] = {{"chunks", zcrx->chunks}, {"flushes", zcrx->flushes}, {"lost", zcrx->lost}};
    if (zcrx->has_events)
      more["zero_copy"].update({{"allocation_failures", zcrx->allocation_failures},
                                {"copied_chunks", zcrx->copied_chunks},
                                {"copied_bytes", zcrx->copied_bytes}});
  }
  made.reset();
  ANIC_TRY(queue.give_back());
  return print_bulk(options, bulk.total, more);
}

Result<int> serve_bulk(const Options& options, const kern::NetNs& netns) {
  const auto local = ANIC_TRY(path::Address::parse(options.address, options.port));
  auto listener = ANIC_TRY(netns.run([&] { return path::TcpListener::listen(local); }));
  announce(options, "kernel socket");
  const WakeUps wake_ups;
  return print_bulk(options, ANIC_TRY(lab::receive_bulk(listener)));
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
  Json json = served(options, obtained, options.cpu >= 0, busy_s);
  const auto losses = socket.losses();
  json["losses"] = {
      {"rx_dropped", losses.rx_dropped},           {"rx_ring_full", losses.rx_ring_full},
      {"fill_ring_empty", losses.fill_ring_empty}, {"rx_invalid", losses.rx_invalid},
      {"tx_invalid", losses.tx_invalid},           {"refused_kicks", socket.counters().refused_kicks},
      {"bad_checksums", counters.bad_checksums},   {"not_udp", counters.not_udp}};
  json["refused_frames"] = socket.refused();
  json["completed_checksums"] = counters.completed_checksums;
  return finish(options, std::move(json), counters.echo);
}

/// Options that what was asked for does not have are refused, not passed over.
Status need_of(bool given, bool has, const std::string& option, const std::string& of) {
  if (given && !has) return fail(Exit::BadInput, fmt::format("{} is of {}", option, of));
  return {};
}

Status check_serve(const Options& options) {
  const std::string& kind = options.transport;
  const bool of_uring = kind == "uring" || kind == "zcrx";
  const bool bulk = options.bulk || kind == "zcrx";
  ANIC_TRY(need_of(options.bulk, kind == "tcp" || of_uring, "--bulk", "--transport tcp, uring and zcrx"));
  ANIC_TRY(need_of(options.streams != 1, of_uring && bulk, "--streams", "--bulk of uring and zcrx"));
  ANIC_TRY(need_of(options.workers != 1, (kind == "tcp" || kind == "uring") && !bulk, "--workers",
                   "--transport tcp and uring, without --bulk"));
  ANIC_TRY(need_of(options.zerocopy_from != 0, kind == "uring" && !bulk, "--zerocopy-from",
                   "--transport uring, without --bulk"));
  ANIC_TRY(need_of(options.batch != 1, kind == "udp", "--batch", "--transport udp"));
  return need_of(options.busy_poll_us != 0,
                 !bulk && !(kind == "uring" && cli::kWaits.at(options.wait) == path::Wait::Spin),
                 "--busy-poll", "an echo server, and over io_uring of one that blocks");
}

Status check_run(const Options& options) {
  const bool tcp = options.transport == "tcp";
  ANIC_TRY(need_of(options.bulk, tcp, "--bulk", "--transport tcp, uring and zcrx"));
  ANIC_TRY(need_of(options.bytes != 0, options.bulk, "--bytes", "--bulk"));
  ANIC_TRY(need_of(options.connections != 1, tcp && (!options.bulk || options.bytes != 0), "--connections",
                   "--transport tcp, with --bulk and --bytes if it is bulk"));
  ANIC_TRY(need_of(options.connections > 1024, !options.bulk, "--connections above 1024", "requests"));
  return need_of(options.outstanding > options.connections, options.connections == 1 || options.bulk,
                 fmt::format("--outstanding {} on --connections {}: one each; more", options.outstanding,
                             options.connections),
                 "one connection");
}

Result<int> serve(const Options& options) {
  ANIC_TRY(check_serve(options));
  ANIC_TRY(prepare(options));
  const auto netns = ANIC_TRY(kern::NetNs::open_or_current(options.netns));
  const bool streams = options.transport == "zcrx" || (options.transport == "uring" && options.bulk);
  if (streams) return serve_streams(options, netns);
  if (options.bulk) return serve_bulk(options, netns);
  if (options.transport == "tcp" || options.transport == "uring") return serve_tcp(options, netns);
  return options.transport == "xsk" ? serve_xsk(options, netns) : serve_udp(options, netns);
}

std::string microseconds(const Json& json, const char* key) {
  return json.at(key).is_null() ? "-" : fmt::format("{:.1f}", json.at(key).get<double>() / 1000);
}

Result<int> run(const Options& options) {
  ANIC_TRY(check_run(options));
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
  if (!options.netns.empty()) ANIC_TRY(netns.enter());
  if (options.bulk) {
    const WakeUps wake_ups;
    if (options.bytes == 0) return print_bulk(options, ANIC_TRY(lab::send_bulk(server, options.duration_s)));
    const auto bulk = ANIC_TRY(lab::send_hashed(server, options.bytes, options.connections));
    return print_bulk(options, bulk.total, {{"streams", streams_json(bulk)}});
  }
  const path::SocketOptions socket{.busy_poll = {.us = options.busy_poll_us}};
  const auto line = ANIC_TRY(client ? lab::open_xsk_line(std::move(*client), server, options.size)
                             : options.transport == "tcp"
                                 ? lab::open_tcp_line(server, options.size, options.connections, socket)
                                 : lab::open_udp_line(server, socket));
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

Result<int> bulk(const Options& options) {
  ANIC_TRY(kern::need_privileges("bulk"));
  const Json result = ANIC_TRY(lab::run_bulk_paths({.mib = options.mib, .repeats = options.repeats}));
  if (!options.out.empty()) ANIC_TRY(write_file(options.out, result.dump(1) + "\n"));
  if (options.json) {
    cli::print_json(result);
  } else {
    std::cout << lab::bulk_paths_table(result);
  }
  return static_cast<int>(result.at("write").at("valid").get<bool>() ? Exit::Done : Exit::Failed);
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
    command->add_option("--port", options.port, "UDP or TCP port")
        ->check(CLI::Range(1, 65535))
        ->capture_default_str();
    command->add_option("--cpu", options.cpu, "stay on this CPU")->check(CLI::Range(0, 4095));
    command->add_flag("--json", options.json, "print JSON, a line each; units are in the key names");
  };
  const auto transport = [&](CLI::App* command, const std::vector<std::string>& words) {
    command->add_option("--transport", options.transport, fmt::format("{}", fmt::join(words, ", ")))
        ->check(CLI::IsMember(words))
        ->capture_default_str();
    command->add_option(
        "--iface", options.ifname,
        "xsk: interface to which agentnic is attached; its policy says which ports. zcrx: the NIC");
    command->add_option("--queue", options.queue, "xsk, zcrx: receive queue")
        ->check(CLI::Range(0, ANIC_QUEUES_MAX - 1))
        ->capture_default_str();
    command->add_option("--bind", options.bind, "xsk: auto, copy or zerocopy")
        ->check(CLI::IsMember(cli::kBinds))
        ->capture_default_str();
    command->add_option("--busy-poll", options.busy_poll_us, "preferred busy polling, us; 0: interrupts")
        ->capture_default_str();
    command->add_flag("--bulk", options.bulk,
                      "tcp, uring, zcrx: streams, as fast as they go, and nothing comes back");
  };
  auto* serve_command = program.command(
      "serve", "echo UDP or TCP until Ctrl-C, over kernel sockets or AF_XDP", [&] { return serve(options); });
  endpoint(serve_command);
  transport(serve_command, {"udp", "tcp", "uring", "zcrx", "xsk"});
  serve_command->add_option("--address", options.address, "all but xsk: local address")
      ->capture_default_str();
  serve_command
      ->add_option("--batch", options.batch, "udp: datagrams of one call, those of a flow joined (GRO)")
      ->check(CLI::Range(1, 1024))
      ->capture_default_str();
  serve_command
      ->add_option("--workers", options.workers,
                   "tcp, uring: one on each CPU from --cpu on, which share the port")
      ->check(CLI::Range(1, 256))
      ->capture_default_str();
  serve_command->add_option("--streams", options.streams, "uring, zcrx with --bulk: end after so many")
      ->check(CLI::Range(1, 1024))
      ->capture_default_str();
  serve_command
      ->add_option("--zerocopy-from", options.zerocopy_from,
                   "uring: bytes from which on a send is asked for without a copy; 0: none")
      ->capture_default_str();

  auto* run_command =
      program.command("run", "ask an echo server and keep time", [&] { return run(options); });
  endpoint(run_command);
  transport(run_command, {"udp", "tcp", "xsk"});
  run_command->add_option("--server", options.server, "its address")->required();
  run_command->add_option("--size", options.size, "bytes of a request")
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
  run_command->add_option("--bytes", options.bytes,
                          "tcp with --bulk: send so many, at random, and print their hash");
  run_command->add_option("--connections", options.connections, "tcp: with one request at a time each")
      ->check(CLI::Range(1, 16384))
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

  auto* bulk_command = program.command(
      "bulk", "agentnic-bulk by TCP, io_uring and soft-RoCE, and RDMA WRITE beside ib_write_bw, in a lab",
      [&] { return bulk(options); });
  bulk_command->add_option("--mib", options.mib, "of content in each session")
      ->capture_default_str()
      ->check(CLI::Range(1, 1024));
  bulk_command->add_option("--repeats", options.repeats, "of each row, by turns")
      ->capture_default_str()
      ->check(CLI::Range(1, 100));
  bulk_command->add_option("--out", options.out, "write the result to this file too");
  bulk_command->add_flag("--json", options.json, "print the result instead of its table");

  return program.main(argc, argv);
}
