// SPDX-License-Identifier: Apache-2.0
//
// Tenancies: where the numbered records of one tenant begin and end, although its id was another's before and
// will be another's again. The helper checks all numbers in what a test takes.

#include <algorithm>
#include <catch2/catch_test_macros.hpp>
#include <cstdint>
#include <cstring>
#include <string>
#include <string_view>
#include <vector>

#include "audit/words.hpp"
#include "guarded.hpp"
#include "policy/parse.hpp"

using namespace agentnic;

namespace {

constexpr std::uint64_t kRecords = (ANIC_AUDIT_BYTES - ANIC_AUDIT_LAST) / ANIC_AUDIT_TAKES;

/// The policy of the tests, in which somebody else has acme's id; with "", nobody.
void install_instead_of_acme(Guarded& guarded, std::string_view name, std::uint64_t now_ns = kStart) {
  const auto parsed = policy::parse(guarded_policy(kRoomy, "", "another"), "the test's policy");
  if (!parsed) FAIL(parsed.error().text());
  const auto rename = [&](policy::Tables& tables) {
    anic_tenant& row = tables.tenants[kAcme];
    std::ranges::fill(row.name, '\0');
    std::ranges::copy(name, row.name);
  };
  guarded.instance().install(*parsed, rename, now_ns);
}

anic_chain chain_of(const Guarded& guarded) { return guarded.only<anic_chain>("anic_chain"); }

/// Orders until so many records wait for room.
void let_wait(const Guarded& guarded, std::uint32_t waiting) {
  for (std::uint64_t i = 0; i < 2 * kRecords && chain_of(guarded).waiting < waiting; ++i) {
    REQUIRE(guarded.failsafe(ANIC_ORDER_ENTER, 0, kStart) == 0);
    REQUIRE(guarded.failsafe(ANIC_ORDER_EXIT, 0, kStart) == 0);
  }
  REQUIRE(chain_of(guarded).waiting >= waiting);
}

std::vector<anic_record> of_tenant(const std::vector<anic_record>& records, std::uint8_t tenant) {
  std::vector<anic_record> found;
  for (const anic_record& record : records) {
    if (record.tenant == tenant) found.push_back(record);
  }
  return found;
}

void check_begins(const anic_record& record, std::uint8_t tenant, std::string_view name) {
  CHECK(record.kind == ANIC_RECORD_COMMIT);
  CHECK(record.tenant == tenant);
  CHECK(record.tenant_seq == 1);
  CHECK(record.requested != 0);
  CHECK(audit::text_of(record.reason) == name);
}

void check_ends(const anic_record& record, std::uint8_t tenant, std::uint64_t tenant_seq) {
  CHECK(record.kind == ANIC_RECORD_DETACH);
  CHECK(record.tenant == tenant);
  CHECK(record.tenant_seq == tenant_seq);
  CHECK(record.requested != 0);
}

}  // namespace

TEST_CASE("guardian: tenancy: it begins with the name, after the policy that has the tenant") {
  Guarded guarded;
  const auto records = guarded.take();
  REQUIRE(records.size() == 4);
  CHECK(records[0].kind == ANIC_RECORD_ATTACH);
  CHECK(records[1].kind == ANIC_RECORD_COMMIT);
  CHECK(records[1].tenant == 0);
  CHECK(records[1].tenant_seq == 0);
  check_begins(records[2], kAcme, "acme");
  check_begins(records[3], kGlobex, "globex");
  CHECK(records[2].requested == records[1].requested);
  CHECK(records[2].generation == records[1].generation);
}

TEST_CASE("guardian: tenancy: a policy that keeps the tenant keeps the numbers going") {
  Guarded guarded;
  const TestSession session(guarded.instance(), everything(), kStart);
  CHECK(session.propose(weight(kAcme, ANIC_CLASS_RPC, 150), kStart).decided == ANIC_DECIDED_APPROVE);
  guarded.install(guarded_policy(kRoomy, "", "another"), kStart);
  CHECK(session.propose(weight(kAcme, ANIC_CLASS_RPC, 150), kStart).decided == ANIC_DECIDED_APPROVE);
  const auto records = of_tenant(guarded.take(), kAcme);  // COMMIT, change, given back, change
  REQUIRE(records.size() == 4);
  CHECK(records.back().kind == ANIC_RECORD_DECISION);
  CHECK(records.back().tenant_seq == 4);
}

TEST_CASE("guardian: tenancy: it ends when the id is nobody's, and numbers begin anew for who has it next") {
  Guarded guarded;
  CHECK(guarded.failsafe(ANIC_ORDER_ENTER, kAcme, kStart) == 0);
  (void)guarded.take();
  install_instead_of_acme(guarded, "");
  const auto gone = guarded.take();
  REQUIRE(gone.size() == 3);
  CHECK(gone[0].kind == ANIC_RECORD_FAILSAFE);  // is left: nobody could end it
  CHECK(gone[0].tenant_seq == 3);
  CHECK(gone[1].kind == ANIC_RECORD_COMMIT);
  CHECK(gone[1].tenant == 0);
  check_ends(gone[2], kAcme, 4);
  install_instead_of_acme(guarded, "");
  CHECK(guarded.take().size() == 1);  // it ended once
  install_instead_of_acme(guarded, "initech");
  CHECK(guarded.failsafe(ANIC_ORDER_ENTER, kAcme, kStart) == 0);
  const auto next = guarded.take();
  REQUIRE(next.size() == 3);
  check_begins(next[1], kAcme, "initech");
  CHECK(next[2].tenant_seq == 2);
}

TEST_CASE("guardian: tenancy: where an id goes from one to another, the one ends before the other begins") {
  Guarded guarded;
  const TestSession session(guarded.instance(), everything(), kStart);
  // A change that is given back, and a rejection that was not yet said.
  CHECK(session.propose(weight(kAcme, ANIC_CLASS_RPC, 150), kStart).decided == ANIC_DECIDED_APPROVE);
  CHECK(session.propose(weight(kAcme, ANIC_CLASS_CONTROL, 1), kStart).seq == 0);
  (void)guarded.take();
  install_instead_of_acme(guarded, "initech");
  const auto records = guarded.take();
  REQUIRE(records.size() == 5);
  CHECK(records[0].kind == ANIC_RECORD_REVERT);
  CHECK(records[0].tenant_seq == 3);
  CHECK(records[1].kind == ANIC_RECORD_DECISION);
  CHECK(records[1].decided == ANIC_DECIDED_REJECT);
  CHECK(records[1].tenant_seq == 4);
  CHECK(records[2].tenant == 0);
  check_ends(records[3], kAcme, 5);
  check_begins(records[4], kAcme, "initech");
  CHECK(session.propose(weight(kAcme, ANIC_CLASS_RPC, 150), kStart).invariant == ANIC_INVARIANT_I3);
  guarded.tick(kStart);
  const auto after = guarded.take();
  REQUIRE(after.size() == 1);
  CHECK(after[0].tenant_seq == 2);
}

TEST_CASE("guardian: tenancy: the end of the audit ends those that are open, and no other") {
  Guarded guarded;
  install_instead_of_acme(guarded, "");
  (void)guarded.take();
  anic_order end = order_at(kStart);
  end.wall_ns = 4711;
  CHECK(order(guarded.instance(), "end", end) == 0);
  const auto records = guarded.take();
  REQUIRE(records.size() == 2);
  check_ends(records[0], kGlobex, 2);
  CHECK(records[1].kind == ANIC_RECORD_DETACH);
  CHECK(records[1].tenant == 0);
  CHECK(records[1].seq == records[0].seq + 1);
}

TEST_CASE("guardian: tenancy: a record about an id that is nobody's has no number, nor leaves one") {
  Guarded guarded;
  constexpr std::uint8_t kNobody = 9;
  (void)guarded.take();
  CHECK(guarded.failsafe(ANIC_ORDER_ENTER, kNobody, kStart) == 0);
  CHECK(guarded.failsafe(ANIC_ORDER_EXIT, kNobody, kStart) == 0);
  const auto records = guarded.take();
  REQUIRE(records.size() == 2);
  for (const anic_record& record : records) {
    CHECK(record.tenant == kNobody);
    CHECK(record.tenant_seq == 0);
  }
  CHECK(chain_of(guarded).tenant_seq[kNobody] == 0);
  CHECK(chain_of(guarded).tenancy[kNobody] == 0);
}

TEST_CASE("guardian: tenancy: records that wait for room are numbered in the tenancy that they are of") {
  Guarded guarded;
  let_wait(guarded, 1);
  CHECK(guarded.failsafe(ANIC_ORDER_ENTER, kAcme, kStart) == 0);
  install_instead_of_acme(guarded, "initech");
  CHECK(guarded.failsafe(ANIC_ORDER_ENTER, kAcme, kStart) == 0);
  install_instead_of_acme(guarded, "");
  CHECK(guarded.take().size() == kRecords);
  guarded.tick(kStart);
  const auto records = of_tenant(guarded.take(), kAcme);
  REQUIRE(records.size() == 7);
  CHECK(records[0].kind == ANIC_RECORD_FAILSAFE);  // entered
  CHECK(records[0].tenant_seq == 2);
  CHECK(records[1].kind == ANIC_RECORD_FAILSAFE);  // left
  check_ends(records[2], kAcme, 4);
  check_begins(records[3], kAcme, "initech");
  CHECK(records[5].tenant_seq == 3);
  check_ends(records[6], kAcme, 4);
  CHECK(chain_of(guarded).lost_total == 0);
}

TEST_CASE(
    "guardian: tenancy: whose beginning or end is lost, nothing of the next is numbered among its own") {
  Guarded guarded;
  Records records(guarded.instance());
  let_wait(guarded, ANIC_WAITING_MAX);
  install_instead_of_acme(guarded, "initech");  // neither the end nor the beginning finds a place
  CHECK((chain_of(guarded).tenancy[kAcme] & 1U) == 0);
  CHECK(records.take().size() == kRecords);
  CHECK(guarded.failsafe(ANIC_ORDER_ENTER, kAcme, kStart) == 0);  // room, but others wait
  guarded.tick(kStart);
  CHECK(guarded.failsafe(ANIC_ORDER_EXIT, kAcme, kStart) == 0);
  const auto after = records.take();
  const auto lost = of_kind(after, ANIC_RECORD_LOST);
  REQUIRE(lost.size() == 1);
  anic_lost counts{};
  std::memcpy(&counts, lost[0].reason, sizeof(counts));
  CHECK(counts.by_kind[ANIC_RECORD_COMMIT] == 2);  // of the policy, and of initech
  CHECK(counts.by_kind[0] == 1);                   // acme's DETACH
  for (const anic_record& record : of_tenant(after, kAcme)) CHECK(record.tenant_seq == 0);
  CHECK_FALSE(of_tenant(after, kAcme).empty());
  install_instead_of_acme(guarded, "initech");  // the next policy makes up for it
  const auto next = of_tenant(records.take(), kAcme);
  REQUIRE(next.size() == 1);
  check_begins(next[0], kAcme, "initech");
}

TEST_CASE("guardian: tenancy: one that began while all waited ends in its own numbers when its end is lost") {
  Guarded guarded;
  Records records(guarded.instance());
  install_instead_of_acme(guarded, "");
  let_wait(guarded, ANIC_WAITING_MAX - 3);
  install_instead_of_acme(guarded, "initech");  // the policy's, and its beginning
  while (chain_of(guarded).waiting < ANIC_WAITING_MAX)
    CHECK(guarded.failsafe(ANIC_ORDER_ENTER, kGlobex, kStart) == 0);
  install_instead_of_acme(guarded, "umbrella");
  (void)records.take();
  guarded.tick(kStart);
  CHECK(guarded.failsafe(ANIC_ORDER_ENTER, kAcme, kStart) == 0);
  const auto after = of_tenant(records.take(), kAcme);
  REQUIRE(after.size() == 2);
  check_begins(after[0], kAcme, "initech");
  CHECK(after[1].kind == ANIC_RECORD_FAILSAFE);
  CHECK(after[1].tenant_seq == 0);  // umbrella's, which has no beginning
}
