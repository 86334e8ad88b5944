// SPDX-License-Identifier: Apache-2.0
#include "lab/packet_path.hpp"

#include <arpa/inet.h>
#include <fmt/format.h>
#include <netinet/in.h>

#include <algorithm>
#include <array>
#include <functional>
#include <numeric>
#include <vector>

#include "kern/bench_programs.hpp"
#include "kern/generation.hpp"
#include "kern/object.hpp"
#include "kern/test_run.hpp"
#include "lab/beside.hpp"
#include "lab/environment.hpp"
#include "lab/measure.hpp"
#include "lab/packet.hpp"
#include "lab/pairs.hpp"

namespace agentnic::lab {
namespace {

constexpr std::uint32_t kRuns = 100'000;
constexpr int kChunks = 20;
constexpr int kBestChunks = 3;
constexpr std::size_t kPayload = 64;
constexpr std::uint16_t kPort = 9000;
constexpr std::uint32_t kManyFlows = 10'000;
constexpr std::uint32_t kAllFlows = 1U << 24U;
constexpr std::uint32_t kPeers = 1024;
constexpr int kCpu = 0;  // that packets come to, and that their lanes are spread over
constexpr std::uint64_t kLinkRate = 400'000'000'000;
constexpr std::uint32_t kFloodPackets = 100'000;
constexpr const char* kPeerFile = "xdpfilt_alw_all.o";  // of xdp-tools: every filter of xdp-filter, none set

struct Scale {
  std::uint32_t tenants;
  std::uint32_t prefixes;
  std::uint32_t services;
};
constexpr Scale kFull = {64, 100'000, 10'000};
constexpr Scale kSmall = {10, 10, 10};

/// Half of the prefixes are 10.a.b.0/24, half 2001:db8:a:b::/64, dealt to the tenants by turns; every port
/// that has a service has one of every tenant, so that a new flow meets each look-up.
policy::Policy make_policy(const Scale& scale) {
  policy::Policy made;
  made.name = "bench";
  made.classes[ANIC_CLASS_RPC].cpus = {kCpu};
  made.link_rate_bps = kLinkRate;  // more than one core makes of 64 bytes: quotas are kept and do not bind
  for (std::uint32_t i = 0; i < scale.tenants; ++i) {
    policy::Tenant tenant;
    tenant.name = fmt::format("tenant-{}", i);
    tenant.budget.minimum_bps = kLinkRate / ANIC_TENANTS_MAX;
    made.tenants.push_back(tenant);
  }
  for (std::uint32_t i = 0; i < scale.prefixes; ++i) {
    anic_prefix prefix{};
    if (i % 2 == 0) {
      prefix.length = ANIC_PREFIX_IPV4_BITS + 24;
      prefix.address_be[0] = htonl(ANIC_PREFIX_IPV4);
      prefix.address_be[1] = htonl(0x0a000000U | (i / 2) << 8U);
    } else {
      prefix.length = 64;
      prefix.address_be[0] = htonl(0x20010db8);
      prefix.address_be[1] = htonl(i / 2);
    }
    made.tenants[i / 2 % scale.tenants].remotes.push_back(prefix);
  }
  for (std::uint32_t i = 0; i < scale.services; ++i) {
    policy::Service service;
    service.name = fmt::format("service-{}", i);
    service.tenant = made.tenants[i % scale.tenants].name;
    service.protocol = IPPROTO_UDP;
    service.port = static_cast<std::uint16_t>(kPort + i / scale.tenants);
    service.cls = ANIC_CLASS_RPC;
    service.path = ANIC_PATH_KERNEL;
    made.services.push_back(service);
  }
  return made;
}

/// An instance at some scale that no interface has.
struct Instance {
  kern::Object object;
  kern::BenchPrograms flows;
};

Result<Instance> make_instance(const Scale& scale, bool spread = true) {
  ANIC_TRY(pin_to_cpu(kCpu));
  policy::Policy policy = make_policy(scale);
  if (!spread) policy.classes[ANIC_CLASS_RPC].cpus.reset();
  Instance made{ANIC_TRY(kern::Object::load()), {}};
  const kern::Maps maps = ANIC_TRY(made.object.maps());
  ANIC_TRY(kern::install(maps, made.object.commit(), ANIC_TRY(kern::tables_of(policy, {}))));
  made.flows = ANIC_TRY(kern::BenchPrograms::load(maps));
  return made;
}

Frame frame_v4() {
  return PacketBuilder()
      .eth()
      .ipv4()
      .from("10.0.1.1")
      .to("192.0.2.2")
      .udp(40000, kPort)
      .payload(kPayload)
      .build();
}

Frame frame_v6() {
  return PacketBuilder()
      .eth()
      .ipv6()
      .from("2001:db8:0:1::1")
      .to("2001:db8::2")
      .udp(40000, kPort)
      .payload(kPayload)
      .build();
}

/// Nanoseconds a run, of one chunk.
using Chunk = std::function<Result<double>()>;

Chunk chunk_of(int prog_fd, const Frame& frame) {
  return [prog_fd, frame]() -> Result<double> {
    return static_cast<double>(ANIC_TRY(kern::time_runs(prog_fd, frame, kRuns)));
  };
}

/// The mean of the best: whatever interrupts a program, or shares its core, only adds to its time, and the
/// kernel rounds each chunk to whole nanoseconds.
double best(std::vector<double> times) {
  std::ranges::sort(times);
  const auto count = std::min<std::ptrdiff_t>(kBestChunks, std::ssize(times));
  return std::accumulate(times.begin(), times.begin() + count, 0.0) / static_cast<double>(count);
}

struct Cost {
  double noop;
  double over;
};

/// What a program costs over another. Their chunks take turns, so that both meet the machine's quiet moments.
Result<Cost> cost(const Chunk& program, const Chunk& noop) {
  std::vector<double> ours;
  std::vector<double> noops;
  for (int chunk = 0; chunk < kChunks; ++chunk) {
    noops.push_back(ANIC_TRY(noop()));
    ours.push_back(ANIC_TRY(program()));
  }
  return Cost{.noop = best(noops), .over = best(ours) - best(noops)};
}

/// What a program costs over a no-op, beside what the peer does over its own.
Result<Json> over(const RowWords& words, double target, const Chunk& ours, const Chunk& noop,
                  const Chunk& peer, const Chunk& peer_noop) {
  std::vector<double> noops;
  const Pairs pairs = ANIC_TRY(alternate(
      words.id,
      [&](Pairs&) -> Result<double> {
        const Cost found = ANIC_TRY(cost(ours, noop));
        noops.push_back(found.noop);
        return found.over;
      },
      [&](Pairs&) -> Result<double> { return ANIC_TRY(cost(peer, peer_noop)).over; }));
  const std::vector<double> ratios = peers_over_ours(pairs);
  RowWords said = words;
  said.note +=
      fmt::format("; the no-op took {:.1f} ns; BPF_PROG_TEST_RUN, best {} of {} times {} runs, by turns",
                  spread(noops).median, kBestChunks, kChunks, kRuns);
  return bench_row(said, pairs.ours, ratios, spread(pairs.peers).median, target, Bound::AtMost,
                   pairs.problem);
}

Result<Json> hot(const std::string& id, double target, const Frame& frame, const char* family) {
  const Instance instance = ANIC_TRY(make_instance(kFull));
  const UniqueFd noop = ANIC_TRY(kern::load_noop_xdp());
  const auto peer = ANIC_TRY(kern::PeerProgram::load(kPeerFile));
  return over({.id = id,
               .unit = "ns",
               .peer = "xdp-filter, all features",
               .note = fmt::format(
                   "time over a no-op program for a UDP packet of a hot {} flow at full scale", family)},
              target, chunk_of(instance.object.xdp_fd(), frame), chunk_of(noop.get(), frame),
              chunk_of(peer.fd(), frame), chunk_of(noop.get(), frame));
}

}  // namespace

Result<Json> xdp_hot_ns() { return hot("xdp_hot_ns", 20, frame_v4(), "IPv4"); }
Result<Json> xdp_hot_v6_ns() { return hot("xdp_hot_v6_ns", 20, frame_v6(), "IPv6"); }

/// Flows of the benchmarks' program, over choosing them alone.
static Result<Json> many(const std::string& id, double target, const anic_bench& setup,
                         const std::string& note) {
  const Instance instance = ANIC_TRY(make_instance(kFull));
  const auto peer = ANIC_TRY(kern::PeerProgram::load(kPeerFile));
  const UniqueFd noop = ANIC_TRY(kern::load_noop_xdp());
  ANIC_TRY(instance.flows.set(setup));
  return over({.id = id, .unit = "ns", .peer = "xdp-filter, all features, one flow", .note = note}, target,
              chunk_of(instance.flows.flows_fd(), frame_v4()), chunk_of(instance.flows.noop_fd(), frame_v4()),
              chunk_of(peer.fd(), frame_v4()), chunk_of(noop.get(), frame_v4()));
}

Result<Json> xdp_flows_ns() {
  return many(
      "xdp_flows_ns", 30,
      {.flows = kManyFlows, .base = 0, .random = 0, .next = 0, .peers = kAllFlows, ._pad = 0},
      fmt::format("time over choosing the flow alone, {} IPv4 flows in turn at full scale", kManyFlows));
}

Result<Json> xdp_new_flow_ns() {
  return many(
      "xdp_new_flow_ns", 200,
      {.flows = kAllFlows, .base = 0, .random = 1, .next = 0, .peers = kPeers, ._pad = 0},
      fmt::format(
          "time over choosing the flow alone, each packet a new flow of one of {} IPv4 peers at full scale",
          kPeers));
}

Result<Json> xdp_new_source_ns() {
  return many("xdp_new_source_ns", 200,
              {.flows = kAllFlows, .base = 0, .random = 1, .next = 0, .peers = kAllFlows, ._pad = 0},
              "time over choosing the flow alone, each packet from one of 2^24 IPv4 sources at full scale: "
              "the nodes of the trie "
              "come from memory");
}

/// Our cost over the other's, which is to be little.
static Json ratio_row(const RowWords& words, const Pairs& pairs, double target) {
  const std::vector<double> values = ours_over_peers(pairs);
  const std::vector<double> ratios = peers_over_ours(pairs);
  return bench_row(words, values, ratios, spread(pairs.peers).median, target, Bound::AtMost, pairs.problem);
}

Result<Json> xdp_scale_ratio() {
  const Instance full = ANIC_TRY(make_instance(kFull));
  const Instance small = ANIC_TRY(make_instance(kSmall));
  const UniqueFd noop = ANIC_TRY(kern::load_noop_xdp());
  const auto over_noop = [&](const Instance& instance) -> Result<double> {
    return ANIC_TRY(cost(chunk_of(instance.object.xdp_fd(), frame_v4()), chunk_of(noop.get(), frame_v4())))
        .over;
  };
  const Pairs pairs = ANIC_TRY(alternate(
      "xdp_scale_ratio", [&](Pairs&) { return over_noop(full); }, [&](Pairs&) { return over_noop(small); }));
  return ratio_row(
      {.id = "xdp_scale_ratio",
       .unit = "x",
       .peer = "10 prefixes, 10 services (ns)",
       .note = fmt::format("hot flow over a no-op at full scale ({:.1f} ns) over the same with 10 and 10",
                           spread(pairs.ours).median)},
      pairs, 1.15);
}

Result<Json> xdp_flood_ratio() {
  const Instance instance = ANIC_TRY(make_instance(kFull));
  const Frame frame = frame_v4();
  // The last of the flows are hot; the flood draws from all others.
  const anic_bench hot = {.flows = kManyFlows,
                          .base = kAllFlows - kManyFlows,
                          .random = 0,
                          .next = 0,
                          .peers = kAllFlows,
                          ._pad = 0};
  const anic_bench flood = {
      .flows = kAllFlows - kManyFlows, .base = 0, .random = 1, .next = 0, .peers = kAllFlows, ._pad = 0};
  const auto round = [&](bool flooded) -> Result<double> {
    std::vector<double> times;
    for (int chunk = 0; chunk < kChunks; ++chunk) {
      ANIC_TRY(instance.flows.set(flood));
      if (flooded) ANIC_TRY(kern::time_runs(instance.flows.flows_fd(), frame, kFloodPackets));
      ANIC_TRY(instance.flows.set(hot));
      const double noop = ANIC_TRY(kern::time_runs(instance.flows.noop_fd(), frame, kManyFlows));
      ANIC_TRY(instance.flows.set(hot));
      times.push_back(ANIC_TRY(kern::time_runs(instance.flows.flows_fd(), frame, kManyFlows)) - noop);
    }
    std::ranges::sort(times);
    return times[times.size() / 2];
  };
  ANIC_TRY(round(false));  // the hot flows are in the cache
  const Pairs pairs = ANIC_TRY(alternate(
      "xdp_flood_ratio", [&](Pairs&) { return round(true); }, [&](Pairs&) { return round(false); }));
  return ratio_row({.id = "xdp_flood_ratio",
                    .unit = "x",
                    .peer = "the same without the flood (ns)",
                    .note = fmt::format(
                        "{} hot flows once in turn after {} packets of random sources ({:.1f} ns), over the "
                        "same without; over choosing the flow alone",
                        kManyFlows, kFloodPackets, spread(pairs.ours).median)},
                   pairs, 1.5);
}

Result<Json> xdp_two_cpu_ratio() {
  const Instance shared = ANIC_TRY(make_instance(kFull, false));  // else one of the CPUs would redirect
  const Instance other = ANIC_TRY(make_instance(kFull, false));
  const UniqueFd noop = ANIC_TRY(kern::load_noop_xdp());
  const Frame frame = frame_v4();
  // The other CPU is as busy in both: it may be the other thread of the same core.
  const auto over_noop = [&](const Instance& beside) -> Result<double> {
    const Beside second(1, beside.object.xdp_fd(), frame);
    return ANIC_TRY(cost(chunk_of(shared.object.xdp_fd(), frame), chunk_of(noop.get(), frame))).over;
  };
  Pairs pairs = ANIC_TRY(alternate(
      "xdp_two_cpu_ratio", [&](Pairs&) { return over_noop(shared); },
      [&](Pairs&) { return over_noop(other); }));
  if (std::thread::hardware_concurrency() == 1) pairs.problem = "one CPU";
  return ratio_row(
      {.id = "xdp_two_cpu_ratio",
       .unit = "x",
       .peer = "one CPU on the tenant, the other on another instance (ns)",
       .note = fmt::format(
           "a hot flow over a no-op at full scale with two CPUs on the same flow ({:.1f} ns), over the "
           "same with one; the other CPU runs the same program on maps of its own",
           spread(pairs.ours).median)},
      pairs, 1.2);
}

}  // namespace agentnic::lab
