// SPDX-License-Identifier: Apache-2.0
#include "lab/round_trip.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <functional>
#include <memory>
#include <optional>
#include <thread>

#include "lab/pairs.hpp"

namespace agentnic::lab {
namespace {

constexpr double kSeconds = 0.5;
constexpr int kSockperfSeconds = 1;  // its least
constexpr std::size_t kSize = 64;
constexpr std::array<std::size_t, 4> kSizes = {64, 128, 256, 512};
constexpr int kSizePairs = 7;
constexpr std::uint16_t kSockperfPort = 11111;
constexpr unsigned kOutstanding = 64;
constexpr unsigned kBatch = 32;  // of the kernel server: what AF_XDP sends with one call
constexpr std::uint32_t kBusyPollUs = 200;
constexpr std::array<double, 6> kBusyPollRates = {1000, 5000, 10000, 20000, 40000, 80000};

/// Who is on AF_XDP.
enum class Moved { None, Client, Server, Both };
constexpr bool has_server(Moved moved) { return moved == Moved::Server || moved == Moved::Both; }
constexpr bool has_client(Moved moved) { return moved == Moved::Client || moved == Moved::Both; }

/// One run of our own ends.
Result<Json> run_once(const Bench& bench, Moved moved, path::Wait wait, std::size_t size, Pairs& pairs) {
  Json done = ANIC_TRY(measure(bench, {.transport = has_server(moved) ? "xsk" : "udp",
                                       .client = has_client(moved) ? "xsk" : "udp",
                                       .wait = wait,
                                       .size = size,
                                       .duration_s = kSeconds}));
  if (bench.client_cpu == bench.server_cpu) pairs.problem = "client and server shared one CPU";
  const Json& run = done.at("run");
  if (!run.at("valid").get<bool>()) pairs.problem = run.at("invalid_because").get<std::string>();
  return done;
}

/// A percentile of one run, in microseconds.
Result<double> our_us(const Bench& bench, Moved moved, path::Wait wait, std::size_t size, const char* key,
                      Pairs& pairs) {
  const Json done = ANIC_TRY(run_once(bench, moved, wait, size, pairs));
  const Json& value = done.at("run").at(key);
  if (value.is_null()) return fail(Exit::Failed, fmt::format("too few samples for {}", key));
  return value.get<double>() / 1000;
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
  const Pairs pairs = ANIC_TRY(alternate(id, ours, peer));
  const std::vector<double> ratios = peers_over_ours(pairs);
  const Spread ratio = spread(ratios);
  Json row =
      bench_row({.id = id,
                 .unit = "us",
                 .peer = peer_name,
                 .note = fmt::format("paired ratios {:.3f} to {:.3f}; {}", ratio.low, ratio.high, note)},
                pairs.ours, ratios, spread(pairs.peers).median, 1.0, Bound::AtLeast, pairs.problem);
  // Here it is the ratio that has a target.
  row["met"] = pairs.problem.empty() && ratio.median >= 1.0;
  row["note"] = "target: ratio at least" +
                row["note"].get<std::string>().substr(std::string_view("target: value at least").size());
  return row;
}

/// Agentnic at both ends, or at the server's, or nowhere: what runs by turns has what it needs, and the
/// kernel's path is that of a machine without agentnic.
class Ends final {
 public:
  static Result<Ends> open(const Bench& bench, Attached& server) {
    Ends made(bench, server);
    made.policy_ = std::make_unique<policy::Policy>(ANIC_TRY(xsk_client_policy()));
    made.client_.emplace(ANIC_TRY(Attached::open(bench.lab.client, *made.policy_)));
    return made;
  }
  Status set(Moved moved) {
    ANIC_TRY(client_->set(has_client(moved)));
    return server_.set(has_server(moved));
  }
  Result<double> us(Moved moved, path::Wait wait, std::size_t size, const char* key, Pairs& pairs) {
    ANIC_TRY(set(moved));
    return our_us(bench_, moved, wait, size, key, pairs);
  }
  [[nodiscard]] std::string mode() const { return kern::mode_name(server_.report().mode); }

 private:
  Ends(const Bench& bench, Attached& server) : bench_(bench), server_(server) {}
  const Bench& bench_;
  Attached& server_;
  std::unique_ptr<policy::Policy> policy_;  // the other borrows it
  std::optional<Attached> client_;
};

/// The least bounds of a row whose target is for each of its repeats.
struct Aim {
  double median;
  double lower;
};

/// Ratios at each of the sizes: of each repeat the worst one counts.
Result<Json> at_all_sizes(const std::string& id, const Bench& bench, Attached& server, Moved moved,
                          const char* key, const Aim& aim) {
  Ends ends = ANIC_TRY(Ends::open(bench, server));
  std::vector<double> worst(kSizePairs, 1e9);
  double kernel_us = 0;
  std::string problem;
  std::string note;
  for (const std::size_t size : kSizes) {
    const Pairs pairs = ANIC_TRY(alternate(
        fmt::format("{} {} B", id, size),
        [&](Pairs& p) { return ends.us(moved, path::Wait::Spin, size, key, p); },
        [&](Pairs& p) { return ends.us(Moved::None, path::Wait::Spin, size, key, p); }, kSizePairs));
    if (!pairs.problem.empty()) problem = pairs.problem;
    std::vector<double> ratios;
    for (std::size_t i = 0; i < pairs.ours.size(); ++i) {
      ratios.push_back(pairs.peers[i] / pairs.ours[i]);
      worst[i] = std::min(worst[i], ratios.back());
    }
    const Spread ratio = spread(ratios);
    note += fmt::format("{} B: {:.2f} us against {:.2f}, {:.2f} ({:.2f} to {:.2f}); ", size,
                        spread(pairs.ours).median, spread(pairs.peers).median, ratio.median, ratio.low,
                        ratio.high);
    if (size == kSize) kernel_us = spread(pairs.peers).median;
  }
  ANIC_TRY(ends.set(Moved::Server));
  Json row = bench_row(
      {.id = id,
       .unit = "x",
       .peer = "kernel UDP, nothing attached (us at 64 B)",
       .note = fmt::format("{}the worst size of each repeat counts; every repeat at least {}, aim {}; "
                           "XDP mode {}",
                           note, aim.lower, aim.median, ends.mode())},
      worst, worst, kernel_us, aim.lower, Bound::AtLeast, problem);
  row["met"] = problem.empty() && spread(worst).low >= aim.lower;
  return row;
}

}  // namespace

Status wait_for_port(const std::string& netns, std::uint16_t port, const char* sockets) {
  for (int tries = 0; tries < 100; ++tries) {
    const std::string bound = ANIC_TRY(
        run_program({"ip", "netns", "exec", netns, "ss", sockets, fmt::format("sport = :{}", port)}));
    if (!bound.empty()) return {};
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
  }
  return fail(Exit::Failed, fmt::format("no server came up on port {} in netns {}", port, netns));
}

Result<Json> udp_vs_sockperf(const Bench& bench, path::Wait wait) {
  const bool spin = wait == path::Wait::Spin;
  return compare_p50(
      spin ? "udp_vs_sockperf_spin" : "udp_vs_sockperf_block",
      spin ? "sockperf ping-pong --nonblocked" : "sockperf ping-pong",
      [&](Pairs& pairs) { return our_us(bench, Moved::None, wait, kSize, "p50_ns", pairs); },
      [&](Pairs&) { return sockperf_p50_us(bench, wait); },
      fmt::format("p50 of the round trip of {} B over veth, kernel UDP on both ends", kSize));
}

Result<Json> xsk_server_p50_ratio(const Bench& bench, Attached& attached) {
  return at_all_sizes("xsk_server_p50_ratio", bench, attached, Moved::Server, "p50_ns", {1.5, 1.3});
}

Result<Json> xsk_both_p50_ratio(const Bench& bench, Attached& attached) {
  return at_all_sizes("xsk_both_p50_ratio", bench, attached, Moved::Both, "p50_ns", {2.2, 1.8});
}

Result<Json> xsk_both_p99_ratio(const Bench& bench, Attached& attached) {
  return at_all_sizes("xsk_both_p99_ratio", bench, attached, Moved::Both, "p99_ns", {2.2, 1.8});
}

/// A row of ratios, one for each pair.
Json ratio_row(const std::string& id, const std::string& peer, const Pairs& pairs, double target,
               const std::string& note) {
  const std::vector<double> ratios = peers_over_ours(pairs);
  return bench_row({.id = id, .unit = "x", .peer = peer, .note = note}, ratios, ratios,
                   spread(pairs.peers).median, target, Bound::AtLeast, pairs.problem);
}

Result<Json> xsk_vs_sockperf_p50_ratio(const Bench& bench, Attached& attached) {
  Ends ends = ANIC_TRY(Ends::open(bench, attached));
  const Pairs pairs = ANIC_TRY(alternate(
      "xsk_vs_sockperf_p50_ratio",
      [&](Pairs& p) { return ends.us(Moved::Both, path::Wait::Spin, kSize, "p50_ns", p); },
      [&](Pairs&) -> Result<double> {
        ANIC_TRY(ends.set(Moved::None));
        return sockperf_p50_us(bench, path::Wait::Spin);
      }));
  ANIC_TRY(ends.set(Moved::Server));
  return ratio_row("xsk_vs_sockperf_p50_ratio", "sockperf ping-pong --nonblocked (us)", pairs, 2.4,
                   fmt::format("p50 of the round trip of {} B over veth, {:.2f} us with AF_XDP on both ends",
                               kSize, spread(pairs.ours).median));
}

Result<Json> xsk_block_ratio(const Bench& bench, Attached& attached) {
  Ends ends = ANIC_TRY(Ends::open(bench, attached));
  const Pairs pairs = ANIC_TRY(alternate(
      "xsk_block_ratio",
      [&](Pairs& p) { return ends.us(Moved::Server, path::Wait::Block, kSize, "p50_ns", p); },
      [&](Pairs& p) { return ends.us(Moved::None, path::Wait::Block, kSize, "p50_ns", p); }));
  ANIC_TRY(ends.set(Moved::Server));
  return ratio_row(
      "xsk_block_ratio", "kernel UDP server, nothing attached (us)", pairs, 0.95,
      fmt::format("p50 of the round trip of {} B over veth, both ends blocking, kernel UDP client; {:.2f} us "
                  "with an AF_XDP server",
                  kSize, spread(pairs.ours).median));
}

Result<Json> xsk_rps_ratio(const Bench& bench, Attached& attached) {
  Ends ends = ANIC_TRY(Ends::open(bench, attached));
  double rate[2] = {0, 0};
  // One generator, AF_XDP and spinning, is the limit of either server: so it is what the server's core is
  // busy for that counts, interrupts included. It sleeps when there is nothing to do.
  const auto us_each = [&](bool ours, Pairs& pairs) -> Result<double> {
    ANIC_TRY(ends.set(ours ? Moved::Both : Moved::Client));
    const Json done = ANIC_TRY(measure(bench, {.transport = ours ? "xsk" : "udp",
                                               .client = "xsk",
                                               .wait = path::Wait::Block,
                                               .client_wait = path::Wait::Spin,
                                               .size = kSize,
                                               .duration_s = 1,
                                               .outstanding = kOutstanding,
                                               .batch = kBatch}));
    const Json& run = done.at("run");
    if (!run.at("valid").get<bool>()) pairs.problem = run.at("invalid_because").get<std::string>();
    if (bench.client_cpu == bench.server_cpu) pairs.problem = "client and server shared one CPU";
    rate[ours ? 1 : 0] = std::max(rate[ours ? 1 : 0], run.at("achieved_per_s").get<double>());
    const Json& server = done.at("server");
    return server.at("cpu_busy_s").get<double>() * 1e6 / server.at("echoed").get<double>();
  };
  const Pairs pairs = ANIC_TRY(alternate(
      "xsk_rps_ratio", [&](Pairs& p) { return us_each(true, p); },
      [&](Pairs& p) { return us_each(false, p); }));
  ANIC_TRY(ends.set(Moved::Server));
  return ratio_row(
      "xsk_rps_ratio", "kernel UDP server, 32 a call, nothing attached (us of its core for a request)", pairs,
      1.9,
      fmt::format("requests of {} B for a second of the server's core, interrupts included: {:.2f} us "
                  "each; {} outstanding from an AF_XDP client, which is the limit: at most {:.0f} "
                  "answers a second, and {:.0f} of the kernel's",
                  kSize, spread(pairs.ours).median, kOutstanding, rate[1], rate[0]));
}

Result<Json> busypoll_p50_ratio(const Bench& bench) {
  ANIC_TRY(lab_napi(bench.lab));
  struct Cost {
    double p50_us = 0;
    double cpu_pct = 0;  ///< of the server's CPU, interrupts included
  };
  const auto ask = [&](RunSpec spec, Pairs& pairs) -> Result<Cost> {
    spec.size = kSize;
    spec.duration_s = kSeconds;
    const Json done = ANIC_TRY(measure(bench, spec));
    const Json& run = done.at("run");
    if (bench.client_cpu == bench.server_cpu) pairs.problem = "client and server shared one CPU";
    if (spec.rate_per_s == 0 && !run.at("valid").get<bool>())
      pairs.problem = run.at("invalid_because").get<std::string>();
    if (run.at("p50_ns").is_null()) return fail(Exit::Failed, "too few samples for a median");
    return Cost{.p50_us = run.at("p50_ns").get<double>() / 1000,
                .cpu_pct = done.at("server").at("cpu_busy_s").get<double>() * 100 /
                           (spec.warmup_s + spec.duration_s)};
  };
  Cost last[2];
  const auto closed = [&](bool busy, Pairs& pairs) -> Result<double> {
    last[busy ? 1 : 0] =
        ANIC_TRY(ask({.wait = path::Wait::Block, .busy_poll_us = busy ? kBusyPollUs : 0}, pairs));
    return last[busy ? 1 : 0].p50_us;
  };
  const Pairs pairs = ANIC_TRY(alternate(
      "busypoll_p50_ratio", [&](Pairs& p) { return closed(true, p); },
      [&](Pairs& p) { return closed(false, p); }));
  Pairs other;
  const Cost spinning = ANIC_TRY(ask({.wait = path::Wait::Spin}, other));
  std::string note = fmt::format(
      "p50 of {} B, kernel UDP, both ends waiting in the kernel, {} us of preferred busy polling against "
      "none: {:.1f} us with {:.0f} % of the server's CPU, against {:.0f} %; calls that do not wait at all: "
      "{:.1f} us; with a client that spins, at so many a second:",
      kSize, kBusyPollUs, spread(pairs.ours).median, last[1].cpu_pct, last[0].cpu_pct, spinning.p50_us);
  for (const double rate : kBusyPollRates) {
    RunSpec spec{.wait = path::Wait::Block, .client_wait = path::Wait::Spin, .rate_per_s = rate};
    const Cost blocking = ANIC_TRY(ask(spec, other));
    spec.busy_poll_us = kBusyPollUs;
    const Cost busy = ANIC_TRY(ask(spec, other));
    note += fmt::format(" {:.0f}: {:.1f} us, {:.0f} % against {:.1f} us, {:.0f} %,", rate, busy.p50_us,
                        busy.cpu_pct, blocking.p50_us, blocking.cpu_pct);
  }
  note.pop_back();
  return ratio_row("busypoll_p50_ratio", "the same, blocking (us)", pairs, 3, note);
}

}  // namespace agentnic::lab
