// SPDX-License-Identifier: Apache-2.0
//
// What the holder of a session sees: all of what it was granted, and nothing of anybody else.

#include <bpf/bpf.h>

#include <atomic>
#include <catch2/catch_test_macros.hpp>
#include <cerrno>
#include <cstdint>
#include <cstring>
#include <string>
#include <thread>
#include <vector>

#include "abi/turn.h"
#include "agent/observation.hpp"
#include "guarded.hpp"
#include "lab/packet.hpp"

using namespace agentnic;
using lab::PacketBuilder;
using model::Hook;

namespace {

constexpr std::uint16_t kApiPort = 7000;

const anic_observed_lane& lane_in(const anic_observation& seen, std::uint8_t tenant, anic_class cls) {
  return seen.lanes[(tenant - 1) * ANIC_OBSERVED_CLASSES + (cls - ANIC_CLASS_DEFAULT)];
}

template <typename Row>
bool is_zero(const Row& row) {
  static constexpr Row kZero{};
  return std::memcmp(&row, &kZero, sizeof(row)) == 0;
}

int lanes_seen(const anic_observation& seen) {
  int count = 0;
  for (const anic_observed_lane& lane : seen.lanes) count += is_zero(lane) ? 0 : 1;
  return count;
}

void receive(const Guarded& guarded, const char* from, int packets) {
  const lab::Frame frame =
      PacketBuilder().eth().ipv4().from(from).to("192.0.2.2").udp(40000, kApiPort).payload(64).build();
  const std::vector<anic_test_packet> batch(static_cast<std::size_t>(packets), make_packet(frame));
  REQUIRE(guarded.instance().run(Hook::Xdp, batch, kStart).size() == batch.size());
}

void answer(const Guarded& guarded, std::uint8_t tenant, std::uint64_t samples, std::uint64_t bucket) {
  guarded.instance().count_turns({.lane = static_cast<std::uint64_t>(ANIC_LANE(tenant, ANIC_CLASS_RPC)),
                                  .samples = samples,
                                  .over_slo = 0,
                                  .wanted_bps_in = 0,
                                  .wanted_bps_out = 0,
                                  .bucket = bucket});
}

anic_grants rpc_of_acme() {
  return {.tenants = 1, .kinds = ~0U, .classes = 1U << ANIC_CLASS_RPC, .paths = 0, ._pad = 0};
}

}  // namespace

TEST_CASE("observe: of what a session was granted it sees knobs and counts, of all else nothing", "[smoke]") {
  Guarded guarded;
  const TestSession session(guarded.instance(), rpc_of_acme(), kStart);
  receive(guarded, "10.1.0.1", 5);
  receive(guarded, "10.2.0.1", 7);
  const anic_observation& seen = session.observe(kStart);
  CHECK(seen.number == 1);
  CHECK(seen.looked == 1);
  CHECK(lanes_seen(seen) == 1);
  const anic_observed_lane& rpc = lane_in(seen, kAcme, ANIC_CLASS_RPC);
  CHECK(rpc.tenant == kAcme);
  CHECK(rpc.cls == ANIC_CLASS_RPC);
  CHECK(rpc.weight == 100);
  CHECK(rpc.floor_percent == 50);
  CHECK(rpc.path == ANIC_PATH_KERNEL);
  CHECK(rpc.slo_ns == kMs);
  CHECK(rpc.at_ns == kStart);
  CHECK(rpc.ways[ANIC_DIRECTION_IN].packets == 5);
  CHECK(rpc.ways[ANIC_DIRECTION_IN].bytes == 5 * (14 + 20 + 8 + 64));
  CHECK(rpc.ways[ANIC_DIRECTION_OUT].packets == 0);
  const anic_observed_tenant& acme = seen.tenants[kAcme - 1];
  CHECK(acme.tenant == kAcme);
  CHECK(acme.rate_bps == 1000 * kMbit);
  CHECK(acme.ceiling_bps == 2000 * kMbit);
  CHECK(acme.failsafe == ANIC_FAILSAFE_NONE);
  for (std::size_t i = 0; i < ANIC_TENANTS_MAX - 1; ++i) CHECK(is_zero(seen.tenants[i]) == (i != kAcme - 1));
  CHECK(seen.envelope.weight_max == 1000);
}

TEST_CASE("observe: who grants everything lets all tenants of the policy be seen, and no control traffic") {
  Guarded guarded;
  const TestSession session(guarded.instance(), everything(), kStart);
  const anic_observation& seen = session.observe(kStart);
  CHECK(lanes_seen(seen) == 2 * ANIC_OBSERVED_CLASSES);
  CHECK(seen.looked == 2 * ANIC_OBSERVED_CLASSES);
  CHECK(seen.tenants[kGlobex - 1].tenant == kGlobex);
  CHECK(is_zero(seen.tenants[kGlobex]));
}

TEST_CASE("observe: what a session changes it sees, and what its changes leave it") {
  Guarded guarded;
  const TestSession session(guarded.instance(), everything(), kStart);
  guarded.approves(session, weight(kAcme, ANIC_CLASS_RPC, 150), kStart);
  const anic_observation& seen = session.observe(kStart + kMs);
  CHECK(lane_in(seen, kAcme, ANIC_CLASS_RPC).weight == 150);
  CHECK(seen.tenants[kAcme - 1].in_force == 1);
  CHECK(seen.tenants[kGlobex - 1].in_force == 0);
  guarded.approves(session, borrow(kAcme, 300 * kMbit), kStart + 2 * kMs);
  session.observe(kStart + 3 * kMs);
  CHECK(seen.tenants[kAcme - 1].ceiling_bps == 2300 * kMbit);
  CHECK(seen.tenants[kAcme - 1].stated_bps == 2000 * kMbit);
}

TEST_CASE("observe: what is said of bulk is what the guardian makes of a change of it") {
  Guarded guarded;
  const TestSession session(guarded.instance(), everything(), kStart);
  agent::Observer observer({.tenants = {{kAcme, "acme"}}, .services = {{kApi, "api"}}});
  std::uint64_t now = kStart;
  for (int i = 0; i < 8; ++i) {
    now += kMs;
    const agent::Tenant acme = observer.observe(session.observe(now)).tenants.at(0);
    REQUIRE(acme.bulk_low_bps);
    const anic_answer answer = session.propose(throttle(kAcme, 1), now);
    CHECK(answer.decided == ANIC_DECIDED_REWRITE);
    CHECK(answer.approved == *acme.bulk_low_bps);
  }
  for (int i = 0; i < 2; ++i) {
    now += 100 * kSecond;  // not so soon that it oscillates
    const agent::Tenant acme = observer.observe(session.observe(now)).tenants.at(0);
    const anic_answer answer = session.propose(throttle(kAcme, 100'000 * kMbit), now);
    CHECK(answer.decided == ANIC_DECIDED_REWRITE);
    CHECK(answer.approved == acme.bulk_high_bps);
  }
}

TEST_CASE("observe: bulk that is not granted is not told of") {
  Guarded guarded;
  const TestSession session(guarded.instance(), rpc_of_acme(), kStart);
  CHECK(session.observe(kStart).tenants[kAcme - 1].bulk_now_bps == 0);
}

TEST_CASE("observe: an escalation shows while it is in force") {
  Guarded guarded;
  const TestSession session(guarded.instance(), everything(), kStart);
  agent::Observer observer({.tenants = {{kAcme, "acme"}, {kGlobex, "globex"}}, .services = {{kApi, "api"}}});
  guarded.approves(session, escalate(kAcme, kApi, ANIC_CLASS_BULK, 100 * kMs), kStart);
  const agent::Observation& seen = observer.observe(session.observe(kStart));
  REQUIRE(seen.tenants.at(0).escalations.size() == 1);
  CHECK(seen.tenants[0].escalations[0].service == "api");
  CHECK(seen.tenants[0].escalations[0].cls == "bulk");
  CHECK(seen.tenants[1].escalations.empty());
  guarded.tick(kStart + 100 * kMs);
  observer.observe(session.observe(kStart + 100 * kMs));
  CHECK(seen.tenants[0].escalations.empty());
}

TEST_CASE("observe: a bucket that goes to another CPU shows while it does, to who was granted its class") {
  Guarded guarded;
  const TestSession session(guarded.instance(), everything(), kStart);
  agent::Observer observer({.tenants = {{kAcme, "acme"}, {kGlobex, "globex"}}, .services = {}});
  guarded.approves(session, rebalance(kAcme, ANIC_CLASS_RETRIEVAL, 127, 0), kStart);  // from CPU 1
  const agent::Observation& seen = observer.observe(session.observe(kStart));
  REQUIRE(seen.tenants.at(0).rebalances.size() == 1);
  CHECK(seen.tenants[0].rebalances[0].cls == "retrieval");
  CHECK(seen.tenants[0].rebalances[0].bucket == 127);
  CHECK(seen.tenants[0].rebalances[0].cpu == 0);
  CHECK(seen.tenants[1].rebalances.empty());
  guarded.approves(session, rebalance(kAcme, ANIC_CLASS_RETRIEVAL, 127, 1), kStart + 100 * kSecond);
  observer.observe(session.observe(kStart + 100 * kSecond));
  CHECK(seen.tenants[0].rebalances.empty());
}

TEST_CASE("observe: after too many changes it is said from when on the next is let through") {
  Guarded guarded(guarded_policy(R"("changes": {"tenant": 2, "total": 1000})"));
  const TestSession session(guarded.instance(), everything(), kStart);
  const anic_observation& seen = session.observe(kStart);
  CHECK(seen.tenants[kAcme - 1].free_ns == 0);
  for (int i = 0; i < 2; ++i) guarded.approves(session, weight(kAcme, ANIC_CLASS_RPC, 101), kStart);
  session.observe(kStart);
  const std::uint64_t free_ns = seen.tenants[kAcme - 1].free_ns;
  CHECK(free_ns > kStart);
  CHECK(seen.tenants[kGlobex - 1].free_ns == 0);
  guarded.rejects(session, weight(kAcme, ANIC_CLASS_RPC, 102), free_ns - 1, ANIC_INVARIANT_R3);
  guarded.approves(session, weight(kAcme, ANIC_CLASS_RPC, 102), free_ns);
}

TEST_CASE("observe: fail-safe of a tenant or of the instance shows, and so does its end") {
  Guarded guarded;
  const TestSession session(guarded.instance(), everything(), kStart);
  const anic_observation& seen = session.observe(kStart);
  CHECK(guarded.failsafe(ANIC_ORDER_ENTER, kGlobex, kStart) == 0);
  session.observe(kStart);
  CHECK(seen.tenants[kAcme - 1].failsafe == ANIC_FAILSAFE_NONE);
  CHECK(seen.tenants[kGlobex - 1].failsafe == ANIC_FAILSAFE_OPERATOR);
  CHECK(guarded.failsafe(ANIC_ORDER_EXIT, kGlobex, kStart) == 0);
  CHECK(guarded.failsafe(ANIC_ORDER_ENTER, 0, kStart) == 0);
  session.observe(kStart);
  CHECK(seen.tenants[kAcme - 1].failsafe == ANIC_FAILSAFE_OPERATOR);
  CHECK(seen.tenants[kGlobex - 1].failsafe == ANIC_FAILSAFE_OPERATOR);
}

TEST_CASE("observe: what a policy does not grant any more is gone at the next look") {
  const auto with_agent = [](const char* tenants) {
    return guarded_policy(kRoomy, std::string(R"("agents": [{"name": "tuner", "tenants": [)") + tenants +
                                      R"(], "kinds": ["queue_weight_adjust"], "classes": ["rpc", "bulk"]}])");
  };
  Guarded guarded(with_agent(R"("acme", "globex")"));
  const TestSession session(guarded.instance(), everything(), kStart, 1);
  const anic_observation& seen = session.observe(kStart);
  CHECK(lanes_seen(seen) == 4);
  CHECK(seen.grants.tenants == 3);
  CHECK(seen.grants.kinds == 1U << ANIC_CHANGE_QUEUE_WEIGHT_ADJUST);
  guarded.install(with_agent(R"("acme")"), kStart + kMs);
  session.observe(kStart + kMs);
  CHECK(lanes_seen(seen) == 2);
  CHECK(lane_in(seen, kAcme, ANIC_CLASS_BULK).tenant == kAcme);
  CHECK(is_zero(seen.tenants[kGlobex - 1]));
}

TEST_CASE("observe: percentiles are of the answers since the last ones, and need some") {
  constexpr std::uint64_t kFast = 100;
  constexpr std::uint64_t kSlow = 200;
  Guarded guarded;
  answer(guarded, kAcme, 500, kSlow);  // before the session: not its business
  const TestSession session(guarded.instance(), everything(), kStart);
  const anic_observation& seen = session.observe(kStart);
  const anic_observed_lane& rpc = lane_in(seen, kAcme, ANIC_CLASS_RPC);
  CHECK(rpc.samples == 500);
  CHECK(rpc.window == 0);
  answer(guarded, kAcme, ANIC_OBSERVE_WINDOW - 1, kFast);
  session.observe(kStart + kMs);
  CHECK(rpc.window == 0);
  answer(guarded, kAcme, 1, kFast);
  answer(guarded, kAcme, 2, kSlow);
  session.observe(kStart + 2 * kMs);
  CHECK(rpc.window == ANIC_OBSERVE_WINDOW + 2);
  CHECK(rpc.p50_ns == ANIC_TURN_BUCKET_END_NS(kFast));
  CHECK(rpc.p99_ns == ANIC_TURN_BUCKET_END_NS(kSlow));
  answer(guarded, kAcme, 3, kFast);
  session.observe(kStart + 2 * kMs + ANIC_OBSERVE_WINDOW_NS - 1);
  CHECK(rpc.window == ANIC_OBSERVE_WINDOW + 2);
  session.observe(kStart + 2 * kMs + ANIC_OBSERVE_WINDOW_NS);
  CHECK(rpc.window == 3);
  CHECK(rpc.p99_ns == ANIC_TURN_BUCKET_END_NS(kFast));
  CHECK(rpc.samples == 500 + ANIC_OBSERVE_WINDOW + 2 + 3);
}

TEST_CASE("observe: a drain that found the lock taken, and is run again, writes no observation") {
  Guarded guarded;
  const TestSession session(guarded.instance(), everything(), kStart);
  REQUIRE(session.lock(kStart, true) == 0);
  anic_draining draining = draining_at(kStart);
  draining.observe = 1;
  LIBBPF_OPTS(bpf_test_run_opts, options);
  options.ctx_in = &draining;
  options.ctx_size_in = sizeof(draining);
  REQUIRE(bpf_prog_test_run_opts(session.drain_fd(), &options) == 0);
  CHECK(static_cast<int>(options.retval) == -EBUSY);
  CHECK(is_zero(session.page().observation));
  REQUIRE(session.lock(kStart, false) == 0);
}

TEST_CASE("observe: who has the place of another session in the table is not seen through that one") {
  Guarded guarded;
  const TestSession session(guarded.instance(), rpc_of_acme(), kStart);
  session.observe_alone(kStart);
  CHECK(session.page().observation.number == 1);
  REQUIRE(session.close(kStart) == 0);
  const TestSession next(guarded.instance(), everything(), kStart);
  REQUIRE(next.slot() == session.slot());
  session.observe_alone(kStart + kMs);
  CHECK(session.page().observation.number == 1);
  CHECK(is_zero(session.page().observation.tenants[kGlobex - 1]));
}

TEST_CASE("observe: who reads beside a drain, by the sequence number, sees one observation or another") {
  constexpr std::uint64_t kLooks = 2000;
  constexpr std::uint64_t kReads = 100; /* on a busy machine the reader may start after the last of kLooks */
  constexpr std::uint64_t kMost = 1000000; /* who has not read by then does not read at all */
  Guarded guarded;
  const TestSession session(guarded.instance(), everything(), kStart);
  session.observe(kStart);
  std::atomic<bool> over = false;
  std::atomic<std::uint64_t> read = 0;
  std::uint64_t again = 0;
  std::uint64_t torn = 0;
  std::thread reader([&] {
    while (!over) {
      const anic_observation& page = session.page().observation;
      const std::uint64_t before = __atomic_load_n(&page.sequence, __ATOMIC_ACQUIRE);
      const anic_observation copy = page;
      std::atomic_thread_fence(std::memory_order_acquire);
      if (before % 2 != 0 || before != __atomic_load_n(&page.sequence, __ATOMIC_RELAXED)) {
        ++again;
        continue;
      }
      ++read;
      for (const anic_observed_lane& lane : copy.lanes)
        torn += lane.tenant != 0 && lane.at_ns != copy.at_ns ? 1 : 0;
    }
  });
  for (std::uint64_t i = 1; i <= kLooks || (read < kReads && i < kMost); ++i) session.observe(kStart + i);
  over = true;
  reader.join();
  CAPTURE(again);
  CHECK(read >= kReads);
  CHECK(torn == 0);
}

TEST_CASE("observe: a drain that is not asked to, or whose session is over, writes no observation") {
  Guarded guarded;
  const TestSession session(guarded.instance(), everything(), kStart);
  CHECK(session.drain(kStart) == 0);
  CHECK(is_zero(session.page().observation));
  session.observe(kStart);
  CHECK(session.close(kStart) == 0);
  receive(guarded, "10.1.0.1", 5);
  anic_draining draining = draining_at(kStart + kMs);
  draining.observe = 1;
  LIBBPF_OPTS(bpf_test_run_opts, options);
  options.ctx_in = &draining;
  options.ctx_size_in = sizeof(draining);
  REQUIRE(bpf_prog_test_run_opts(session.drain_fd(), &options) == 0);
  CHECK(static_cast<int>(options.retval) == -ESTALE);
  CHECK(session.page().observation.at_ns == kStart);
  CHECK(lane_in(session.page().observation, kAcme, ANIC_CLASS_RPC).ways[0].packets == 0);
}
