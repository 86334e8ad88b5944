// SPDX-License-Identifier: Apache-2.0
//
// The guardian's judgement: each invariant violated and respected, by the real programs at times of the test.

#include <algorithm>
#include <catch2/catch_test_macros.hpp>
#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "guarded.hpp"
#include "kern/generation.hpp"
#include "policy/parse.hpp"

using namespace agentnic;

namespace {

/// Writes bytes as they are; the answer to them.
anic_answer answer_to(const TestSession& session, const void* bytes, std::size_t size) {
  REQUIRE(session.write(bytes, size));
  REQUIRE(session.drain(kStart) == 1);
  return session.page().answers[(session.page().answered - 1) % ANIC_DRAIN_MAX];
}

/// A proposal that would be approved, with something done to it.
template <typename Edit>
anic_proposal spoilt(anic_proposal proposal, Edit&& edit) {
  edit(proposal);
  return proposal;
}

}  // namespace

TEST_CASE("guardian: FORM: a sample of another size is no proposal, and one of the right size is") {
  Guarded guarded;
  const TestSession session(guarded.instance(), everything(), kStart);
  anic_proposal proposal = weight(kAcme, ANIC_CLASS_RPC, 150);
  proposal.size = sizeof(proposal);
  std::vector<std::byte> bytes(2 * sizeof(proposal));
  std::ranges::copy(std::as_bytes(std::span(&proposal, 1)), bytes.begin());
  const std::vector<std::byte> before = guarded.in_force();
  for (const std::size_t size :
       {std::size_t{1}, std::size_t{8}, sizeof(proposal) - 8, sizeof(proposal) + 8, 2 * sizeof(proposal)}) {
    CAPTURE(size);
    const anic_answer answer = answer_to(session, bytes.data(), size);
    CHECK(answer.decided == ANIC_DECIDED_REJECT);
    CHECK(answer.invariant == ANIC_INVARIANT_FORM);
    CHECK(answer.cookie == 0);
  }
  for (const std::uint32_t size : {0U, 79U, 81U, ~0U}) {
    CAPTURE(size);
    proposal.size = size;
    CHECK(answer_to(session, &proposal, sizeof(proposal)).invariant == ANIC_INVARIANT_FORM);
  }
  CHECK((guarded.in_force() == before));
  CHECK(session.row().rejected_in_row == 9);
  proposal.size = sizeof(proposal);
  CHECK(answer_to(session, &proposal, sizeof(proposal)).decided == ANIC_DECIDED_APPROVE);
  CHECK(session.row().rejected_in_row == 0);
}

TEST_CASE("guardian: FORM: a proposal whose fields do not go together changes nothing") {
  Guarded guarded;
  const TestSession session(guarded.instance(), everything(), kStart);
  const anic_proposal of_rpc = weight(kAcme, ANIC_CLASS_RPC, 150);
  const anic_proposal of_api = escalate(kAcme, kApi, ANIC_CLASS_RETRIEVAL);
  const anic_proposal of_bucket = rebalance(kAcme, ANIC_CLASS_RETRIEVAL, 3, 0);
  const std::vector<anic_proposal> malformed = {
      spoilt(of_rpc, [](anic_proposal& p) { p._pad = 1; }),
      spoilt(of_rpc, [](anic_proposal& p) { p._pad2 = 1; }),
      spoilt(of_rpc, [](anic_proposal& p) { p.kind = ANIC_CHANGE_NONE; }),
      spoilt(of_rpc, [](anic_proposal& p) { p.kind = ANIC_CHANGE__MAX; }),
      spoilt(of_rpc, [](anic_proposal& p) { p.kind = 255; }),
      spoilt(of_rpc, [](anic_proposal& p) { p.tenant = 0; }),
      spoilt(of_rpc, [](anic_proposal& p) { p.tenant = 65; }),
      spoilt(of_rpc, [](anic_proposal& p) { p.tenant = 255; }),
      spoilt(of_rpc, [](anic_proposal& p) { p.tenant = 3; }),
      spoilt(of_rpc, [](anic_proposal& p) { p.cls = ANIC_CLASS_NONE; }),
      spoilt(of_rpc, [](anic_proposal& p) { p.cls = ANIC_CLASS__MAX; }),
      spoilt(of_rpc, [](anic_proposal& p) { p.service = kApi; }),
      spoilt(of_rpc, [](anic_proposal& p) { p.bucket = 1; }),
      spoilt(of_rpc, [](anic_proposal& p) { p.value = 0x100000000; }),
      spoilt(throttle(kAcme, 500 * kMbit), [](anic_proposal& p) { p.cls = ANIC_CLASS_BULK; }),
      spoilt(of_api, [](anic_proposal& p) { p.service = 0; }),
      spoilt(of_api, [](anic_proposal& p) { p.service = kOwned; }),
      spoilt(of_api, [](anic_proposal& p) { p.service = kOwned + 1; }),
      spoilt(of_api, [](anic_proposal& p) { p.service = ANIC_SERVICES_MAX; }),
      spoilt(of_api, [](anic_proposal& p) { p.service = 65535; }),
      spoilt(of_api, [](anic_proposal& p) { p.cls = ANIC_CLASS_RPC; }),
      spoilt(of_api, [](anic_proposal& p) { p.value = 0; }),
      spoilt(of_api, [](anic_proposal& p) { p.value = ANIC_CLASS__MAX; }),
      spoilt(of_api, [](anic_proposal& p) { p.value = ~0ULL; }),
      switch_path(kAcme, ANIC_CLASS_DEFAULT, ANIC_PATH_NONE),
      switch_path(kAcme, ANIC_CLASS_DEFAULT, ANIC_PATH__MAX),
      spoilt(of_bucket, [](anic_proposal& p) { p.bucket = ANIC_STEER_BUCKETS; }),
      spoilt(of_bucket, [](anic_proposal& p) { p.value = ANIC_CPUS_MAX; }),
      borrow(kGlobex, 100 * kMbit),  // it has no ceiling to be above
  };
  for (std::size_t i = 0; i < malformed.size(); ++i) {
    CAPTURE(i);
    guarded.rejects(session, malformed[i], kStart, ANIC_INVARIANT_FORM);
  }
  guarded.approves(session, of_rpc, kStart);
  guarded.approves(session, of_api, kStart);
  guarded.approves(session, of_bucket, kStart);
  guarded.approves(session, escalate(kGlobex, kOwned, ANIC_CLASS_RPC), kStart);
}

TEST_CASE("guardian: C1: what is asked of control traffic is refused, of other classes it is not") {
  Guarded guarded;
  const TestSession session(guarded.instance(), everything(), kStart);
  for (const anic_proposal& proposal :
       {weight(kAcme, ANIC_CLASS_CONTROL, 1), escalate(kAcme, kApi, ANIC_CLASS_CONTROL),
        switch_path(kAcme, ANIC_CLASS_CONTROL, ANIC_PATH_XSK), rebalance(kAcme, ANIC_CLASS_CONTROL, 3, 1)})
    guarded.rejects(session, proposal, kStart, ANIC_INVARIANT_C1);
  guarded.approves(session, weight(kAcme, ANIC_CLASS_DEFAULT, 110), kStart);
  CHECK(guarded.tuned(kAcme, ANIC_CLASS_DEFAULT).weight == 110);
}

TEST_CASE("guardian: C1: a session that was granted no class at all hears the same of control traffic") {
  Guarded guarded;
  anic_grants asked = everything();
  asked.classes = 0;
  const TestSession session(guarded.instance(), asked, kStart);
  guarded.rejects(session, weight(kAcme, ANIC_CLASS_CONTROL, 1), kStart, ANIC_INVARIANT_C1);
  guarded.rejects(session, weight(kAcme, ANIC_CLASS_RPC, 110), kStart, ANIC_INVARIANT_I3);
}

TEST_CASE(
    "guardian: C2: path B is for lanes that the policy puts there, and only spread lanes are rebalanced") {
  Guarded guarded;
  const TestSession session(guarded.instance(), everything(), kStart);
  guarded.rejects(session, switch_path(kAcme, ANIC_CLASS_RPC, ANIC_PATH_XSK), kStart, ANIC_INVARIANT_C2);
  guarded.rejects(session, rebalance(kAcme, ANIC_CLASS_RPC, 3, 1), kStart, ANIC_INVARIANT_C2);
  guarded.approves(session, switch_path(kAcme, ANIC_CLASS_DEFAULT, ANIC_PATH_KERNEL), kStart);
  CHECK(guarded.tuned(kAcme, ANIC_CLASS_DEFAULT).path == ANIC_PATH_KERNEL);
  guarded.approves(session, switch_path(kAcme, ANIC_CLASS_DEFAULT, ANIC_PATH_XSK), kStart);
  CHECK(guarded.tuned(kAcme, ANIC_CLASS_DEFAULT).path == ANIC_PATH_XSK);
  CHECK(guarded.ward(kAcme).in_force == 0);
}

TEST_CASE("guardian: I1: nobody borrows what others are guaranteed") {
  Guarded guarded(guarded_policy(R"("borrow": {"maximum": "8Gbit"})"));
  const TestSession session(guarded.instance(), everything(), kStart);
  guarded.rejects(session, borrow(kAcme, 7000 * kMbit + 1), kStart, ANIC_INVARIANT_I1);
  const anic_answer answer = guarded.approves(session, borrow(kAcme, 7000 * kMbit), kStart);
  CHECK(answer.observed == 0);
  CHECK(answer.until_ns == kStart + kSecond);
  CHECK(guarded.tuned(kAcme, ANIC_CLASS_NONE).ceiling_bps == 9000 * kMbit);
}

TEST_CASE("guardian: I1: a policy whose guarantees are more than the link carries does not come in force") {
  Guarded guarded;
  const TestSession session(guarded.instance(), everything(), kStart);
  guarded.approves(session, weight(kAcme, ANIC_CLASS_RPC, 150), kStart);
  const std::vector<std::byte> before = guarded.in_force();
  const auto install = [&](std::uint64_t minimum_bps) {
    const auto policy = policy::parse(guarded_policy(kRoomy, "", "another"), "the test's policy");
    REQUIRE(policy);
    auto tables = kern::tables_of(*policy, {});
    REQUIRE(tables);
    tables->lanes[ANIC_LANE(kGlobex, ANIC_CLASS_NONE)].rate_bps = minimum_bps;
    return kern::install(guarded.instance().maps(), guarded.instance().commit(), *tables, kStart);
  };
  CHECK(!install(9000 * kMbit + 1));
  CHECK(guarded.take().empty());
  CHECK(guarded.tuned(kAcme, ANIC_CLASS_RPC).weight == 150);
  CHECK(guarded.ward(kAcme).in_force == 1);
  CHECK(install(9000 * kMbit));
  const auto records = guarded.take();
  REQUIRE(records.size() == 2);
  CHECK(records[0].kind == ANIC_RECORD_REVERT);
  CHECK(records[1].kind == ANIC_RECORD_COMMIT);
  CHECK((guarded.in_force() != before));
}

TEST_CASE("guardian: I2: bulk is not throttled below its tenant's minimum, which may be all that it sends") {
  Guarded guarded(guarded_policy(R"("throttle_step": 100)"));
  const TestSession session(guarded.instance(), everything(), kStart);
  const anic_answer answer =
      guarded.rewrites(session, throttle(kAcme, 1), kStart, ANIC_INVARIANT_I2, 1000 * kMbit);
  CHECK(answer.observed == 2000 * kMbit);
  CHECK(guarded.tuned(kAcme, ANIC_CLASS_BULK).ceiling_bps == 1000 * kMbit);
  const anic_answer again = guarded.approves(session, throttle(kAcme, 1000 * kMbit), kStart);
  CHECK(again.observed == 1000 * kMbit);
  guarded.count_turns(ANIC_LANE(kAcme, ANIC_CLASS_BULK), 0, 0, 3000 * kMbit);
  guarded.tick(kStart);
  CHECK(guarded.rate(kAcme, ANIC_CLASS_BULK) == 1000 * kMbit);
}

TEST_CASE("guardian: I2: bulk of which the policy has less than the minimum keeps all of that") {
  Guarded guarded(R"({"version": 1, "name": "less", "link_rate": "10Gbit", "services": [],
    "guardian": {"throttle_step": 100},
    "tenants": [{"name": "acme", "prefixes": ["10.1.0.0/16"], "budget": {"minimum": "1Gbit", "bulk": "300Mbit"}},
                {"name": "globex", "prefixes": ["10.2.0.0/16"]}]})");
  const TestSession session(guarded.instance(), everything(), kStart);
  guarded.rewrites(session, throttle(kAcme, 1), kStart, ANIC_INVARIANT_I2, 300 * kMbit);
  guarded.rewrites(session, throttle(kGlobex, 1), kStart, ANIC_INVARIANT_I2, ANIC_RATE_MIN_BPS);
}

TEST_CASE("guardian: I3: a session does what it was opened for, and nothing else") {
  Guarded guarded;
  const anic_grants asked = {.tenants = 1,
                             .kinds = 1U << ANIC_CHANGE_QUEUE_WEIGHT_ADJUST | 1U << ANIC_CHANGE_PATH_SWITCH |
                                      1U << ANIC_CHANGE_FLOW_CLASS_ESCALATE |
                                      1U << ANIC_CHANGE_QUEUE_REBALANCE,
                             .classes = 1U << ANIC_CLASS_RPC | 1U << ANIC_CLASS_DEFAULT,
                             .paths = 1U << ANIC_PATH_KERNEL,
                             ._pad = 0};
  const TestSession session(guarded.instance(), asked, kStart);
  for (const anic_proposal& proposal :
       {weight(kGlobex, ANIC_CLASS_RPC, 110), throttle(kAcme, 1000 * kMbit),
        weight(kAcme, ANIC_CLASS_BULK, 60), escalate(kAcme, kApi, ANIC_CLASS_BULK),
        switch_path(kAcme, ANIC_CLASS_DEFAULT, ANIC_PATH_XSK), rebalance(kAcme, ANIC_CLASS_RETRIEVAL, 3, 1)})
    guarded.rejects(session, proposal, kStart, ANIC_INVARIANT_I3);
  guarded.approves(session, weight(kAcme, ANIC_CLASS_RPC, 110), kStart);
  guarded.approves(session, escalate(kAcme, kApi, ANIC_CLASS_DEFAULT), kStart);
  guarded.approves(session, switch_path(kAcme, ANIC_CLASS_DEFAULT, ANIC_PATH_KERNEL), kStart);
}

TEST_CASE("guardian: I3: a service is taken out of a class by who was granted that, and not only the other") {
  const std::string bulk_alone = R"("agents": [{"name": "tuner", "tenants": ["acme"], "classes": ["bulk"],
                                                 "kinds": ["flow_class_escalate"]}])";
  const std::string both = R"("agents": [{"name": "tuner", "tenants": ["acme"], "classes": ["bulk", "rpc"],
                                           "kinds": ["flow_class_escalate"]}])";
  const anic_proposal sink = escalate(kAcme, kApi, ANIC_CLASS_BULK);
  Guarded guarded(guarded_policy(kRoomy, bulk_alone));
  const TestSession agents(guarded.instance(), everything_of(1), kStart, 1);
  guarded.rejects(agents, sink, kStart, ANIC_INVARIANT_I3);
  anic_grants asked = everything_of(2);
  asked.classes = 1U << ANIC_CLASS_RPC;
  const TestSession by_hand(guarded.instance(), asked, kStart);
  guarded.rejects(by_hand, escalate(kGlobex, kOwned, ANIC_CLASS_RPC), kStart, ANIC_INVARIANT_I3);
  guarded.approves(by_hand, escalate(kGlobex, kApi, ANIC_CLASS_RPC), kStart);  // as it is
  guarded.install(guarded_policy(kRoomy, both, "another"), kStart);
  guarded.approves(agents, sink, kStart);
}

TEST_CASE("guardian: I3: a bucket goes to a CPU that the policy spreads its lane over") {
  Guarded guarded;
  const TestSession session(guarded.instance(), everything(), kStart);
  guarded.rejects(session, rebalance(kAcme, ANIC_CLASS_RETRIEVAL, 3, 2), kStart, ANIC_INVARIANT_I3);
  guarded.rejects(session, rebalance(kAcme, ANIC_CLASS_RETRIEVAL, 3, ANIC_CPUS_MAX - 1), kStart,
                  ANIC_INVARIANT_I3);
  guarded.approves(session, rebalance(kAcme, ANIC_CLASS_RETRIEVAL, 3, 1), kStart);
}

TEST_CASE("guardian: I3: an agent has what the policy in force grants it, whatever its session asked for") {
  const auto policy = [](const std::string& agents) {
    return guarded_policy(kRoomy, R"("agents": [)" + agents + "]");
  };
  const std::string other = R"({"name": "other", "tenants": ["globex"], "kinds": ["queue_weight_adjust"]})";
  const std::string wide =
      R"({"name": "tuner", "tenants": ["acme"], "kinds": ["queue_weight_adjust", "path_switch"],
          "classes": ["rpc", "default"], "paths": ["kernel"]})";
  const std::string narrow = R"({"name": "tuner", "tenants": ["acme"], "kinds": ["path_switch"]})";
  Guarded guarded(policy(wide + "," + other));
  const TestSession session(guarded.instance(), everything(), kStart, 1);
  guarded.rejects(session, weight(kGlobex, ANIC_CLASS_RPC, 110), kStart, ANIC_INVARIANT_I3);
  guarded.rejects(session, weight(kAcme, ANIC_CLASS_BULK, 60), kStart, ANIC_INVARIANT_I3);
  guarded.rejects(session, throttle(kAcme, 1000 * kMbit), kStart, ANIC_INVARIANT_I3);
  guarded.rejects(session, switch_path(kAcme, ANIC_CLASS_DEFAULT, ANIC_PATH_XSK), kStart, ANIC_INVARIANT_I3);
  guarded.approves(session, weight(kAcme, ANIC_CLASS_RPC, 110), kStart);
  guarded.install(policy(narrow + "," + other), kStart);
  guarded.rejects(session, weight(kAcme, ANIC_CLASS_RPC, 110), kStart, ANIC_INVARIANT_I3);
  (void)guarded.take();
  guarded.install(policy(other), kStart);  // the agent is no more: its session is over, without alarm
  const auto records = of_kind(guarded.take(), ANIC_RECORD_CLOSE);
  REQUIRE(records.size() == 1);
  CHECK(records[0].invariant == ANIC_INVARIANT_I3);
  CHECK(session.drain(kStart) == -ESTALE);
  CHECK(guarded.mode(kAcme) == 0);
  CHECK(try_open(guarded, 1, kStart, 7) == -ENOENT);
}

TEST_CASE("guardian: R1: one change moves a value by a step at most") {
  Guarded guarded;
  const TestSession session(guarded.instance(), everything(), kStart);
  CHECK(guarded.rewrites(session, weight(kAcme, ANIC_CLASS_RPC, 350), kStart, ANIC_INVARIANT_R1, 200)
            .observed == 100);
  CHECK(guarded.tuned(kAcme, ANIC_CLASS_RPC).weight == 200);
  guarded.approves(session, weight(kAcme, ANIC_CLASS_RPC, 300), kStart);
  guarded.rewrites(session, weight(kAcme, ANIC_CLASS_RPC, 1), kStart, ANIC_INVARIANT_R1, 200);
  guarded.rewrites(session, throttle(kAcme, 500 * kMbit), kStart, ANIC_INVARIANT_R1, 1000 * kMbit);
  guarded.rewrites(session, throttle(kAcme, 2000 * kMbit), kStart, ANIC_INVARIANT_R1, 1500 * kMbit);
  guarded.rewrites(session, borrow(kAcme, 800 * kMbit), kStart, ANIC_INVARIANT_R1, 400 * kMbit);
  CHECK(guarded.approves(session, borrow(kAcme, 800 * kMbit), kStart).observed == 400 * kMbit);
  guarded.approves(session, borrow(kAcme, 0), kStart);
  CHECK(guarded.tuned(kAcme, ANIC_CLASS_NONE).ceiling_bps == 2000 * kMbit);
}

TEST_CASE("guardian: R2: every value stays in its range") {
  Guarded guarded(guarded_policy(R"("weight": {"minimum": 50, "maximum": 150, "step": 1000},
                                    "borrow": {"maximum": "1Gbit"})"));
  const TestSession session(guarded.instance(), everything(), kStart);
  guarded.rewrites(session, weight(kAcme, ANIC_CLASS_RPC, 0xffffffff), kStart, ANIC_INVARIANT_R2, 150);
  guarded.rewrites(session, weight(kAcme, ANIC_CLASS_BULK, 0), kStart, ANIC_INVARIANT_R2, 50);
  guarded.approves(session, weight(kAcme, ANIC_CLASS_DEFAULT, 150), kStart);
  guarded.rewrites(session, throttle(kAcme, 9000 * kMbit), kStart, ANIC_INVARIANT_R2, 2000 * kMbit);
  CHECK(guarded.tuned(kAcme, ANIC_CLASS_BULK).ceiling_bps == 2000 * kMbit);
  guarded.rewrites(session, borrow(kAcme, 3000 * kMbit), kStart, ANIC_INVARIANT_R2, 1000 * kMbit);
  CHECK(guarded.tuned(kAcme, ANIC_CLASS_NONE).ceiling_bps == 3000 * kMbit);
}

TEST_CASE("guardian: R2: a policy that says nothing of borrowing lets nobody borrow") {
  Guarded guarded(guarded_policy());
  const TestSession session(guarded.instance(), everything(), kStart);
  guarded.rewrites(session, borrow(kAcme, kMbit), kStart, ANIC_INVARIANT_R2, 0);
  CHECK(guarded.tuned(kAcme, ANIC_CLASS_NONE).ceiling_bps == 2000 * kMbit);
}

TEST_CASE("guardian: R3: so many changes a second, of a tenant and of all, which time gives back") {
  Guarded guarded(guarded_policy(R"("changes": {"tenant": 2, "total": 3})"));
  const TestSession session(guarded.instance(), everything(), kStart);
  guarded.approves(session, weight(kAcme, ANIC_CLASS_RPC, 110), kStart);
  guarded.approves(session, weight(kAcme, ANIC_CLASS_RPC, 120), kStart);
  const std::uint64_t due = guarded.ward(kAcme).changes_due;
  guarded.rejects(session, weight(kAcme, ANIC_CLASS_RPC, 130), kStart, ANIC_INVARIANT_R3);
  CHECK(guarded.ward(kAcme).changes_due == due);
  guarded.approves(session, weight(kGlobex, ANIC_CLASS_RPC, 110), kStart);
  guarded.rejects(session, weight(kGlobex, ANIC_CLASS_RPC, 120), kStart, ANIC_INVARIANT_R3);
  guarded.rejects(session, weight(kAcme, ANIC_CLASS_RPC, 130), kStart + 499 * kMs, ANIC_INVARIANT_R3);
  guarded.approves(session, weight(kAcme, ANIC_CLASS_RPC, 130), kStart + 500 * kMs);
  guarded.rejects(session, weight(kAcme, ANIC_CLASS_RPC, 140), kStart + 500 * kMs, ANIC_INVARIANT_R3);
  guarded.rejects(session, weight(kGlobex, ANIC_CLASS_RPC, 120), kStart + 660 * kMs, ANIC_INVARIANT_R3);
  guarded.approves(session, weight(kGlobex, ANIC_CLASS_RPC, 120), kStart + 667 * kMs);
}

TEST_CASE("guardian: R4: so many changes of a tenant are in force at once") {
  Guarded guarded(guarded_policy(R"("actions": 2)"));
  const TestSession session(guarded.instance(), everything(), kStart);
  guarded.approves(session, weight(kAcme, ANIC_CLASS_RPC, 110), kStart);
  guarded.approves(session, weight(kAcme, ANIC_CLASS_BULK, 60), kStart);
  guarded.rejects(session, weight(kAcme, ANIC_CLASS_DEFAULT, 110), kStart, ANIC_INVARIANT_R4);
  guarded.approves(session, weight(kGlobex, ANIC_CLASS_DEFAULT, 110), kStart);
  guarded.approves(session, weight(kAcme, ANIC_CLASS_RPC, 120), kStart);      // one of the two
  guarded.approves(session, weight(kAcme, ANIC_CLASS_DEFAULT, 100), kStart);  // as the policy has it
  guarded.approves(session, weight(kAcme, ANIC_CLASS_RPC, 100), kStart);      // given back
  guarded.approves(session, weight(kAcme, ANIC_CLASS_DEFAULT, 110), kStart);
  CHECK(guarded.ward(kAcme).in_force == 2);
}

TEST_CASE("guardian: R4: a change that was given back is remembered for a while, and there is room for 16") {
  constexpr std::uint64_t kForgotten = 60 * kSecond;
  Guarded guarded(guarded_policy(R"("changes": {"tenant": 1000, "total": 1000})"));
  const TestSession session(guarded.instance(), everything(), kStart);
  const auto there_and_back = [&](std::uint16_t bucket) {
    const std::uint64_t stated = bucket % 2;  // CPUs 0 and 1 in turn
    guarded.approves(session, rebalance(kAcme, ANIC_CLASS_RETRIEVAL, bucket, 1 - stated), kStart);
    guarded.approves(session, rebalance(kAcme, ANIC_CLASS_RETRIEVAL, bucket, stated), kStart);
  };
  for (std::uint16_t bucket = 0; bucket < ANIC_ACTIONS_MAX; ++bucket) there_and_back(bucket);
  CHECK(guarded.ward(kAcme).in_force == 0);
  const anic_proposal another = weight(kAcme, ANIC_CLASS_RPC, 110);
  guarded.rejects(session, another, kStart, ANIC_INVARIANT_R4);
  CHECK(session.drain(kStart + kForgotten - 1) == 0);
  guarded.rejects(session, another, kStart + kForgotten - 1, ANIC_INVARIANT_R4);
  guarded.approves(session, another, kStart + kForgotten);
}

TEST_CASE("guardian: R5: a value turns back so often within the window, and no more") {
  Guarded guarded;
  const TestSession session(guarded.instance(), everything(), kStart);
  const auto set = [&](std::uint64_t value, std::uint64_t now_ns) {
    guarded.approves(session, weight(kAcme, ANIC_CLASS_RPC, value), now_ns);
  };
  set(150, kStart);
  set(120, kStart);  // back
  set(110, kStart);
  set(115, kStart);  // and back
  guarded.rejects(session, weight(kAcme, ANIC_CLASS_RPC, 114), kStart, ANIC_INVARIANT_R5);
  CHECK(guarded.ward(kAcme).unstable == 1);
  set(116, kStart);  // on in the same direction
  CHECK(session.drain(kStart + 9999 * kMs) == 0);
  guarded.rejects(session, weight(kAcme, ANIC_CLASS_RPC, 114), kStart + 9999 * kMs, ANIC_INVARIANT_R5);
  set(114, kStart + 10 * kSecond);
  CHECK(guarded.mode(kAcme) == 0);
}

TEST_CASE("guardian: R5: a tenant that oscillates again and again falls back, and no other does") {
  Guarded guarded;
  const TestSession session(guarded.instance(), everything(), kStart);
  guarded.approves(session, weight(kGlobex, ANIC_CLASS_RPC, 150), kStart);
  for (const std::uint64_t value : {150, 120, 150})
    guarded.approves(session, weight(kAcme, ANIC_CLASS_RPC, value), kStart);
  const anic_proposal back = weight(kAcme, ANIC_CLASS_RPC, 100);
  guarded.rejects(session, back, kStart, ANIC_INVARIANT_R5);
  guarded.rejects(session, back, kStart, ANIC_INVARIANT_R5);
  CHECK(guarded.mode(kAcme) == 0);
  CHECK(session.propose(back, kStart).invariant == ANIC_INVARIANT_R5);
  CHECK(guarded.mode(kAcme) == (ANIC_FAILSAFE_INSTABILITY | ANIC_MODE_ALARM));
  CHECK(guarded.mode(kGlobex) == 0);
  CHECK(guarded.mode(0) == 0);
  CHECK(guarded.tuned(kAcme, ANIC_CLASS_RPC).weight == 100);
  CHECK(guarded.tuned(kGlobex, ANIC_CLASS_RPC).weight == 150);
  const auto records = guarded.take();
  REQUIRE(records.size() == 2);
  CHECK(records[0].kind == ANIC_RECORD_FAILSAFE);
  CHECK(records[0].decided == ANIC_DECIDED_FAILSAFE_ENTER);
  CHECK(records[0].invariant == ANIC_INVARIANT_L2);
  CHECK(records[0].session == session.id());
  CHECK(records[1].kind == ANIC_RECORD_REVERT);
  CHECK(records[1].invariant == ANIC_INVARIANT_L4);
  guarded.rejects(session, weight(kAcme, ANIC_CLASS_RPC, 110), kStart, ANIC_INVARIANT_L4);
  guarded.approves(session, weight(kGlobex, ANIC_CLASS_RPC, 160), kStart);
}

TEST_CASE("guardian: R5: oscillations that are rare enough do not add up") {
  Guarded guarded(guarded_policy(R"("heartbeat": "60s", "oscillation": {"flips": 0},
                                    "instability": {"window": "5s", "count": 2})"));
  const TestSession session(guarded.instance(), everything(), kStart);
  guarded.approves(session, weight(kAcme, ANIC_CLASS_RPC, 150), kStart);
  const anic_proposal back = weight(kAcme, ANIC_CLASS_RPC, 100);
  guarded.rejects(session, back, kStart, ANIC_INVARIANT_R5);
  guarded.rejects(session, back, kStart + 5 * kSecond, ANIC_INVARIANT_R5);
  CHECK(guarded.mode(kAcme) == 0);
  CHECK(session.propose(back, kStart + 9 * kSecond).invariant == ANIC_INVARIANT_R5);
  CHECK(guarded.mode(kAcme) == (ANIC_FAILSAFE_INSTABILITY | ANIC_MODE_ALARM));
}

TEST_CASE("guardian: R5: what comes with an earlier time counts all the same: CPUs are not all at one time") {
  Guarded guarded(
      guarded_policy(R"("heartbeat": "60s", "oscillation": {"flips": 0}, "instability": {"count": 2})"));
  const TestSession session(guarded.instance(), everything(), kStart);
  guarded.approves(session, weight(kAcme, ANIC_CLASS_RPC, 150), kStart + kMs);
  const anic_proposal back = weight(kAcme, ANIC_CLASS_RPC, 100);
  CHECK(session.propose(back, kStart + kMs).invariant == ANIC_INVARIANT_R5);
  CHECK(session.propose(back, kStart).invariant == ANIC_INVARIANT_R5);
  CHECK(guarded.mode(kAcme) == (ANIC_FAILSAFE_INSTABILITY | ANIC_MODE_ALARM));
}

TEST_CASE("guardian: R6: borrowing and escalation end by themselves, and the tick sees to it") {
  Guarded guarded(
      guarded_policy(R"("heartbeat": "60s", "time_limit": "2s", "borrow": {"maximum": "1Gbit"})"));
  const TestSession session(guarded.instance(), everything(), kStart);
  const anic_answer unlimited = guarded.rewrites(session, escalate(kAcme, kApi, ANIC_CLASS_RETRIEVAL, 0),
                                                 kStart, ANIC_INVARIANT_R6, ANIC_CLASS_RETRIEVAL);
  CHECK(unlimited.until_ns == kStart + 2 * kSecond);
  const anic_answer longer = guarded.rewrites(session, borrow(kAcme, 500 * kMbit, 2 * kSecond + 1), kStart,
                                              ANIC_INVARIANT_R6, 500 * kMbit);
  CHECK(longer.until_ns == kStart + 2 * kSecond);
  const anic_answer shorter = guarded.approves(session, escalate(kGlobex, kApi, ANIC_CLASS_BULK), kStart);
  CHECK(shorter.until_ns == kStart + kSecond);
  guarded.tick(kStart + kSecond - 1);
  CHECK(guarded.take().empty());
  guarded.tick(kStart + kSecond);
  const auto first = guarded.take();
  REQUIRE(first.size() == 1);
  CHECK(first[0].kind == ANIC_RECORD_REVERT);
  CHECK(first[0].invariant == ANIC_INVARIANT_R6);
  CHECK(first[0].tenant == kGlobex);
  CHECK(first[0].service == kApi);
  CHECK(first[0].observed == ANIC_CLASS_BULK);
  CHECK(first[0].approved == ANIC_CLASS_RPC);
  guarded.tick(kStart + 2 * kSecond);
  CHECK(guarded.take().size() == 2);
  CHECK(guarded.tuned(kAcme, ANIC_CLASS_NONE).ceiling_bps == 2000 * kMbit);
  CHECK(guarded.ward(kAcme).in_force == 0);
  CHECK(guarded.mode(kAcme) == 0);
}

TEST_CASE("guardian: R6: a change of another kind lasts as long as it asked for, or with its session") {
  Guarded guarded(guarded_policy(R"("heartbeat": "60s", "time_limit": "1s")"));
  const TestSession session(guarded.instance(), everything(), kStart);
  anic_proposal timed = weight(kAcme, ANIC_CLASS_RPC, 150);
  timed.duration_ns = 20 * kSecond;
  CHECK(guarded.approves(session, timed, kStart).until_ns == kStart + 20 * kSecond);
  CHECK(guarded.approves(session, weight(kAcme, ANIC_CLASS_BULK, 60), kStart).until_ns == 0);
  guarded.tick(kStart + 20 * kSecond);
  CHECK(guarded.tuned(kAcme, ANIC_CLASS_RPC).weight == 100);
  CHECK(guarded.tuned(kAcme, ANIC_CLASS_BULK).weight == 60);
  CHECK(session.close(kStart + 21 * kSecond) == 0);
  CHECK(guarded.tuned(kAcme, ANIC_CLASS_BULK).weight == 50);
}
