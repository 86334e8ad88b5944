// SPDX-License-Identifier: Apache-2.0
#include "lab/turnaround.hpp"

#include <fmt/format.h>
#include <sys/prctl.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <cmath>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "abi/turn.h"
#include "base/clock.hpp"
#include "base/stop.hpp"
#include "kern/maps.hpp"
#include "kern/stats.hpp"
#include "lab/environment.hpp"
#include "lab/load.hpp"
#include "lab/pairs.hpp"
#include "path/sockets/udp.hpp"
#include "policy/parse.hpp"

namespace agentnic::lab {
namespace {

constexpr double kTarget = 10;
constexpr int kRepeats = 5;
constexpr double kSeconds = 4;
constexpr std::uint64_t kUsualNs = 2'000'000;
constexpr std::uint64_t kLateNs = 8'000'000;
constexpr std::uint64_t kLateEvery = 40;       // 2.5 %: the p99 is one of these
constexpr std::uint64_t kLookNs = 20'000'000;  // how often the server asks whether it is to go on
constexpr std::size_t kBufferBytes = 2048;
constexpr double kSampledAtLeast = 0.9;  // of a flow that asks less than the dataplane looks at
constexpr std::array kFractions = {0.5, 0.99};

Result<policy::Policy> policy_of(const char* role) {
  return policy::parse(fmt::format(R"({{"version": 1, "name": "turns", "services": [
    {{"name": "slow", "protocol": "udp", "port": {}, "role": "{}", "class": "rpc", "path": "kernel"}}]}})",
                                   kKernelPort, role),
                       "bench policy");
}

/// Answers each datagram after a known time, on a thread and a CPU of its own, until it goes.
class SlowServer final {
 public:
  SlowServer(path::UdpSocket socket, int cpu)
      : socket_(std::move(socket)), thread_([this, cpu](const std::stop_token& stop) { run(stop, cpu); }) {}

 private:
  void run(const std::stop_token& stop, int cpu) noexcept {
    (void)pin_to_cpu(cpu);
    ::prctl(PR_SET_TIMERSLACK, 1UL);
    std::vector<std::byte> buffer(kBufferBytes);
    path::Address peer;
    for (std::uint64_t count = 1; !stop.stop_requested();) {
      socket_.wait_readable(kLookNs);
      const auto size = socket_.receive_from(buffer, path::Wait::Spin, peer);
      if (!size) continue;
      std::this_thread::sleep_for(std::chrono::nanoseconds(count++ % kLateEvery == 0 ? kLateNs : kUsualNs));
      (void)socket_.send_to(std::span(buffer).first(*size), peer);
    }
  }

  path::UdpSocket socket_;
  std::jthread thread_;
};

/// What the dataplane of an interface has of answers.
Result<Histogram> seen_at(const Host& host) {
  const kern::NetNs netns = ANIC_TRY(kern::NetNs::open(host.netns));
  const kern::Maps maps = ANIC_TRY(kern::Maps::pinned({netns.inode(), host.ifname}));
  anic_turn_lane turn{};
  ANIC_TRY(maps.read("anic_turns", ANIC_LANE(0, ANIC_CLASS_RPC), turn));
  return kern::answers(turn);
}

struct Found {
  double error_pct = 0;
  std::string worst;
  std::string problem;
};

/// Where percentiles differ most from the client's.
Status compare(const Histogram& client, const Histogram& ours, const std::string& where, Found& found) {
  if (static_cast<double>(ours.count()) < kSampledAtLeast * static_cast<double>(client.count())) {
    found.problem = fmt::format("the {} looked at {} of {} requests", where, ours.count(), client.count());
  }
  for (const double fraction : kFractions) {
    const auto theirs = client.percentile(fraction);
    const auto mine = ours.percentile(fraction);
    if (!theirs || !mine) {
      return fail(Exit::Failed, fmt::format("too few answers for a p{:.0f}: {} for the client, {} at the {}",
                                            fraction * 100, client.count(), ours.count(), where));
    }
    const double error = std::abs(static_cast<double>(*mine) / static_cast<double>(*theirs) - 1) * 100;
    if (error < found.error_pct) continue;
    found.error_pct = error;
    found.worst = fmt::format("p{:.0f} at the {}: {:.0f} us, {:.0f} for the client", fraction * 100, where,
                              static_cast<double>(*mine) * 1e-3, static_cast<double>(*theirs) * 1e-3);
  }
  return {};
}

Result<Found> run(const Bench& bench) {
  Bench other = bench;  // whose server is the client
  std::swap(other.lab.server, other.lab.client);
  const policy::Policy of_server = ANIC_TRY(policy_of("server"));
  const policy::Policy of_client = ANIC_TRY(policy_of("client"));
  Attached server = ANIC_TRY(Attached::open(bench, of_server));
  Attached client = ANIC_TRY(Attached::open(other, of_client));
  ANIC_TRY(server.set(true));
  ANIC_TRY(client.set(true));

  const path::Address address = ANIC_TRY(path::Address::parse(bench.lab.server.ipv4, kKernelPort));
  const kern::NetNs server_ns = ANIC_TRY(kern::NetNs::open(bench.lab.server.netns));
  const kern::NetNs client_ns = ANIC_TRY(kern::NetNs::open(bench.lab.client.netns));
  Result<LoadResult> load = fail(Exit::Failed, "not run");
  {
    const SlowServer slow(ANIC_TRY(server_ns.run([&] { return path::UdpSocket::bind(address); })),
                          bench.server_cpu);
    load = client_ns.run([&]() -> Result<LoadResult> {
      ANIC_TRY(pin_to_cpu(bench.client_cpu));
      const auto line = ANIC_TRY(open_udp_line(address));
      return run_load(*line, {.wait = path::Wait::Block, .warmup_s = 0, .duration_s = kSeconds});
    });
  }
  Found found;
  if (!load) return fail(load.error());
  if (!load->invalid.empty()) found.problem = load->invalid;
  ANIC_TRY(compare(load->latency_ns, ANIC_TRY(seen_at(bench.lab.server)), "server", found));
  ANIC_TRY(compare(load->latency_ns, ANIC_TRY(seen_at(bench.lab.client)), "client", found));
  ANIC_TRY(server.set(false));
  ANIC_TRY(client.set(false));
  return found;
}

}  // namespace

Result<Json> turnaround_error_pct(const Bench& bench) {
  std::vector<double> errors;
  std::string worst;
  std::string problem;
  Progress progress(kRepeats);
  for (int repeat = 0; repeat < kRepeats; ++repeat) {
    progress.step(fmt::format("turnaround_error_pct (repeat {} of {})", repeat + 1, kRepeats));
    const Found found = ANIC_TRY(run(bench));
    if (errors.empty() || found.error_pct > *std::ranges::max_element(errors)) worst = found.worst;
    errors.push_back(found.error_pct);
    if (!found.problem.empty()) problem = found.problem;
    if (stop_requested()) return fail(Exit::Failed, "stopped");
  }
  if (bench.client_cpu == bench.server_cpu) problem = "client and server shared one CPU";
  return bench_row_alone(
      {.id = "turnaround_error_pct",
       .unit = "%",
       .peer = "what the client measures",
       .note = fmt::format(
           "the furthest off of p50 and p99, at the server's interface and at the "
           "client's; closed loop over veth, both ends blocking, a server that takes 2 ms, and 8 ms "
           "for one in {}; at worst {}",
           kLateEvery, worst)},
      errors, kTarget, Bound::AtMost, problem);
}

}  // namespace agentnic::lab
