// SPDX-License-Identifier: Apache-2.0
#include "lab/tcp_requests.hpp"

#include <fmt/format.h>

#include <array>
#include <string>
#include <vector>

#include "lab/pairs.hpp"

namespace agentnic::lab {
namespace {

constexpr std::array<std::size_t, 3> kSizes = {64, 1024, 8192};
constexpr int kSizePairs = 11;
constexpr double kSeconds = 0.6;

/// What requests of one size on some connections cost.
class Requests final {
 public:
  Requests(const Bench& bench, std::size_t size, unsigned connections)
      : bench_(bench),
        spec_{.client = "tcp",
              .wait = path::Wait::Block,
              .client_wait = path::Wait::Spin,
              .size = size,
              .duration_s = kSeconds,
              .outstanding = connections,
              .connections = connections} {}

  /// Microseconds that the server's core is busy for a request, interrupts included; the p50 that the client
  /// saw is added to `p50_us`.
  Result<double> us_each(const std::string& transport, Pairs& pairs, std::vector<double>& p50_us) {
    spec_.transport = transport;
    const Json done = ANIC_TRY(measure(bench_, spec_));
    const Json& run = done.at("run");
    if (!run.at("valid").get<bool>()) pairs.problem = run.at("invalid_because").get<std::string>();
    if (bench_.client_cpu == bench_.server_cpu) pairs.problem = "client and server shared one CPU";
    if (run.at("p50_ns").is_null()) return fail(Exit::Failed, "too few samples for a median");
    p50_us.push_back(run.at("p50_ns").get<double>() / 1000);
    // The warm-up's requests are in both: in the time, and in what came back.
    double echoed_bytes = 0;
    for (const Json& worker : done.at("server").at("workers"))
      echoed_bytes += worker.at("echoed_bytes").get<double>();
    return done.at("server").at("cpu_busy_s").get<double>() * 1e6 * static_cast<double>(spec_.size) /
           echoed_bytes;
  }

 private:
  const Bench& bench_;
  RunSpec spec_;
};

Result<Json> compare(const Bench& bench, const std::string& id, unsigned connections, double target) {
  ANIC_TRY(lab_aggregate(bench.lab));
  std::string note = fmt::format(
      "what the server's core is busy for a TCP request, interrupts included, over veth; {} connection(s) "
      "with one request each, from a client that spins; the size that gains least counts;",
      connections);
  std::vector<double> least;
  double peer_us = 0;
  std::string problem;
  for (const std::size_t size : kSizes) {
    Requests requests(bench, size, connections);
    std::vector<double> our_p50_us;
    std::vector<double> peer_p50_us;
    const Pairs pairs = ANIC_TRY(alternate(
        fmt::format("{}, {} B", id, size), [&](Pairs& p) { return requests.us_each("uring", p, our_p50_us); },
        [&](Pairs& p) { return requests.us_each("tcp", p, peer_p50_us); }, kSizePairs));
    const std::vector<double> ratios = peers_over_ours(pairs);
    const Spread ratio = spread(ratios);
    note += fmt::format(
        " {} B {:.2f} us against {:.2f}, {:.2f} ({:.2f} to {:.2f}), p50 {:.0f} us against {:.0f},", size,
        spread(pairs.ours).median, spread(pairs.peers).median, ratio.median, ratio.low, ratio.high,
        spread(our_p50_us).median, spread(peer_p50_us).median);
    if (least.empty() || ratio.median < spread(least).median) {
      least = ratios;
      peer_us = spread(pairs.peers).median;
    }
    if (!pairs.problem.empty()) problem = pairs.problem;
  }
  note.pop_back();
  return bench_row({.id = id, .unit = "x", .peer = "the same over epoll (us for a request)", .note = note},
                   least, least, peer_us, target, Bound::AtLeast, problem);
}

}  // namespace

Result<Json> uring_vs_epoll(const Bench& bench) { return compare(bench, "uring_vs_epoll", 64, 1.25); }
Result<Json> uring_vs_epoll_one(const Bench& bench) { return compare(bench, "uring_vs_epoll_one", 1, 0.97); }

}  // namespace agentnic::lab
