// SPDX-License-Identifier: Apache-2.0
//
// The audit of the guardian: nothing requested without a record, and no record missing unsaid. The helper
// recomputes the chain of all records that a test takes.

#include <algorithm>
#include <catch2/catch_test_macros.hpp>
#include <cerrno>
#include <cstdint>
#include <cstring>
#include <vector>

#include "guarded.hpp"
#include "policy/parse.hpp"

using namespace agentnic;

namespace {

constexpr std::uint64_t kRecords = ANIC_AUDIT_BYTES / ANIC_AUDIT_TAKES;
constexpr std::uint64_t kBeforeEnd = kRecords - ANIC_AUDIT_LAST / ANIC_AUDIT_TAKES;
constexpr std::uint64_t kRequested = (ANIC_AUDIT_BYTES - ANIC_AUDIT_RESERVE) / ANIC_AUDIT_TAKES;

/// Rates of change and so on that are no obstacle to many thousand proposals.
const std::string kFree =
    guarded_policy(R"("heartbeat": "60s", "changes": {"tenant": 10000000, "total": 10000000},
    "oscillation": {"window": "1us"}, "rejections": 1000000)");

anic_chain chain_of(const Guarded& guarded) { return guarded.only<anic_chain>("anic_chain"); }

/// A session that proposes for as long as it is let.
class Filler {
 public:
  Filler() : guarded(kFree), session(guarded.instance(), everything(), kStart) {}

  /// Fills the ring but for its reserve; the last proposal is refused for want of room.
  void fill() {
    while (!full_) {
      for (int i = 0; i < ANIC_DRAIN_MAX; ++i) write();
      now += 10'000;
      REQUIRE(session.drain(now) == ANIC_DRAIN_MAX);
      full_ = last().invariant == ANIC_INVARIANT_A1;
    }
  }

  [[nodiscard]] anic_answer last() const {
    return session.page().answers[(session.page().answered - 1) % ANIC_DRAIN_MAX];
  }

  std::uint64_t now = kStart;
  Guarded guarded;
  TestSession session;

 private:
  void write() {
    anic_proposal proposal = weight(kAcme, ANIC_CLASS_RPC, 100 + ++written_ % 100);
    proposal.size = sizeof(proposal);
    REQUIRE(session.write(&proposal, sizeof(proposal)));
  }

  std::uint64_t written_ = 0;
  bool full_ = false;
};

/// Enters and leaves fail-safe of the instance so often: two records each time.
void order_often(const Guarded& guarded, std::uint64_t times, std::uint64_t now) {
  for (std::uint64_t i = 0; i < times; ++i) {
    REQUIRE(guarded.failsafe(ANIC_ORDER_ENTER, 0, now) == 0);
    REQUIRE(guarded.failsafe(ANIC_ORDER_EXIT, 0, now) == 0);
  }
}

std::uint32_t lost_of(const anic_record& record, anic_record_kind kind) {
  anic_lost lost{};
  std::memcpy(&lost, record.reason, sizeof(lost));
  return lost.by_kind[kind];
}

}  // namespace

TEST_CASE("guardian: A1: nothing that is requested happens while the ring is full, what protects does") {
  Filler filler;
  Guarded& guarded = filler.guarded;
  filler.fill();
  const TestSession& session = filler.session;
  const std::vector<std::byte> before = guarded.in_force();
  const std::uint64_t seq = chain_of(guarded).seq;
  CHECK(seq >= kRequested - 2);
  CHECK(seq <= kRequested);
  CHECK(session.propose(weight(kAcme, ANIC_CLASS_RPC, 150), filler.now).invariant == ANIC_INVARIANT_A1);
  CHECK(session.propose(weight(kAcme, ANIC_CLASS_DEFAULT, 150), filler.now).invariant == ANIC_INVARIANT_A1);
  CHECK((guarded.in_force() == before));
  CHECK(session.row().rejected_in_row == 0);
  CHECK(chain_of(guarded).seq == seq);
  CHECK(guarded.failsafe(ANIC_ORDER_ENTER, 0, filler.now) == 0);  // of the reserve
  CHECK(guarded.tuned(kAcme, ANIC_CLASS_RPC).weight == 100);
  CHECK(chain_of(guarded).seq == seq + 2);
  CHECK(guarded.failsafe(ANIC_ORDER_EXIT, 0, filler.now) == 0);
  CHECK(guarded.take().size() == seq + 3);
  guarded.tick(filler.now);
  const auto after = guarded.take();  // whatever was refused for want of room, in one record
  REQUIRE(after.size() == 1);
  CHECK(after[0].kind == ANIC_RECORD_DECISION);
  CHECK(after[0].invariant == ANIC_INVARIANT_A1);
  CHECK(after[0].count == session.row().decided[ANIC_DECIDED_REJECT]);
  guarded.approves(session, weight(kAcme, ANIC_CLASS_RPC, 150), filler.now);
}

TEST_CASE(
    "guardian: A1: records of protection wait when there is no room at all, and come before all others") {
  Filler filler;
  Guarded& guarded = filler.guarded;
  filler.fill();
  order_often(guarded, (kRecords - kRequested) / 2 + 20, filler.now);
  const anic_chain full = chain_of(guarded);
  CHECK(full.seq == kBeforeEnd);
  CHECK(full.waiting >= 30);
  const std::uint64_t lost = full.lost_total;
  CHECK(filler.session.propose(weight(kAcme, ANIC_CLASS_RPC, 150), filler.now).invariant ==
        ANIC_INVARIANT_A1);
  CHECK(guarded.take().size() == kBeforeEnd);
  // There is room; but what waits has to come first.
  CHECK(filler.session.propose(weight(kAcme, ANIC_CLASS_RPC, 150), filler.now).invariant ==
        ANIC_INVARIANT_A1);
  guarded.tick(filler.now);
  const auto waited = guarded.take();
  REQUIRE(waited.size() >= full.waiting);
  for (std::uint32_t i = 0; i < full.waiting; ++i) CHECK(waited[i].kind == ANIC_RECORD_FAILSAFE);
  CHECK(of_kind(waited, ANIC_RECORD_LOST).size() == (lost != 0 ? 1 : 0));
  CHECK(chain_of(guarded).waiting == 0);
  CHECK(chain_of(guarded).lost_total >= lost);
  guarded.approves(filler.session, weight(kAcme, ANIC_CLASS_RPC, 150), filler.now);
}

TEST_CASE("guardian: A1: what finds no place to wait either is counted, and a record says how many") {
  Filler filler;
  Guarded& guarded = filler.guarded;
  filler.fill();
  const std::uint64_t orders = (kRecords - kRequested) / 2 + ANIC_WAITING_MAX;
  const anic_chain before = chain_of(guarded);
  order_often(guarded, orders, filler.now);
  const anic_chain full = chain_of(guarded);
  CHECK(full.waiting == ANIC_WAITING_MAX);
  const std::uint64_t reverts = 1;
  const std::uint64_t kept = full.seq - before.seq + full.waiting;
  const std::uint64_t lost = 2 * orders + reverts - kept;
  CHECK(full.lost_total - before.lost_total == lost);
  CHECK(guarded.take().size() == full.seq);
  guarded.tick(filler.now);
  const auto after = guarded.take();
  const auto said = of_kind(after, ANIC_RECORD_LOST);
  REQUIRE(said.size() == 1);
  CHECK(said[0].invariant == ANIC_INVARIANT_A2);
  CHECK(lost_of(said[0], ANIC_RECORD_FAILSAFE) == lost);
  CHECK(of_kind(after, ANIC_RECORD_FAILSAFE).size() + of_kind(after, ANIC_RECORD_REVERT).size() ==
        ANIC_WAITING_MAX);
  guarded.tick(filler.now);
  CHECK(guarded.take().empty());  // said once
}

TEST_CASE("guardian: A1: of a ring that nobody reads for minutes, all that was decided comes out") {
  constexpr int kSeconds = 300;
  Filler filler;
  Guarded& guarded = filler.guarded;
  filler.fill();
  for (int second = 0; second < kSeconds; ++second) {
    filler.now += kSecond;
    const auto cls = second % 2 == 0 ? ANIC_CLASS_RPC : ANIC_CLASS_DEFAULT;
    CHECK(filler.session.propose(weight(kAcme, cls, 150), filler.now).invariant == ANIC_INVARIANT_A1);
    guarded.tick(filler.now);
  }
  std::vector<anic_record> records = guarded.take();
  guarded.tick(filler.now);
  for (const anic_record& record : guarded.take()) records.push_back(record);
  std::uint64_t approved = 0;
  std::uint64_t rejected = 0;
  for (const anic_record& record : records) {
    if (record.kind == ANIC_RECORD_LOST) rejected += lost_of(record, ANIC_RECORD_DECISION);
    if (record.kind != ANIC_RECORD_DECISION) continue;
    (record.decided == ANIC_DECIDED_REJECT ? rejected : approved) += record.count;
  }
  const anic_session row = filler.session.row();
  CHECK(approved == row.decided[ANIC_DECIDED_APPROVE]);
  CHECK(rejected == row.decided[ANIC_DECIDED_REJECT]);
  CHECK(rejected > kSeconds);
  CHECK(row.answered == approved + rejected);
  guarded.approves(filler.session, weight(kAcme, ANIC_CLASS_RPC, 150), filler.now);
}

TEST_CASE("guardian: A2: identical rejections are one record with their number, others stand apart") {
  Guarded guarded;
  const TestSession session(guarded.instance(), everything(), kStart);
  (void)guarded.take();
  const anic_proposal one = weight(kAcme, ANIC_CLASS_CONTROL, 1);
  const anic_proposal other = weight(kAcme, ANIC_CLASS_CONTROL, 2);
  for (int i = 0; i < 5; ++i) CHECK(session.propose(one, kStart).seq == 0);
  CHECK(guarded.take().empty());
  CHECK(session.propose(other, kStart).seq == 0);
  const auto first = guarded.take();
  REQUIRE(first.size() == 1);
  CHECK(first[0].count == 5);
  CHECK(first[0].requested == 1);
  CHECK(first[0].invariant == ANIC_INVARIANT_C1);
  CHECK(session.propose(one, kStart).seq == 0);
  CHECK(guarded.take().size() == 1);
  CHECK(session.propose(weight(kAcme, ANIC_CLASS_RPC, 150), kStart).decided == ANIC_DECIDED_APPROVE);
  const auto both = guarded.take();
  REQUIRE(both.size() == 2);
  CHECK(both[0].requested == 1);
  CHECK(both[0].count == 1);
  CHECK(both[1].decided == ANIC_DECIDED_APPROVE);
  CHECK(session.propose(one, kStart).seq == 0);
  guarded.tick(kStart);
  CHECK(guarded.take().size() == 1);
  CHECK(session.propose(one, kStart).seq == 0);
  CHECK(session.close(kStart) == 0);
  const auto last = guarded.take();
  REQUIRE(last.size() == 3);
  CHECK(last[0].kind == ANIC_RECORD_DECISION);
  CHECK(last[1].kind == ANIC_RECORD_REVERT);
  CHECK(last[2].kind == ANIC_RECORD_CLOSE);
}

TEST_CASE("guardian: A2: a policy that comes in force is recorded, after what it ends") {
  Guarded guarded;
  const TestSession session(guarded.instance(), everything(), kStart);
  guarded.approves(session, weight(kAcme, ANIC_CLASS_RPC, 150), kStart);
  guarded.approves(session, escalate(kAcme, kApi, ANIC_CLASS_BULK), kStart);
  guarded.install(guarded_policy(kRoomy, "", "another"), kStart);
  const auto records = guarded.take();
  REQUIRE(records.size() == 3);
  CHECK(records[0].kind == ANIC_RECORD_REVERT);
  CHECK(records[0].invariant == ANIC_INVARIANT_NONE);
  CHECK(records[1].kind == ANIC_RECORD_REVERT);
  CHECK(records[2].kind == ANIC_RECORD_COMMIT);
  CHECK(records[2].generation == static_cast<std::uint32_t>(guarded.word()));
  CHECK(std::memcmp(records[2].digest, records[1].digest, sizeof(records[2].digest)) != 0);
  CHECK(guarded.tuned(kAcme, ANIC_CLASS_RPC).weight == 100);
  CHECK(guarded.ward(kAcme).in_force == 0);
  guarded.approves(session, weight(kAcme, ANIC_CLASS_RPC, 150), kStart);  // the session goes on
}

TEST_CASE("guardian: A3: the end closes sessions, its record is the last, and none comes after it") {
  Guarded guarded;
  const TestSession session(guarded.instance(), everything(), kStart);
  guarded.approves(session, weight(kAcme, ANIC_CLASS_RPC, 150), kStart);
  anic_order end = order_at(kStart);
  end.wall_ns = 4711;
  CHECK(order(guarded.instance(), "end", end) == 0);
  CHECK(order(guarded.instance(), "end", end) == 0);
  CHECK(session.drain(kStart) == -ESTALE);
  CHECK(guarded.failsafe(ANIC_ORDER_ENTER, 0, kStart) == 0);  // protection needs no record
  CHECK(session.close(kStart) == -ESRCH);
  guarded.tick(kStart + kSecond);
  const auto records = guarded.take();
  REQUIRE(records.size() == 5);
  CHECK(records[0].kind == ANIC_RECORD_REVERT);
  CHECK(records[1].kind == ANIC_RECORD_CLOSE);
  CHECK(records[2].kind == ANIC_RECORD_DETACH);
  CHECK(records[2].tenant == kAcme);
  CHECK(records[3].kind == ANIC_RECORD_DETACH);
  CHECK(records[3].tenant == kGlobex);
  CHECK(records[4].kind == ANIC_RECORD_DETACH);
  CHECK(records[4].tenant == 0);
  CHECK(records[4].invariant == ANIC_INVARIANT_A3);
  for (std::size_t i = 2; i < 5; ++i) CHECK(records[i].requested == 4711);
  CHECK(guarded.tuned(kAcme, ANIC_CLASS_RPC).weight == 100);
}

TEST_CASE("guardian: A3: what waits for room comes before the last record") {
  Filler filler;
  Guarded& guarded = filler.guarded;
  filler.fill();
  order_often(guarded, (kRecords - kRequested) / 2 + 20, filler.now);
  const std::uint32_t waiting = chain_of(guarded).waiting;
  CHECK(waiting > 0);
  (void)guarded.take();
  CHECK(order(guarded.instance(), "end", order_at(filler.now)) == 0);
  const auto records = guarded.take();
  REQUIRE(records.size() > waiting);
  CHECK(records.back().kind == ANIC_RECORD_DETACH);
  CHECK(records.back().tenant == 0);
  CHECK(of_kind(records, ANIC_RECORD_FAILSAFE).size() == waiting);
}

TEST_CASE("guardian: A3: with a full ring the last records are what is lost, and the end") {
  Filler filler;
  Guarded& guarded = filler.guarded;
  filler.fill();
  order_often(guarded, (kRecords - kRequested) / 2 + ANIC_WAITING_MAX, filler.now);
  const anic_chain full = chain_of(guarded);
  CHECK(full.seq == kBeforeEnd);
  CHECK(full.waiting == ANIC_WAITING_MAX);
  CHECK(order(guarded.instance(), "end", order_at(filler.now)) == 0);
  const anic_chain ended = chain_of(guarded);
  CHECK(ended.ended == 1);
  CHECK(ended.waiting == 0);
  CHECK(ended.lost_now == 0);
  const auto records = guarded.take();
  REQUIRE(records.size() == kRecords);
  CHECK(records.back().kind == ANIC_RECORD_DETACH);
  CHECK(records.back().tenant == 0);
  const anic_record& lost = records[records.size() - 2];
  CHECK(lost.kind == ANIC_RECORD_LOST);
  anic_lost counts{};
  std::memcpy(&counts, lost.reason, sizeof(counts));
  CHECK(counts.by_kind[ANIC_RECORD_FAILSAFE] >= ANIC_WAITING_MAX);
  CHECK(counts.by_kind[0] >= 1);  // the ends of the tenants' parts, among what has no count of its own
}

TEST_CASE("guardian: the chain begins with the key that it is given, and says its number") {
  const kern::ChainKey key{.number = 7, .key = {0x0706050403020100, 0x0f0e0d0c0b0a0908}};
  Instance instance(key);
  Records records(instance);
  const auto parsed = policy::parse(guarded_policy(kRoomy), "the test's policy");
  REQUIRE(parsed);
  instance.install(*parsed);
  const auto taken = records.take();
  REQUIRE_FALSE(taken.empty());
  CHECK(taken[0].kind == ANIC_RECORD_ATTACH);
  CHECK(taken[0].observed == 7);
  audit::Chain chain{.key = {.low = key.key[0], .high = key.key[1]}, .seq = 0, .mac = {}};
  CHECK_FALSE(audit::first_bad(chain, taken));
  Guarded drawn;
  CHECK(drawn.take().at(0).observed == 0);
  CHECK_FALSE(kern::Object::load(kern::possible_cpus(), kern::ChainKey{.number = 0, .key = key.key}));
}
