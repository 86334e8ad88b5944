// SPDX-License-Identifier: Apache-2.0
//
// What the guardian does by itself: sessions that are not heard of, SLOs, fail-safe, a lock that is stuck.

#include <catch2/catch_test_macros.hpp>
#include <cerrno>
#include <cstdint>
#include <string>
#include <string_view>

#include "guarded.hpp"

using namespace agentnic;

namespace {

constexpr std::uint32_t kRpcOfAcme = ANIC_LANE(kAcme, ANIC_CLASS_RPC);
constexpr std::uint32_t kBulkOfAcme = ANIC_LANE(kAcme, ANIC_CLASS_BULK);
constexpr std::uint64_t kInterval = 200 * kMs;  // of looks at SLOs

/// Of acme's minimum a tenth, so that there is much to take from its bulk.
std::string spare_policy(const std::string& guardian) {
  constexpr std::string_view kMinimum = R"("minimum": "1Gbit", "ceiling")";
  std::string policy = guarded_policy(guardian);
  return policy.replace(policy.find(kMinimum), kMinimum.size(), R"("minimum": "100Mbit", "ceiling")");
}

/// A session whose tenants are watched, and answers that are counted for it.
class Watched {
 public:
  explicit Watched(const std::string& guardian = R"("heartbeat": "60s")")
      : guarded(spare_policy(guardian)), session(guarded.instance(), everything(), kStart) {
    look(0, 0);
  }

  /// So many more answers of rpc, and what bulk asks for; then the next look at SLOs. Its records.
  std::vector<anic_record> look(std::uint64_t samples, std::uint64_t over, std::uint64_t bulk_bps = 0) {
    guarded.count_turns(kRpcOfAcme, samples, over, 0);
    guarded.count_turns(kBulkOfAcme, 0, 0, bulk_bps);
    now += kInterval;
    (void)session.drain(now);
    guarded.tick(now);
    return guarded.take();
  }

  /// The SLO is kept, or missed.
  auto good(std::uint64_t bulk_bps = 0) { return look(100, 5, bulk_bps); }
  auto bad(std::uint64_t bulk_bps = 0) { return look(100, 6, bulk_bps); }

  std::uint64_t now = kStart;
  Guarded guarded;
  TestSession session;
};

/// rpc of acme missed its SLO of 1 ms.
void check_missed(const anic_record& record, std::uint64_t samples, std::uint64_t over) {
  CHECK(record.kind == ANIC_RECORD_MISSED);
  CHECK(record.invariant == ANIC_INVARIANT_L3);
  CHECK(record.tenant == kAcme);
  CHECK(record.cls == ANIC_CLASS_RPC);
  CHECK(record.observed == samples);
  CHECK(record.approved == over);
  CHECK(record.requested == kMs);
}

}  // namespace

TEST_CASE("guardian: L1: a session that is not heard of is fail-safe for its tenants alone") {
  Guarded guarded;
  const TestSession session(guarded.instance(), everything_of(1), kStart);
  guarded.approves(session, weight(kAcme, ANIC_CLASS_RPC, 150), kStart);
  CHECK(session.drain(kStart + 900 * kMs) == 0);  // is heard of without asking for anything
  guarded.tick(kStart + 1900 * kMs);
  CHECK(guarded.mode(kAcme) == 0);
  CHECK(guarded.take().empty());
  guarded.tick(kStart + 1900 * kMs + 1);
  CHECK(guarded.mode(kAcme) == (ANIC_FAILSAFE_HEARTBEAT | ANIC_MODE_ALARM));
  CHECK(guarded.mode(kGlobex) == 0);
  CHECK(guarded.mode(0) == 0);
  CHECK(guarded.tuned(kAcme, ANIC_CLASS_RPC).weight == 100);
  const auto records = guarded.take();
  REQUIRE(records.size() == 3);
  CHECK(records[0].kind == ANIC_RECORD_FAILSAFE);
  CHECK(records[0].invariant == ANIC_INVARIANT_L1);
  CHECK(records[0].tenant == kAcme);
  CHECK(records[0].until_ns == kStart + 1900 * kMs + 1 + 30 * kSecond);
  CHECK(records[1].kind == ANIC_RECORD_REVERT);
  CHECK(records[1].invariant == ANIC_INVARIANT_L4);
  CHECK(records[2].kind == ANIC_RECORD_CLOSE);
  CHECK(records[2].invariant == ANIC_INVARIANT_L1);
  CHECK(session.drain(kStart + 2 * kSecond) == -ESTALE);
}

TEST_CASE("guardian: L1: a policy with a shorter heartbeat gives its sessions that long to hear of it") {
  Guarded guarded(guarded_policy(R"("heartbeat": "60s")"));
  const TestSession session(guarded.instance(), everything_of(1), kStart);
  CHECK(session.drain(kStart) == 0);
  const std::uint64_t updated = kStart + 30 * kSecond;
  guarded.install(guarded_policy(R"("heartbeat": "1s")"), updated);
  guarded.tick(updated + kSecond);
  CHECK(guarded.mode(kAcme) == 0);
  guarded.tick(updated + kSecond + 1);
  CHECK(guarded.mode(kAcme) == (ANIC_FAILSAFE_HEARTBEAT | ANIC_MODE_ALARM));
}

TEST_CASE("guardian: L1: a session that was never heard of ends after a minute, without alarm") {
  Guarded guarded;
  REQUIRE(try_open(guarded, 1, kStart) >= 0);
  (void)guarded.take();
  guarded.tick(kStart + ANIC_OPENING_NS);
  CHECK(guarded.take().empty());
  guarded.tick(kStart + ANIC_OPENING_NS + 1);
  const auto records = guarded.take();
  REQUIRE(records.size() == 1);
  CHECK(records[0].kind == ANIC_RECORD_CLOSE);
  CHECK(records[0].invariant == ANIC_INVARIANT_L1);
  CHECK(guarded.mode(kAcme) == 0);
}

TEST_CASE("guardian: L2: too many rejections in a row end a session, one approval between lets it go on") {
  Guarded guarded(guarded_policy(R"("rejections": 3)"));
  const TestSession session(guarded.instance(), everything_of(1), kStart);
  const anic_proposal bad = weight(kAcme, ANIC_CLASS_CONTROL, 1);
  const auto reject = [&] { CHECK(session.propose(bad, kStart).invariant == ANIC_INVARIANT_C1); };
  reject();
  reject();
  guarded.approves(session, weight(kAcme, ANIC_CLASS_RPC, 150), kStart);
  reject();
  reject();
  CHECK(guarded.mode(kAcme) == 0);
  (void)guarded.take();
  anic_proposal last = bad;
  last.size = sizeof(last);
  REQUIRE(session.write(&last, sizeof(last)));
  REQUIRE(session.write(&last, sizeof(last)));
  CHECK(session.drain(kStart) == 1);  // what is behind the one that led to the end is not looked at
  CHECK(guarded.mode(kAcme) == (ANIC_FAILSAFE_REJECTIONS | ANIC_MODE_ALARM));
  CHECK(guarded.mode(kGlobex) == 0);
  CHECK(guarded.tuned(kAcme, ANIC_CLASS_RPC).weight == 100);
  CHECK(guarded.dump(kAcme).rejected_in_row == 3);
  const auto records = guarded.take();
  REQUIRE(records.size() == 4);
  CHECK(records[0].kind == ANIC_RECORD_DECISION);
  CHECK(records[0].count == 3);
  CHECK(records[1].kind == ANIC_RECORD_FAILSAFE);
  CHECK(records[1].invariant == ANIC_INVARIANT_L2);
  CHECK(records[2].kind == ANIC_RECORD_REVERT);
  CHECK(records[3].kind == ANIC_RECORD_CLOSE);
  CHECK(records[3].invariant == ANIC_INVARIANT_L2);
  CHECK(session.drain(kStart) == -ESTALE);
}

TEST_CASE("guardian: L2: what fail-safe refuses does not count as rejected") {
  Guarded guarded(guarded_policy(R"("rejections": 2)"));
  const TestSession session(guarded.instance(), everything_of(1), kStart);
  REQUIRE(guarded.failsafe(ANIC_ORDER_ENTER, kAcme, kStart) == 0);
  for (int i = 0; i < 5; ++i)
    CHECK(session.propose(weight(kAcme, ANIC_CLASS_RPC, 150), kStart).invariant == ANIC_INVARIANT_L4);
  CHECK(session.row().rejected_in_row == 0);
}

TEST_CASE(
    "guardian: L3: bulk is throttled first when an SLO is missed, down to the minimum, and eased later") {
  Watched watched;
  Guarded& guarded = watched.guarded;
  guarded.approves(watched.session, weight(kAcme, ANIC_CLASS_RPC, 150), watched.now);
  CHECK(watched.good(800 * kMbit).empty());
  const auto first = watched.bad(800 * kMbit);
  REQUIRE(first.size() == 2);
  check_missed(first[0], 100, 6);
  CHECK(first[1].kind == ANIC_RECORD_PROTECT);
  CHECK(first[1].invariant == ANIC_INVARIANT_L3);
  CHECK(first[1].tenant == kAcme);
  CHECK(first[1].requested == kRpcOfAcme);
  CHECK(first[1].approved == 400 * kMbit);
  CHECK(guarded.ward(kAcme).bulk_bps == 400 * kMbit);
  CHECK(guarded.rate(kAcme, ANIC_CLASS_BULK) == 400 * kMbit);
  CHECK(guarded.tuned(kAcme, ANIC_CLASS_RPC).weight == 150);  // not yet
  CHECK(watched.good(800 * kMbit).empty());
  CHECK(watched.bad(800 * kMbit).at(1).approved == 200 * kMbit);
  CHECK(watched.good().empty());
  CHECK(watched.bad(800 * kMbit).at(1).approved == 100 * kMbit);
  for (int i = 0; i < 9; ++i) CHECK(watched.good().empty());
  const auto eased = watched.good();
  REQUIRE(eased.size() == 1);
  CHECK(eased[0].kind == ANIC_RECORD_PROTECT);
  CHECK(eased[0].requested == 0);
  CHECK(eased[0].approved == 112'500'000);
  for (int i = 0; i < 25; ++i) (void)watched.good();
  CHECK(guarded.ward(kAcme).bulk_bps == 0);  // 2 Gbit/s again, by an eighth each time
  CHECK(guarded.rate(kAcme, ANIC_CLASS_BULK) > 400 * kMbit);
  CHECK(guarded.tuned(kAcme, ANIC_CLASS_RPC).weight == 150);
}

TEST_CASE("guardian: L3: who is limited for another tenant's SLO is not told whose, but the operator is") {
  Watched watched;
  Guarded& guarded = watched.guarded;
  CHECK(watched.good().empty());
  guarded.count_turns(ANIC_LANE(kGlobex, ANIC_CLASS_BULK), 0, 0, 4'000 * kMbit);
  const auto records = watched.bad(800 * kMbit);
  REQUIRE(records.size() == 3);
  check_missed(records[0], 100, 6);  // once, whoever is limited
  CHECK(records[1].kind == ANIC_RECORD_PROTECT);
  CHECK(records[1].tenant == kAcme);
  CHECK(records[1].requested == kRpcOfAcme);
  CHECK(records[2].kind == ANIC_RECORD_PROTECT);
  CHECK(records[2].tenant == kGlobex);
  CHECK(records[2].requested == 0);
}

TEST_CASE("guardian: L3: the change after which an SLO is missed is rolled back, and stays so for a while") {
  Watched watched(R"("heartbeat": "60s", "slo": {"protect": false}, "cool_down": "2s")");
  Guarded& guarded = watched.guarded;
  guarded.approves(watched.session, weight(kAcme, ANIC_CLASS_RPC, 150), watched.now);
  CHECK(watched.good().empty());
  const anic_proposal later = weight(kGlobex, ANIC_CLASS_BULK, 60);
  guarded.approves(watched.session, later, watched.now + 1);
  const auto records = watched.bad(800 * kMbit);
  REQUIRE(records.size() == 2);
  check_missed(records[0], 100, 6);
  CHECK(records[1].kind == ANIC_RECORD_REVERT);
  CHECK(records[1].invariant == ANIC_INVARIANT_L3);
  CHECK(records[1].tenant == kGlobex);
  CHECK(guarded.ward(kAcme).bulk_bps == 0);
  CHECK(guarded.ward(kGlobex).unstable == 1);
  CHECK(guarded.tuned(kAcme, ANIC_CLASS_RPC).weight == 150);  // older than the last good look
  CHECK(watched.bad().empty());                               // and nothing else is to blame
  guarded.rejects(watched.session, later, watched.now, ANIC_INVARIANT_L3);
  guarded.approves(watched.session, weight(kGlobex, ANIC_CLASS_RPC, 110), watched.now);
  watched.now += 2 * kSecond - kInterval;  // since it was rolled back
  (void)watched.session.drain(watched.now);
  guarded.approves(watched.session, later, watched.now);
}

TEST_CASE(
    "guardian: L3: where bulk has nothing to spare, nothing is said to be limited, and a change goes back") {
  Watched watched;
  Guarded& guarded = watched.guarded;
  guarded.approves(watched.session, weight(kAcme, ANIC_CLASS_RPC, 150), watched.now);
  guarded.count_turns(ANIC_LANE(kGlobex, ANIC_CLASS_BULK), 0, 0, 1000 * kMbit);  // its minimum
  const auto records = watched.bad(100 * kMbit);
  CHECK(of_kind(records, ANIC_RECORD_PROTECT).empty());
  REQUIRE(of_kind(records, ANIC_RECORD_REVERT).size() == 1);
  CHECK(guarded.ward(kGlobex).bulk_bps == 0);
  guarded.count_turns(ANIC_LANE(kGlobex, ANIC_CLASS_BULK), 0, 0, 3000 * kMbit);
  CHECK(of_kind(watched.bad(), ANIC_RECORD_PROTECT).size() == 1);
  CHECK(guarded.ward(kGlobex).bulk_bps == 1500 * kMbit);
  CHECK(guarded.rate(kGlobex, ANIC_CLASS_BULK) == 1500 * kMbit);
}

TEST_CASE("guardian: L3: bulk of a tenant that is there no more is not limited, and hides no change") {
  Watched watched;
  Guarded& guarded = watched.guarded;
  guarded.count_turns(ANIC_LANE(kGlobex, ANIC_CLASS_BULK), 0, 0, 3000 * kMbit);
  guarded.install(R"({"version": 1, "name": "one", "link_rate": "10Gbit", "services": [],
      "classes": {"rpc": {"slo": "1ms"}}, "guardian": {"heartbeat": "60s"},
      "tenants": [{"name": "acme", "prefixes": ["10.1.0.0/16"]}]})",
                  watched.now);
  guarded.approves(watched.session, weight(kAcme, ANIC_CLASS_RPC, 150), watched.now + 1);
  const auto records = watched.bad();
  CHECK(of_kind(records, ANIC_RECORD_PROTECT).empty());
  CHECK(of_kind(records, ANIC_RECORD_REVERT).size() == 1);
  CHECK(guarded.ward(kGlobex).bulk_bps == 0);
}

TEST_CASE("guardian: L3: protection alone is tried once; the second miss in a row rolls back too") {
  Watched watched;
  watched.guarded.approves(watched.session, weight(kAcme, ANIC_CLASS_RPC, 150), watched.now);
  CHECK(watched.bad(800 * kMbit).size() == 2);
  const auto records = watched.bad(800 * kMbit);
  REQUIRE(records.size() == 3);
  check_missed(records[0], 100, 6);  // once, although two things are done for it
  CHECK(records[1].kind == ANIC_RECORD_PROTECT);
  CHECK(records[2].kind == ANIC_RECORD_REVERT);
  CHECK(watched.guarded.tuned(kAcme, ANIC_CLASS_RPC).weight == 100);
}

TEST_CASE("guardian: L3: too few answers say nothing") {
  Watched watched(R"("heartbeat": "60s", "slo": {"protect": false})");
  watched.guarded.approves(watched.session, weight(kAcme, ANIC_CLASS_RPC, 150), watched.now);
  for (int i = 0; i < 20; ++i) CHECK(watched.look(1, 1).empty());
  const auto records = watched.look(20, 20);
  REQUIRE(records.size() == 2);
  check_missed(records[0], 21, 21);  // with one that said nothing yet
  CHECK(records[1].kind == ANIC_RECORD_REVERT);
}

TEST_CASE("guardian: L3: changes that hurt again and again are fail-safe of their tenant") {
  Watched watched(R"("heartbeat": "60s", "slo": {"protect": false}, "instability": {"count": 2})");
  Guarded& guarded = watched.guarded;
  guarded.approves(watched.session, weight(kAcme, ANIC_CLASS_RPC, 150), watched.now);
  CHECK(watched.bad().size() == 2);
  guarded.approves(watched.session, weight(kAcme, ANIC_CLASS_DEFAULT, 150), watched.now);
  guarded.approves(watched.session, weight(kAcme, ANIC_CLASS_BULK, 60), watched.now + 1);
  const auto records = watched.bad();
  REQUIRE(records.size() == 4);
  check_missed(records[0], 100, 6);
  CHECK(records[1].kind == ANIC_RECORD_REVERT);
  CHECK(records[1].invariant == ANIC_INVARIANT_L3);
  CHECK(records[1].cls == ANIC_CLASS_BULK);
  CHECK(records[2].kind == ANIC_RECORD_FAILSAFE);
  CHECK(records[2].invariant == ANIC_INVARIANT_L3);
  CHECK(records[3].kind == ANIC_RECORD_REVERT);
  CHECK(records[3].invariant == ANIC_INVARIANT_L4);
  CHECK(guarded.mode(kAcme) == (ANIC_FAILSAFE_SLO | ANIC_MODE_ALARM));
  CHECK(guarded.mode(kGlobex) == 0);
  CHECK(watched.session.drain(watched.now) == 0);  // the session goes on, and hears that
  guarded.rejects(watched.session, weight(kAcme, ANIC_CLASS_RPC, 110), watched.now, ANIC_INVARIANT_L4);
}

TEST_CASE("guardian: L4: fail-safe refuses for the cool-down and ends by itself; the alarm stays") {
  Guarded guarded(guarded_policy(R"("cool_down": "5s")"));
  const TestSession dead(guarded.instance(), everything_of(1), kStart);
  guarded.approves(dead, weight(kAcme, ANIC_CLASS_RPC, 150), kStart);
  const std::uint64_t entered = kStart + 1001 * kMs;
  guarded.tick(entered);
  const TestSession next(guarded.instance(), everything(), entered);
  guarded.rejects(next, weight(kAcme, ANIC_CLASS_RPC, 110), entered, ANIC_INVARIANT_L4);
  guarded.approves(next, weight(kGlobex, ANIC_CLASS_RPC, 110), entered);
  (void)guarded.take();
  CHECK(next.drain(entered + 5 * kSecond) == 0);
  guarded.tick(entered + 5 * kSecond - 1);
  CHECK(guarded.take().empty());
  guarded.tick(entered + 5 * kSecond);
  CHECK(guarded.mode(kAcme) == ANIC_MODE_ALARM);
  const auto left = guarded.take();
  REQUIRE(left.size() == 1);
  CHECK(left[0].kind == ANIC_RECORD_FAILSAFE);
  CHECK(left[0].decided == ANIC_DECIDED_FAILSAFE_EXIT);
  CHECK(left[0].failsafe == ANIC_FAILSAFE_HEARTBEAT);
  guarded.approves(next, weight(kAcme, ANIC_CLASS_RPC, 110), entered + 5 * kSecond);
  CHECK(guarded.failsafe(ANIC_ORDER_ACK, kAcme, entered + 5 * kSecond, "seen") == 0);
  CHECK(guarded.mode(kAcme) == 0);
  CHECK(guarded.failsafe(ANIC_ORDER_ACK, kAcme, entered + 5 * kSecond) == -EALREADY);
  const auto acknowledged = guarded.take();
  REQUIRE(acknowledged.size() == 1);
  CHECK(acknowledged[0].kind == ANIC_RECORD_ACK);
  CHECK(std::string(acknowledged[0].reason) == "seen");
}

TEST_CASE("guardian: L4: what an operator entered stays until he ends it, and that acknowledges it") {
  Guarded guarded(guarded_policy(R"("cool_down": "100ms")"));
  const TestSession session(guarded.instance(), everything_of(2), kStart);
  guarded.approves(session, weight(kGlobex, ANIC_CLASS_RPC, 110), kStart);
  CHECK(guarded.failsafe(ANIC_ORDER_EXIT, 0, kStart) == -EALREADY);
  CHECK(guarded.failsafe(ANIC_ORDER_ENTER, 0, kStart, "maintenance") == 0);
  CHECK(guarded.failsafe(ANIC_ORDER_ENTER, 0, kStart) == -EALREADY);
  CHECK(guarded.mode(0) == (ANIC_FAILSAFE_OPERATOR | ANIC_MODE_ALARM));
  CHECK(std::string(guarded.dump(0).reason) == "maintenance");
  CHECK(guarded.tuned(kGlobex, ANIC_CLASS_RPC).weight == 100);
  CHECK(session.drain(kStart + 59 * kSecond) == 0);
  guarded.rejects(session, weight(kGlobex, ANIC_CLASS_RPC, 110), kStart + 59 * kSecond, ANIC_INVARIANT_L4);
  CHECK(guarded.failsafe(ANIC_ORDER_ACK, 0, kStart + 59 * kSecond) == 0);
  CHECK(guarded.mode(0) == ANIC_FAILSAFE_OPERATOR);
  CHECK(guarded.failsafe(ANIC_ORDER_EXIT, 0, kStart + 59 * kSecond) == 0);
  CHECK(guarded.mode(0) == 0);
  guarded.approves(session, weight(kGlobex, ANIC_CLASS_RPC, 110), kStart + 59 * kSecond);
  CHECK(guarded.failsafe(ANIC_ORDER_ENTER, ANIC_TENANTS_MAX, kStart) == -EINVAL);
  CHECK(guarded.failsafe(ANIC_ORDER__MAX, 0, kStart) == -EINVAL);
  CHECK(guarded.failsafe(ANIC_ORDER_NONE, 0, kStart) == -EINVAL);
}

TEST_CASE(
    "guardian: L4: what fails again in the cool-down is recorded and an alarm again, if it was "
    "acknowledged") {
  Guarded guarded;
  const TestSession first(guarded.instance(), everything_of(1), kStart);
  CHECK(first.drain(kStart) == 0);
  std::uint64_t now = kStart + 1001 * kMs;
  guarded.tick(now);
  CHECK(guarded.failsafe(ANIC_ORDER_ACK, kAcme, now) == 0);
  CHECK(guarded.mode(kAcme) == ANIC_FAILSAFE_HEARTBEAT);
  const TestSession next(guarded.instance(), everything_of(1), now);
  CHECK(next.drain(now) == 0);
  (void)guarded.take();
  now += 1001 * kMs;
  guarded.tick(now);
  CHECK(guarded.mode(kAcme) == (ANIC_FAILSAFE_HEARTBEAT | ANIC_MODE_ALARM));
  const auto records = guarded.take();
  REQUIRE(records.size() == 2);
  CHECK(records[0].kind == ANIC_RECORD_FAILSAFE);
  CHECK(records[0].decided == ANIC_DECIDED_FAILSAFE_ENTER);
  CHECK(records[0].invariant == ANIC_INVARIANT_L1);
  CHECK(records[0].session == next.id());
  CHECK(records[0].until_ns == now + 30 * kSecond);
  CHECK(records[1].kind == ANIC_RECORD_CLOSE);
  CHECK(guarded.dump(kAcme).until_ns == now + 30 * kSecond);
  CHECK(guarded.dump(kAcme).session == first.id());  // what led to it
}

TEST_CASE("guardian: L4: what fails while an operator has it in fail-safe is an alarm, and ends nothing") {
  Guarded guarded;
  const TestSession session(guarded.instance(), everything_of(1), kStart);
  CHECK(session.drain(kStart) == 0);
  CHECK(guarded.failsafe(ANIC_ORDER_ENTER, kAcme, kStart) == 0);
  CHECK(guarded.failsafe(ANIC_ORDER_ACK, kAcme, kStart) == 0);
  (void)guarded.take();
  guarded.tick(kStart + 1001 * kMs);
  CHECK(guarded.mode(kAcme) == (ANIC_FAILSAFE_OPERATOR | ANIC_MODE_ALARM));
  const auto entered = of_kind(guarded.take(), ANIC_RECORD_FAILSAFE);
  REQUIRE(entered.size() == 1);
  CHECK(entered[0].failsafe == ANIC_FAILSAFE_HEARTBEAT);
  CHECK(entered[0].until_ns == 0);
  guarded.tick(kStart + 60 * kSecond);
  CHECK(ANIC_MODE_FAILSAFE(guarded.mode(kAcme)) == ANIC_FAILSAFE_OPERATOR);
}

TEST_CASE("guardian: L4: an operator takes an automatic fail-safe over") {
  Guarded guarded(guarded_policy(R"("cool_down": "100ms")"));
  const TestSession session(guarded.instance(), everything_of(1), kStart);
  CHECK(session.drain(kStart) == 0);
  guarded.tick(kStart + 1001 * kMs);
  CHECK(ANIC_MODE_FAILSAFE(guarded.mode(kAcme)) == ANIC_FAILSAFE_HEARTBEAT);
  CHECK(guarded.failsafe(ANIC_ORDER_ENTER, kAcme, kStart + 1002 * kMs, "mine") == 0);
  guarded.tick(kStart + 20 * kSecond);
  CHECK(ANIC_MODE_FAILSAFE(guarded.mode(kAcme)) == ANIC_FAILSAFE_OPERATOR);
}

TEST_CASE("guardian: L4: a tenant that fails again and again is fail-safe of the instance") {
  Guarded guarded(guarded_policy(R"("cool_down": "100ms", "instability": {"count": 3})"));
  std::uint64_t now = kStart;
  for (int i = 0; i < 3; ++i) {
    CHECK(guarded.mode(0) == 0);
    const TestSession session(guarded.instance(), everything_of(1), now);
    CHECK(session.drain(now) == 0);
    now += 1001 * kMs;
    guarded.tick(now);
    CHECK((guarded.mode(kAcme) & ANIC_MODE_ALARM) != 0);
    now += kSecond;
    guarded.tick(now);
    CHECK(ANIC_MODE_FAILSAFE(guarded.mode(kAcme)) == 0);
  }
  CHECK(guarded.mode(0) == (ANIC_FAILSAFE_REPEATED | ANIC_MODE_ALARM));
  now += 50 * kSecond;
  guarded.tick(now);
  CHECK(ANIC_MODE_FAILSAFE(guarded.mode(0)) == ANIC_FAILSAFE_REPEATED);
  CHECK(guarded.failsafe(ANIC_ORDER_EXIT, 0, now) == 0);
  guarded.tick(now);
  CHECK(guarded.mode(0) == 0);
}

TEST_CASE("guardian: L4: a tenant that a policy has no more leaves fail-safe, with a record") {
  Guarded guarded;
  CHECK(guarded.failsafe(ANIC_ORDER_ENTER, kGlobex, kStart) == 0);
  (void)guarded.take();
  guarded.install(R"({"version": 1, "name": "one", "link_rate": "10Gbit", "services": [],
      "tenants": [{"name": "acme", "prefixes": ["10.1.0.0/16"]}]})",
                  kStart);
  CHECK(guarded.mode(kGlobex) == 0);
  const auto left = of_kind(guarded.take(), ANIC_RECORD_FAILSAFE);
  REQUIRE(left.size() == 1);
  CHECK(left[0].decided == ANIC_DECIDED_FAILSAFE_EXIT);
  CHECK(left[0].tenant == kGlobex);
}

TEST_CASE("guardian: L4: the end of a fail-safe that ended by itself acknowledges its alarm") {
  Guarded guarded(guarded_policy(R"("cool_down": "100ms")"));
  const TestSession session(guarded.instance(), everything_of(1), kStart);
  CHECK(session.drain(kStart) == 0);
  guarded.tick(kStart + 1001 * kMs);
  guarded.tick(kStart + 2 * kSecond);
  CHECK(guarded.mode(kAcme) == ANIC_MODE_ALARM);
  CHECK(guarded.failsafe(ANIC_ORDER_EXIT, kAcme, kStart + 2 * kSecond) == 0);
  CHECK(guarded.mode(kAcme) == 0);
}

TEST_CASE("guardian: the dump of fail-safe holds lanes, changes and the session as they were") {
  Guarded guarded;
  const TestSession session(guarded.instance(), everything_of(1), kStart);
  guarded.approves(session, weight(kAcme, ANIC_CLASS_RPC, 150), kStart);
  guarded.count_turns(kRpcOfAcme, 1000, 7, 300 * kMbit);
  guarded.tick(kStart + 1001 * kMs);
  const anic_dump dump = guarded.dump(kAcme);
  CHECK(dump.at_ns == kStart + 1001 * kMs);
  CHECK(dump.until_ns == dump.at_ns + 30 * kSecond);
  CHECK(dump.kind == ANIC_FAILSAFE_HEARTBEAT);
  CHECK(dump.invariant == ANIC_INVARIANT_L1);
  CHECK(dump.session == session.id());
  CHECK(dump.heard_ns == kStart);
  CHECK(dump.lanes[ANIC_CLASS_RPC].weight == 150);
  CHECK(dump.lanes[ANIC_CLASS_NONE].ceiling_bps == 2000 * kMbit);
  CHECK(dump.samples[ANIC_CLASS_RPC] == 1000);
  CHECK(dump.over_slo[ANIC_CLASS_RPC] == 7);
  CHECK(dump.wanted_bps[ANIC_DIRECTION_IN][ANIC_CLASS_RPC] == 300 * kMbit);
  CHECK(dump.actions[0].in_force == 1);
  CHECK(dump.actions[0].value == 150);
  CHECK(guarded.tuned(kAcme, ANIC_CLASS_RPC).weight == 100);
}

TEST_CASE("guardian: who holds the lock stops sessions and orders, and not what needs none") {
  Guarded guarded;
  const TestSession session(guarded.instance(), everything_of(1), kStart);
  guarded.approves(session, weight(kAcme, ANIC_CLASS_RPC, 150), kStart);
  REQUIRE(session.lock(kStart, true) == 0);
  CHECK(session.lock(kStart, true) == -EBUSY);
  CHECK(session.drain(kStart) == -EBUSY);
  CHECK(session.close(kStart) == -EBUSY);
  CHECK(try_open(guarded, 2, kStart) == -EBUSY);
  CHECK(guarded.failsafe(ANIC_ORDER_ENTER, 0, kStart) == -EBUSY);
  CHECK(order(guarded.instance(), "commit", order_at(kStart)) == -EBUSY);
  CHECK(order(guarded.instance(), "end", order_at(kStart)) == -EBUSY);
  const auto rounds = guarded.only<anic_sharing>("anic_sharing").rounds;
  CHECK(guarded.instance().try_tick(kStart + 100 * kMs) == -EBUSY);
  CHECK(guarded.only<anic_sharing>("anic_sharing").rounds == rounds + 1);
  CHECK(guarded.only<anic_guard>("anic_guard").ticks_locked == 1);
  CHECK(guarded.mode(0) == 0);
  CHECK(session.lock(kStart, false) == 0);
  CHECK(session.drain(kStart + 100 * kMs) == -EBUSY);  // the tick wanted it, and comes first
  guarded.tick(kStart + 100 * kMs);
  CHECK(session.drain(kStart + 100 * kMs) == 0);
  CHECK(guarded.mode(0) == 0);
  CHECK(guarded.tuned(kAcme, ANIC_CLASS_RPC).weight == 150);
}

TEST_CASE("guardian: a lock that is held for long is fail-safe of the instance, of which a record follows") {
  Guarded guarded(guarded_policy(R"("changes": {"tenant": 1000}, "oscillation": {"flips": 1000})"));
  const TestSession session(guarded.instance(), everything_of(1), kStart);
  guarded.approves(session, weight(kAcme, ANIC_CLASS_RPC, 150), kStart);
  for (int i = 0; i < 2; ++i) {
    const std::uint64_t now = kStart + i * 900 * kMs;
    CHECK(session.drain(now) == 0);
    REQUIRE(session.lock(now, true) == 0);
    CHECK(guarded.instance().try_tick(now + 101 * kMs) == -EBUSY);
    CHECK(guarded.mode(0) == (ANIC_FAILSAFE_STUCK | ANIC_MODE_ALARM));
    CHECK(guarded.take().empty());
    CHECK(session.lock(now, false) == 0);
    guarded.tick(now + 150 * kMs);
    const auto records = guarded.take();
    REQUIRE(!records.empty());
    CHECK(records[0].kind == ANIC_RECORD_FAILSAFE);
    CHECK(records[0].failsafe == ANIC_FAILSAFE_STUCK);
    CHECK(records[0].decided == ANIC_DECIDED_FAILSAFE_ENTER);
    CHECK(records[0].tenant == 0);
    CHECK(records[0].time_ns == now + 101 * kMs);
    CHECK(records.size() == (i == 0 ? 2 : 1));  // and what was changed is given back
    CHECK(guarded.tuned(kAcme, ANIC_CLASS_RPC).weight == 100);
    CHECK(guarded.dump(0).kind == ANIC_FAILSAFE_STUCK);
    CHECK(guarded.dump(0).at_ns == now + 101 * kMs);
    CHECK(guarded.dump(0).until_ns == 0);
    CHECK(guarded.mode(0) == (ANIC_FAILSAFE_STUCK | ANIC_MODE_ALARM));
    CHECK(session.propose(weight(kAcme, ANIC_CLASS_RPC, 110), now + 150 * kMs).invariant ==
          ANIC_INVARIANT_L4);
    CHECK(guarded.failsafe(ANIC_ORDER_EXIT, 0, now + 150 * kMs) == 0);
    guarded.tick(now + 150 * kMs);
    CHECK(guarded.mode(0) == 0);
    CHECK(session.propose(weight(kAcme, ANIC_CLASS_DEFAULT, 110), now + 150 * kMs).decided ==
          ANIC_DECIDED_APPROVE);
    CHECK(session.propose(weight(kAcme, ANIC_CLASS_DEFAULT, 100), now + 150 * kMs).decided ==
          ANIC_DECIDED_APPROVE);
    (void)guarded.take();
  }
}

TEST_CASE(
    "guardian: a lock that was given back keeps no time, which a tick could take for the next holder's") {
  Guarded guarded;
  const TestSession session(guarded.instance(), everything_of(1), kStart);
  CHECK(session.drain(kStart) == 0);
  CHECK(guarded.only<anic_guard>("anic_guard").locked_ns == 0);
}
