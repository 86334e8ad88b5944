// SPDX-License-Identifier: Apache-2.0
#include "lab/compare.hpp"

#include <fmt/format.h>
#include <netinet/in.h>

#include <algorithm>
#include <chrono>
#include <functional>
#include <limits>
#include <thread>

#include "abi/flow.h"
#include "base/hypervisor.hpp"
#include "base/stop.hpp"
#include "kern/object.hpp"
#include "kern/test_run.hpp"
#include "lab/measure.hpp"
#include "lab/packet.hpp"
#include "policy/compile.hpp"
#include "policy/parse.hpp"

namespace agentnic::lab {
namespace {

constexpr int kRepeats = 11;
constexpr double kSeconds = 0.5;
constexpr int kSockperfSeconds = 1;  // its least
constexpr std::size_t kSize = 64;
constexpr std::uint16_t kSockperfPort = 11111;
constexpr std::uint32_t kProgramRuns = 100'000;
constexpr int kProgramChunks = 10;

// The policy of every benchmark: path A on one port, path B on the next.
constexpr const char* kPolicy = R"({"version": 1, "name": "bench", "services": [
  {"name": "kernel", "protocol": "udp", "port": 9000, "class": "rpc", "path": "kernel"},
  {"name": "xsk", "protocol": "udp", "port": 9001, "class": "rpc", "path": "xsk"}]})";

/// Repeats of one benchmark: ours and the peer's, paired.
struct Pairs {
  std::vector<double> ours;
  std::vector<double> peers;
  std::string problem;  ///< why it is not valid, or empty
};

/// Measures both by turns, and by turns each first.
Result<Pairs> alternate(Progress& progress, const std::string& id,
                        const std::function<Result<double>(Pairs&)>& ours,
                        const std::function<Result<double>(Pairs&)>& peer) {
  Pairs pairs;
  for (int repeat = 0; repeat < kRepeats; ++repeat) {
    progress.step(fmt::format("{} (repeat {} of {})", id, repeat + 1, kRepeats));
    const bool peer_first = repeat % 2 == 1;
    if (peer_first) pairs.peers.push_back(ANIC_TRY(peer(pairs)));
    pairs.ours.push_back(ANIC_TRY(ours(pairs)));
    if (!peer_first) pairs.peers.push_back(ANIC_TRY(peer(pairs)));
    if (stop_requested()) return fail(Exit::Failed, "stopped");
  }
  return pairs;
}

/// p50 of one run of our own server and client, in microseconds.
Result<double> our_p50_us(const Bench& bench, const std::string& transport, path::Wait wait, Pairs& pairs) {
  const Json done =
      ANIC_TRY(measure(bench, {.transport = transport, .wait = wait, .size = kSize, .duration_s = kSeconds}));
  const Json& run = done.at("run");
  if (bench.client_cpu == bench.server_cpu) pairs.problem = "client and server shared one CPU";
  if (!run.at("valid").get<bool>()) pairs.problem = run.at("invalid_because").get<std::string>();
  if (run.at("p50_ns").is_null()) return fail(Exit::Failed, "too few samples for a median");
  return run.at("p50_ns").get<double>() / 1000;
}

/// Waits until someone is bound to a UDP port in a namespace.
Status wait_for_port(const std::string& netns, std::uint16_t port) {
  for (int tries = 0; tries < 100; ++tries) {
    const std::string bound = ANIC_TRY(
        run_program({"ip", "netns", "exec", netns, "ss", "-Hlun", fmt::format("sport = :{}", port)}));
    if (!bound.empty()) return {};
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
  }
  return fail(Exit::Failed, fmt::format("no server came up on UDP port {} in netns {}", port, netns));
}

/// p50 of one `sockperf ping-pong`, in microseconds.
Result<double> sockperf_p50_us(const Bench& bench, path::Wait wait) {
  const auto command = [&](const Host& host, int cpu, std::initializer_list<const char*> words) {
    Argv argv = {"ip", "netns", "exec", host.netns, "taskset", "-c", std::to_string(cpu), "sockperf"};
    argv.insert(argv.end(), words.begin(), words.end());
    argv.insert(argv.end(), {"-i", bench.lab.server.ipv4, "-p", std::to_string(kSockperfPort)});
    if (wait == path::Wait::Spin) argv.emplace_back("--nonblocked");
    return argv;
  };
  Child server = ANIC_TRY(Child::start(command(bench.lab.server, bench.server_cpu, {"server"})));
  ANIC_TRY(wait_for_port(bench.lab.server.netns, kSockperfPort));
  Argv client = command(bench.lab.client, bench.client_cpu, {"ping-pong", "--full-rtt"});
  client.insert(client.end(), {"-t", std::to_string(kSockperfSeconds), "-m", std::to_string(kSize)});
  const std::string output = ANIC_TRY(run_program(client));
  constexpr std::string_view kMedian = "percentile 50.000 =";
  const auto found = output.find(kMedian);
  if (found == std::string::npos) return fail(Exit::Failed, "sockperf printed no median");
  return std::strtod(output.c_str() + found + kMedian.size(), nullptr);
}

/// The p50 of AF_XDP or the kernel against a peer whose time is also a p50.
Result<Json> compare_p50(const std::string& id, const std::string& peer_name,
                         const std::function<Result<double>(Pairs&)>& ours,
                         const std::function<Result<double>(Pairs&)>& peer, const std::string& note) {
  Progress progress(kRepeats);
  const Pairs pairs = ANIC_TRY(alternate(progress, id, ours, peer));
  std::vector<double> ratios;
  for (std::size_t i = 0; i < pairs.ours.size(); ++i) ratios.push_back(pairs.peers[i] / pairs.ours[i]);
  const Spread value = spread(pairs.ours);
  const Spread ratio = spread(ratios);
  return Json{{"id", id},
              {"value", value.median},
              {"unit", "us"},
              {"peer", {{"name", peer_name}, {"value", spread(pairs.peers).median}}},
              {"ratio", ratio.median},
              {"low", value.low},
              {"high", value.high},
              {"target", 1.0},
              {"met", pairs.problem.empty() && ratio.median >= 1.0},
              {"valid", pairs.problem.empty()},
              {"note", fmt::format("target: ratio at least; paired ratios {:.3f} to {:.3f}; {}{}", ratio.low,
                                   ratio.high, note, pairs.problem.empty() ? "" : "; " + pairs.problem)}};
}

Result<Json> udp_vs_sockperf(const Bench& bench, path::Wait wait) {
  const bool spin = wait == path::Wait::Spin;
  return compare_p50(
      spin ? "udp_vs_sockperf_spin" : "udp_vs_sockperf_block",
      spin ? "sockperf ping-pong --nonblocked" : "sockperf ping-pong",
      [&](Pairs& pairs) { return our_p50_us(bench, "udp", wait, pairs); },
      [&](Pairs&) { return sockperf_p50_us(bench, wait); },
      fmt::format("p50 of the round trip of {} B over veth, kernel UDP on both ends", kSize));
}

Result<Json> xsk_server_p50_ratio(const Bench& bench, Attached& attached) {
  // The peer has nothing attached: XDP on a veth costs the kernel's own path something too.
  const auto ours = [&](Pairs& pairs) -> Result<double> {
    ANIC_TRY(attached.set(true));
    return our_p50_us(bench, "xsk", path::Wait::Spin, pairs);
  };
  const auto peer = [&](Pairs& pairs) -> Result<double> {
    ANIC_TRY(attached.set(false));
    return our_p50_us(bench, "udp", path::Wait::Spin, pairs);
  };
  Json json = ANIC_TRY(compare_p50(
      "xsk_server_p50_ratio", "kernel UDP server, nothing attached", ours, peer,
      fmt::format("p50 of the round trip of {} B over veth, both ends spinning, kernel UDP client", kSize)));
  json["note"] = fmt::format("{}; XDP mode {}", json["note"].get<std::string>(),
                             kern::mode_name(attached.report().mode));
  return json;
}

Result<Json> xdp_hot_ns() {
  const auto object = ANIC_TRY(kern::Object::load());
  ANIC_TRY(object.fill(policy::compile(ANIC_TRY(policy::parse(kPolicy, "bench policy")))));
  const UniqueFd noop = ANIC_TRY(kern::load_noop_xdp());
  const Frame frame = PacketBuilder().eth().ipv4().udp(40000, kKernelPort).payload(kSize).build();
  // The least of some chunks: whatever interrupts a program only adds to its time.
  const auto timed = [&](int prog_fd) -> Result<double> {
    auto least = std::numeric_limits<std::uint32_t>::max();
    for (int chunk = 0; chunk < kProgramChunks; ++chunk) {
      least = std::min(least, ANIC_TRY(kern::time_runs(prog_fd, frame, kProgramRuns)));
    }
    return least;
  };
  Progress progress(kRepeats);
  const Pairs pairs = ANIC_TRY(alternate(
      progress, "xdp_hot_ns", [&](Pairs&) { return timed(object.xdp_fd()); },
      [&](Pairs&) { return timed(noop.get()); }));
  std::vector<double> over;
  std::vector<double> ratios;
  for (std::size_t i = 0; i < pairs.ours.size(); ++i) {
    over.push_back(pairs.ours[i] - pairs.peers[i]);
    ratios.push_back(pairs.peers[i] / pairs.ours[i]);
  }
  constexpr double kTarget = 15;
  const Spread value = spread(over);
  return Json{{"id", "xdp_hot_ns"},
              {"value", value.median},
              {"unit", "ns"},
              {"peer", {{"name", "no-op XDP program"}, {"value", spread(pairs.peers).median}}},
              {"ratio", spread(ratios).median},
              {"low", value.low},
              {"high", value.high},
              {"target", kTarget},
              {"met", value.median <= kTarget},
              {"valid", true},
              {"note", fmt::format("target: value at most; time over the no-op for a UDP packet of a service "
                                   "on path A: parse, decide, count; "
                                   "BPF_PROG_TEST_RUN, least of {} times {} runs; ratio: no-op over ours",
                                   kProgramChunks, kProgramRuns)}};
}

/// A benchmark and how it is run; the lab is up and the policy attached.
struct Benchmark {
  BenchmarkInfo info;
  std::function<Result<Json>(const Bench&, Attached&)> run;
};

const std::vector<Benchmark>& table() {
  static const std::vector<Benchmark> all = {
      {{"udp_vs_sockperf_block", "kernel UDP echo against sockperf, blocking"},
       [](const Bench& bench, Attached&) { return udp_vs_sockperf(bench, path::Wait::Block); }},
      {{"udp_vs_sockperf_spin", "kernel UDP echo against sockperf, spinning"},
       [](const Bench& bench, Attached&) { return udp_vs_sockperf(bench, path::Wait::Spin); }},
      {{"xsk_server_p50_ratio", "AF_XDP server against kernel UDP server, spinning"}, xsk_server_p50_ratio},
      {{"xdp_hot_ns", "the XDP program on a hot packet, over a no-op program"},
       [](const Bench&, Attached&) { return xdp_hot_ns(); }},
  };
  return all;
}

Result<Json> run_in_lab(const Bench& bench, const std::vector<std::string>& ids) {
  const auto policy = ANIC_TRY(policy::parse(kPolicy, "bench policy"));
  Attached attached = ANIC_TRY(Attached::open(bench, policy));
  Json list = Json::array();
  for (const Benchmark& benchmark : table()) {
    if (!ids.empty() && std::ranges::find(ids, benchmark.info.id) == ids.end()) continue;
    ANIC_TRY(attached.set(true));
    list.push_back(ANIC_TRY(benchmark.run(bench, attached)));
    if (emulated()) {
      Json& one = list.back();
      one["valid"] = one["met"] = false;
      one["note"] = fmt::format("{}; {}", kEmulatedMeans, one["note"].get<std::string>());
    }
  }
  return list;
}

}  // namespace

std::vector<BenchmarkInfo> benchmarks() {
  std::vector<BenchmarkInfo> list;
  for (const Benchmark& benchmark : table()) list.push_back(benchmark.info);
  return list;
}

Result<Json> run_benchmarks(const std::vector<std::string>& ids) {
  for (const std::string& id : ids) {
    if (std::ranges::none_of(table(), [&](const Benchmark& one) { return one.info.id == id; })) {
      return fail(Exit::BadInput, fmt::format("compare: there is no benchmark {}", id),
                  "agentnic-bench compare --list");
    }
  }
  ANIC_TRY(private_mounts());
  catch_stop_signals();
  const Lab lab(kDefaultLab);
  ANIC_TRY(lab_up(lab));
  auto list = run_in_lab(make_bench(lab), ids);
  const auto down = lab_down(lab);
  if (list && !down) return fail(down.error());
  return list;
}

std::string benchmark_table(const Json& list) {
  std::string text =
      fmt::format("{:<24} {:>9} {:<4} {:>19} {:>10} {:>7} {:>7} {:<4} {:<6} {}\n", "id", "value", "unit",
                  "low to high", "peer", "ratio", "target", "met", "valid", "peer is");
  for (const Json& one : list) {
    text += fmt::format(
        "{:<24} {:>9.2f} {:<4} {:>19} {:>10.2f} {:>7.3f} {:>7.2f} {:<4} {:<6} {}\n",
        one.at("id").get<std::string>(), one.at("value").get<double>(), one.at("unit").get<std::string>(),
        fmt::format("{:.2f} to {:.2f}", one.at("low").get<double>(), one.at("high").get<double>()),
        one.at("peer").at("value").get<double>(), one.at("ratio").get<double>(),
        one.at("target").get<double>(), one.at("met").get<bool>() ? "yes" : "no",
        one.at("valid").get<bool>() ? "yes" : "no", one.at("peer").at("name").get<std::string>());
  }
  return text;
}

}  // namespace agentnic::lab
