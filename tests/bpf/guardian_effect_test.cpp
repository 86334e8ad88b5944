// SPDX-License-Identifier: Apache-2.0
//
// What becomes of packets and rates when the guardian lets something be changed, or falls back.

#include <linux/bpf.h>
#include <sched.h>

#include <catch2/catch_test_macros.hpp>
#include <cstdint>
#include <vector>

#include "guarded.hpp"
#include "lab/packet.hpp"

using namespace agentnic;
using lab::PacketBuilder;
using model::Hook;

namespace {

constexpr std::uint16_t kApiPort = 7000;
constexpr std::uint16_t kGatePort = 7001;

/// A packet of acme's that comes in.
anic_test_result receive(const Guarded& guarded, std::uint16_t port, const char* from = "10.1.0.1") {
  const lab::Frame frame =
      PacketBuilder().eth().ipv4().from(from).to("192.0.2.2").udp(40000, port).payload(64).build();
  const anic_test_packet packet = make_packet(frame);
  return guarded.instance().run(Hook::Xdp, {&packet, 1}, kStart).front();
}

std::uint32_t lane_of(const Guarded& guarded, std::uint16_t port, const char* from = "10.1.0.1") {
  return receive(guarded, port, from).lane;
}

anic_steering steering(const Guarded& guarded, std::uint8_t tenant, anic_class cls) {
  anic_steering found{};
  REQUIRE(guarded.instance().maps().read("anic_steering", ANIC_LANE(tenant, cls), found));
  return found;
}

}  // namespace

TEST_CASE("guardian: packets of a service that is escalated change their lane at once, and back") {
  Guarded guarded;
  const TestSession session(guarded.instance(), everything(), kStart);
  const std::uint32_t rpc = ANIC_LANE(kAcme, ANIC_CLASS_RPC);
  for (int i = 0; i < 3; ++i) CHECK(lane_of(guarded, kApiPort) == rpc);  // and now the flow is known
  CHECK(lane_of(guarded, kApiPort, "10.2.0.1") == ANIC_LANE(kGlobex, ANIC_CLASS_RPC));
  guarded.approves(session, escalate(kAcme, kApi, ANIC_CLASS_BULK), kStart);
  CHECK(lane_of(guarded, kApiPort) == ANIC_LANE(kAcme, ANIC_CLASS_BULK));
  CHECK(lane_of(guarded, kApiPort, "10.2.0.1") == ANIC_LANE(kGlobex, ANIC_CLASS_RPC));
  CHECK((guarded.word() >> 32 & ANIC_USES_ESCALATIONS) != 0);
  guarded.approves(session, escalate(kAcme, kApi, ANIC_CLASS_RETRIEVAL), kStart);
  CHECK(lane_of(guarded, kApiPort) == ANIC_LANE(kAcme, ANIC_CLASS_RETRIEVAL));
  CHECK(session.close(kStart) == 0);
  CHECK(lane_of(guarded, kApiPort) == rpc);
  CHECK((guarded.word() >> 32 & ANIC_USES_ESCALATIONS) == 0);
}

TEST_CASE("guardian: an escalation ends with its time, with fail-safe and with the policy") {
  Guarded guarded;
  const TestSession session(guarded.instance(), everything(), kStart);
  const std::uint32_t rpc = ANIC_LANE(kAcme, ANIC_CLASS_RPC);
  const auto escalated = [&](std::uint64_t now_ns) {
    guarded.approves(session, escalate(kAcme, kApi, ANIC_CLASS_BULK, 500 * kMs), now_ns);
    return lane_of(guarded, kApiPort) == ANIC_LANE(kAcme, ANIC_CLASS_BULK);
  };
  CHECK(escalated(kStart));
  guarded.tick(kStart + 500 * kMs);
  CHECK(lane_of(guarded, kApiPort) == rpc);
  CHECK(escalated(kStart + 500 * kMs));
  guarded.install(guarded_policy(kRoomy, "", "another"), kStart + 500 * kMs);
  CHECK(lane_of(guarded, kApiPort) == rpc);
  CHECK(escalated(kStart + 500 * kMs));
  CHECK(guarded.failsafe(ANIC_ORDER_ENTER, kAcme, kStart + 500 * kMs) == 0);
  CHECK(lane_of(guarded, kApiPort) == rpc);
}

TEST_CASE("guardian: I1: an escalation takes nothing of what a CPU has leased for others, a policy does") {
  constexpr std::uint16_t kNobodys = 9999;
  const std::uint32_t lane = ANIC_LANE(kAcme, ANIC_CLASS_DEFAULT);
  Guarded guarded;
  const TestSession session(guarded.instance(), everything(), kStart);
  cpu_set_t one;  // a lease is a CPU's own
  CPU_ZERO(&one);
  CPU_SET(0, &one);
  REQUIRE(::sched_setaffinity(0, sizeof(one), &one) == 0);
  const auto paid = [&] {
    REQUIRE(lane_of(guarded, kNobodys) == lane);
    anic_bucket bucket{};
    REQUIRE(
        guarded.instance().maps().read("anic_buckets", ANIC_DIRECTION_IN * ANIC_LANES_MAX + lane, bucket));
    return bucket.asked;
  };
  const std::uint64_t first = paid();
  CHECK(first > 1000);  // for more than one packet
  for (const std::uint8_t tenant : {kGlobex, kAcme}) {
    for (const anic_class cls : {ANIC_CLASS_RETRIEVAL, ANIC_CLASS_BULK}) {
      guarded.approves(session, escalate(tenant, kApi, cls), kStart);
      CHECK(paid() == first);
    }
  }
  guarded.install(guarded_policy(kRoomy, "", "another"), kStart);
  CHECK(paid() > first);
}

TEST_CASE("guardian: a lane that is switched to the kernel's path keeps its xsk services there") {
  Guarded guarded;
  const TestSession session(guarded.instance(), everything(), kStart);
  CHECK(receive(guarded, kGatePort).reason == ANIC_REASON_PASS_NO_SOCKET);
  guarded.approves(session, switch_path(kAcme, ANIC_CLASS_DEFAULT, ANIC_PATH_KERNEL), kStart);
  CHECK(receive(guarded, kGatePort).reason == ANIC_REASON_PASS_LANE);
  CHECK(receive(guarded, kGatePort, "10.2.0.1").reason == ANIC_REASON_PASS_NO_SOCKET);
  CHECK(session.close(kStart) == 0);
  CHECK(receive(guarded, kGatePort).reason == ANIC_REASON_PASS_NO_SOCKET);
}

TEST_CASE("guardian: what is borrowed and what is throttled is what the next sharing gives") {
  Guarded guarded;
  const TestSession session(guarded.instance(), everything(), kStart);
  guarded.tick(kStart);
  CHECK(guarded.rate(kAcme, ANIC_CLASS_NONE) == 2000 * kMbit);
  CHECK(guarded.rate(kAcme, ANIC_CLASS_BULK) == 2000 * kMbit);
  guarded.approves(session, borrow(kAcme, 400 * kMbit), kStart);
  guarded.approves(session, throttle(kAcme, 1200 * kMbit), kStart);
  guarded.tick(kStart);
  CHECK(guarded.rate(kAcme, ANIC_CLASS_NONE) == 2400 * kMbit);
  CHECK(guarded.rate(kAcme, ANIC_CLASS_BULK) == 1200 * kMbit);
  CHECK(session.close(kStart) == 0);
  guarded.tick(kStart);
  CHECK(guarded.rate(kAcme, ANIC_CLASS_NONE) == 2000 * kMbit);
  CHECK(guarded.rate(kAcme, ANIC_CLASS_BULK) == 2000 * kMbit);
}

TEST_CASE("guardian: a weight changes what lanes that want more than there is get") {
  Guarded guarded;
  const TestSession session(guarded.instance(), everything(), kStart);
  const auto share = [&] {
    for (const anic_class cls : {ANIC_CLASS_RPC, ANIC_CLASS_DEFAULT})
      guarded.count_turns(ANIC_LANE(kAcme, cls), 0, 0, 5000 * kMbit);
    guarded.tick(kStart);
    return guarded.rate(kAcme, ANIC_CLASS_RPC);
  };
  const std::uint64_t before = share();
  guarded.approves(session, weight(kAcme, ANIC_CLASS_RPC, 200), kStart);
  CHECK(share() > before);
}

TEST_CASE("guardian: a bucket that is rebalanced goes to the other CPU, the others stay") {
  Guarded guarded;
  const TestSession session(guarded.instance(), everything(), kStart);
  const anic_steering before = steering(guarded, kAcme, ANIC_CLASS_RETRIEVAL);
  REQUIRE(before.to.cpu[6] == 1);  // CPU 0
  const anic_answer answer = guarded.approves(session, rebalance(kAcme, ANIC_CLASS_RETRIEVAL, 6, 1), kStart);
  CHECK(answer.observed == 0);
  const anic_steering after = steering(guarded, kAcme, ANIC_CLASS_RETRIEVAL);
  for (int bucket = 0; bucket < ANIC_STEER_BUCKETS; ++bucket)
    CHECK(after.to.cpu[bucket] == (bucket == 6 ? 2 : before.to.cpu[bucket]));
  CHECK(session.close(kStart) == 0);
  CHECK(steering(guarded, kAcme, ANIC_CLASS_RETRIEVAL).to.cpu[6] == 1);
}

TEST_CASE(
    "guardian: fail-safe puts packets and rates of its tenant under the fallback profile, of no other") {
  Guarded guarded;
  const TestSession session(guarded.instance(), everything(), kStart);
  const auto rate = [&](std::uint8_t tenant) {
    for (const anic_class cls : {ANIC_CLASS_RPC, ANIC_CLASS_DEFAULT})
      guarded.count_turns(ANIC_LANE(tenant, cls), 0, 0, 9000 * kMbit);
    guarded.tick(kStart);
    return guarded.rate(tenant, ANIC_CLASS_RPC);
  };
  const std::uint64_t acme = rate(kAcme);
  CHECK(guarded.failsafe(ANIC_ORDER_ENTER, kAcme, kStart) == 0);
  CHECK(receive(guarded, kGatePort).reason == ANIC_REASON_PASS_LANE);
  CHECK(receive(guarded, kGatePort, "10.2.0.1").reason == ANIC_REASON_PASS_NO_SOCKET);
  CHECK(rate(kAcme) > acme);  // weight 700 instead of 100
  CHECK(guarded.failsafe(ANIC_ORDER_EXIT, kAcme, kStart) == 0);
  CHECK(receive(guarded, kGatePort).reason == ANIC_REASON_PASS_NO_SOCKET);
  CHECK(rate(kAcme) == acme);
  CHECK(guarded.failsafe(ANIC_ORDER_ENTER, 0, kStart) == 0);
  CHECK(receive(guarded, kGatePort).reason == ANIC_REASON_PASS_LANE);
  CHECK(receive(guarded, kGatePort, "10.2.0.1").reason == ANIC_REASON_PASS_LANE);
}
