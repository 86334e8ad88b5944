// SPDX-License-Identifier: Apache-2.0
//
// A proposer that means harm. What it may not reach is read from the maps and held against the policy, not
// against what the guardian answers.

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <array>
#include <catch2/catch_test_macros.hpp>
#include <cstdlib>
#include <map>
#include <memory>
#include <random>
#include <set>
#include <utility>
#include <vector>

#include <bpf/bpf.h>

#include "audit/chain.hpp"
#include "instance.hpp"
#include "policy/order.hpp"
#include "policy/parse.hpp"
#include "session.hpp"

using namespace agentnic;

namespace {

constexpr std::uint64_t kStart = 1'000'000'000'000;
constexpr std::uint64_t kMs = 1'000'000;
constexpr int kProposals = 20'000;
constexpr std::uint32_t kSeed = 6;

// The envelope, as the policy below states it.
constexpr std::uint64_t kLink = 4'000'000'000;
constexpr std::uint64_t kBorrowMax = 500'000'000;
constexpr std::uint64_t kBorrowStep = 200'000'000;
constexpr int kWeightMin = 40;
constexpr int kWeightMax = 300;
constexpr int kWeightStep = 30;
constexpr std::uint64_t kThrottlePercent = 30;
constexpr int kActions = 5;
constexpr double kChangesOfTenant = 40;
constexpr double kChanges = 60;

constexpr std::uint32_t kGoverned = 2;  // tenants 1 and 2
constexpr std::uint32_t kTenants = 4;   // those, one that nobody granted, and one that is not there
constexpr std::uint32_t kServices = 2;
constexpr std::uint32_t kLanes = (kTenants + 1) * ANIC_CLASS__MAX;

constexpr const char* kPolicy = R"({"version": 1, "name": "harm", "link_rate": "4Gbit",
  "classes": {"rpc": {"floor": 50, "weight": 100}, "bulk": {"weight": 50, "floor": 10}},
  "tenants": [{"name": "acme", "prefixes": ["10.1.0.0/16"], "budget": {"minimum": "1Gbit", "ceiling": "1.6Gbit"}},
              {"name": "globex", "prefixes": ["10.2.0.0/16"], "budget": {"minimum": "1Gbit", "ceiling": "1.8Gbit"}},
              {"name": "victim", "prefixes": ["10.3.0.0/16"], "budget": {"minimum": "1Gbit"}}],
  "services": [{"name": "api", "protocol": "udp", "port": 7000, "class": "rpc", "path": "kernel"},
               {"name": "log", "protocol": "udp", "port": 7001, "class": "bulk", "path": "kernel"}],
  "guardian": {"oscillation": {"window": "200ms", "flips": 1}, "instability": {"window": "1s", "count": 14},
    "cool_down": "300ms", "rejections": 400, "time_limit": "2s",
    "weight": {"minimum": 40, "maximum": 300, "step": 30}, "throttle_step": 30,
    "borrow": {"maximum": "500Mbit", "step": "200Mbit"}, "changes": {"tenant": 40, "total": 60}, "actions": 5},
  "agents": [{"name": "vandal", "tenants": ["acme", "globex"], "kinds": ["queue_weight_adjust", "bulk_path_throttle",
    "flow_class_escalate", "path_switch", "queue_rebalance", "quota_borrow"]}]})";

/// What can be changed, as it stands in the maps.
struct Standing {
  std::array<anic_lane, kLanes> lanes{};
  std::map<std::pair<std::uint32_t, std::uint32_t>, std::uint32_t> escalated;  // tenant, service: class
  anic_modes modes{};
};

std::uint32_t in_force(const Instance& instance) {
  anic_state state{};
  REQUIRE(instance.maps().read("anic_state", 0, state).has_value());
  return static_cast<std::uint32_t>(state.word);
}

std::array<anic_lane, kLanes> lanes_of(const Instance& instance, anic_profile profile) {
  const std::uint32_t first =
      (in_force(instance) % ANIC_SLOTS * ANIC_PROFILE__MAX + profile) * ANIC_LANES_MAX;
  std::array<anic_lane, kLanes> lanes{};
  for (std::uint32_t i = 0; i < kLanes; ++i)
    REQUIRE(instance.maps().read("anic_lanes", first + i, lanes[i]).has_value());
  return lanes;
}

Standing look(const Instance& instance) {
  Standing standing;
  standing.lanes = lanes_of(instance, ANIC_PROFILE_TUNED);
  for (std::uint16_t tenant = 1; tenant <= kTenants; ++tenant) {
    for (std::uint16_t service = 1; service <= kServices; ++service) {
      const anic_escalation key{.tenant = tenant, .service = service};
      std::uint32_t cls = 0;
      if (bpf_map_lookup_elem(instance.maps().fd("anic_escalated"), &key, &cls) == 0)
        standing.escalated[{tenant, service}] = cls;
    }
  }
  REQUIRE(instance.maps().read("anic_modes", 0, standing.modes).has_value());
  return standing;
}

/// A value that can be changed: a tenant, enum anic_change, and a class or a service.
struct Target {
  std::uint32_t tenant;
  std::uint32_t kind;
  std::uint32_t part;
  auto operator<=>(const Target&) const = default;
};
using Values = std::map<Target, std::uint64_t>;

/// What stands, as values that one would propose.
Values values_of(const Standing& standing, const std::array<anic_lane, kLanes>& stated) {
  constexpr std::array<std::uint32_t, kServices + 1> kClassOf = {0, ANIC_CLASS_RPC, ANIC_CLASS_BULK};
  Values values;
  for (std::uint32_t tenant = 1; tenant <= kGoverned; ++tenant) {
    const std::uint64_t ceiling = stated[ANIC_LANE(tenant, ANIC_CLASS_NONE)].ceiling_bps;
    const std::uint64_t bulk = standing.lanes[ANIC_LANE(tenant, ANIC_CLASS_BULK)].ceiling_bps;
    for (std::uint32_t cls = ANIC_CLASS_DEFAULT; cls <= ANIC_CLASS_BULK; ++cls) {
      const anic_lane& lane = standing.lanes[ANIC_LANE(tenant, cls)];
      values[{tenant, ANIC_CHANGE_QUEUE_WEIGHT_ADJUST, cls}] = lane.weight;
      values[{tenant, ANIC_CHANGE_PATH_SWITCH, cls}] = lane.path;
    }
    values[{tenant, ANIC_CHANGE_BULK_PATH_THROTTLE, 0}] = bulk != 0 ? bulk : ceiling;
    values[{tenant, ANIC_CHANGE_QUOTA_BORROW, 0}] =
        standing.lanes[ANIC_LANE(tenant, ANIC_CLASS_NONE)].ceiling_bps - ceiling;
    for (std::uint32_t service = 1; service <= kServices; ++service) {
      const auto found = standing.escalated.find({tenant, service});
      values[{tenant, ANIC_CHANGE_FLOW_CLASS_ESCALATE, service}] =
          found != standing.escalated.end() ? found->second : kClassOf[service];
    }
  }
  return values;
}

Target target_of(const anic_record& record) {
  switch (record.proposed) {
    case ANIC_CHANGE_FLOW_CLASS_ESCALATE:
      return {record.tenant, record.proposed, record.service};
    case ANIC_CHANGE_QUEUE_WEIGHT_ADJUST:
    case ANIC_CHANGE_PATH_SWITCH:
      return {record.tenant, record.proposed, record.cls};
    default:
      return {record.tenant, record.proposed, 0};
  }
}

/// So many at once, and so many a second after that.
class Meter final {
 public:
  explicit Meter(double a_second) : a_second_(a_second) {}
  void count(std::uint64_t now_ns) {
    level_ = std::max(0.0, level_ - static_cast<double>(now_ns - at_ns_) * 1e-9 * a_second_) + 1;
    at_ns_ = now_ns;
    if (level_ > a_second_ + 1e-6) FAIL("more than " << a_second_ << " changes a second: " << level_);
  }

 private:
  double a_second_;
  double level_ = 0;
  std::uint64_t at_ns_ = kStart;
};

/// Watches an instance from outside.
class Watcher final {
 public:
  explicit Watcher(const Instance& instance) : instance_(instance), records_(instance) {
    anic_chain chain{};
    REQUIRE(instance.maps().read("anic_chain", 0, chain).has_value());
    chain_.key = {chain.key[0], chain.key[1]};
  }

  /// Once the policy is in force.
  void begin() {
    stated_ = lanes_of(instance_, ANIC_PROFILE_POLICY);
    before_ = look(instance_);
    recorded_ = values_of(before_, stated_);
    take();
  }

  /// After a drain or a tick. `changes`: so many may have been made, each by a step.
  void check(std::uint64_t now_ns, std::size_t changes) {
    const Standing standing = look(instance_);
    const std::size_t decisions = take();
    check_others(standing);
    for (std::uint32_t tenant = 1; tenant <= kGoverned; ++tenant) check_tenant(standing, tenant);
    const Values was = values_of(before_, stated_), is = values_of(standing, stated_);
    for (const auto& [target, value] : is) {
      if (value != recorded_[target])
        FAIL(fmt::format("tenant {} kind {} of {}: {} in force, {} recorded", target.tenant, target.kind,
                         target.part, value, recorded_[target]));
      if (value == was.at(target)) continue;
      ++changed_[target.kind];
      if (given_back_.contains(target)) continue;  // at once, however far
      check_step(target, was.at(target), value, changes);
      ++seen_;
      of_tenant_[target.tenant].count(now_ns);
      of_all_.count(now_ns);
    }
    REQUIRE(decisions <= changes);
    before_ = standing;
  }

  /// After a tick, which shares the link out: nobody has more than stands in his lanes, nor the victim less.
  void check_rates() const {
    for (const std::uint32_t way : {ANIC_DIRECTION_IN, ANIC_DIRECTION_OUT}) {
      for (std::uint32_t id = ANIC_LANE(1, 0); id < ANIC_LANE(kTenants, 0); ++id) {
        const std::uint32_t cls = id % ANIC_CLASS__MAX;
        if (cls == ANIC_CLASS_CONTROL || in_failsafe(ANIC_LANE_TENANT(id))) continue;
        anic_bucket bucket{};
        REQUIRE(instance_.maps().read("anic_buckets", way * ANIC_LANES_MAX + id, bucket).has_value());
        const anic_lane& lane = before_.lanes[id];
        if (lane.ceiling_bps != 0) REQUIRE(bucket.rate_bps <= lane.ceiling_bps);
        if (cls != ANIC_CLASS_NONE) REQUIRE(bucket.rate_bps >= stated_[id].rate_bps);
      }
    }
  }

  /// How often a value changed, by enum anic_change.
  [[nodiscard]] const std::array<int, ANIC_CHANGE__MAX>& changed() const { return changed_; }
  [[nodiscard]] int seen() const { return seen_; }
  [[nodiscard]] std::uint64_t decided() const { return decided_; }
  [[nodiscard]] int failsafes() const { return failsafes_; }

 private:
  [[nodiscard]] bool in_failsafe(std::uint32_t tenant) const {
    return ANIC_MODE_FAILSAFE(before_.modes.words[tenant] | before_.modes.words[0]) != 0;
  }

  /// Takes the records, each the next one of the chain, and what they say is in force. How many approvals.
  std::size_t take() {
    const std::vector<anic_record> taken = records_.take();
    if (const auto bad = audit::first_bad(chain_, taken)) FAIL("the chain is broken at record " << *bad);
    std::size_t approvals = 0;
    given_back_.clear();
    for (const anic_record& record : taken) {
      REQUIRE(record.kind != ANIC_RECORD_LOST);
      if (record.kind == ANIC_RECORD_DECISION) decided_ += record.count;
      if (record.kind == ANIC_RECORD_FAILSAFE && record.decided == ANIC_DECIDED_FAILSAFE_ENTER) ++failsafes_;
      const bool approved = record.kind == ANIC_RECORD_DECISION && record.decided != ANIC_DECIDED_REJECT;
      if (!approved && record.kind != ANIC_RECORD_REVERT) continue;
      const Target target = target_of(record);
      REQUIRE(recorded_.contains(target));
      REQUIRE(record.observed == recorded_[target]);
      recorded_[target] = record.approved;
      if (approved) check_step(target, record.observed, record.approved, 1);
      if (!approved) given_back_.insert(target);
      approvals += approved ? 1 : 0;
    }
    return approvals;
  }

  /// What no proposal may reach: other tenants, the link, and control traffic.
  void check_others(const Standing& standing) {
    for (std::uint32_t id = 0; id < kLanes; ++id) {
      const std::uint32_t tenant = ANIC_LANE_TENANT(id);
      const bool governed = tenant >= 1 && tenant <= kGoverned && id % ANIC_CLASS__MAX != ANIC_CLASS_CONTROL;
      if (!governed && !(standing.lanes[id] == stated_[id])) FAIL("lane " << id << " was changed");
    }
    for (const auto& [key, cls] : standing.escalated) {
      REQUIRE(key.first <= kGoverned);
      REQUIRE(cls > ANIC_CLASS_CONTROL);
      REQUIRE(cls < ANIC_CLASS__MAX);
    }
  }

  void check_tenant(const Standing& standing, std::uint32_t tenant) {
    const anic_lane& whole = standing.lanes[ANIC_LANE(tenant, ANIC_CLASS_NONE)];
    const anic_lane& whole_stated = stated_[ANIC_LANE(tenant, ANIC_CLASS_NONE)];
    std::uint64_t others = 0;
    int actions = 0;
    for (std::uint32_t other = 1; other <= kTenants; ++other)
      others += other == tenant ? 0 : stated_[ANIC_LANE(other, ANIC_CLASS_NONE)].rate_bps;
    REQUIRE(whole.ceiling_bps >= whole_stated.ceiling_bps);
    REQUIRE(whole.ceiling_bps <= whole_stated.ceiling_bps + kBorrowMax);
    REQUIRE(whole.ceiling_bps + others <= kLink);
    for (std::uint32_t cls = ANIC_CLASS_NONE; cls < ANIC_CLASS__MAX; ++cls) {
      const anic_lane& lane = standing.lanes[ANIC_LANE(tenant, cls)];
      const anic_lane& stated = stated_[ANIC_LANE(tenant, cls)];
      check_lane(lane, stated, cls, whole_stated.ceiling_bps);
      actions += (lane.weight != stated.weight) + (lane.ceiling_bps != stated.ceiling_bps) +
                 (lane.path != stated.path);
    }
    for (const auto& [key, cls] : standing.escalated) actions += key.first == tenant ? 1 : 0;
    REQUIRE(actions <= kActions);
    if (ANIC_MODE_FAILSAFE(standing.modes.words[tenant] | standing.modes.words[0]) != 0)
      REQUIRE(actions == 0);
  }

  static void check_lane(const anic_lane& lane, const anic_lane& stated, std::uint32_t cls,
                         std::uint64_t ceiling_bps) {
    anic_lane same = lane;  // but for what may be changed
    same.weight = stated.weight;
    same.ceiling_bps = stated.ceiling_bps;
    REQUIRE(same == stated);
    if (cls == ANIC_CLASS_NONE) {
      REQUIRE(lane.weight == stated.weight);
      return;
    }
    if (lane.weight != stated.weight) {
      REQUIRE(lane.weight >= kWeightMin);
      REQUIRE(lane.weight <= kWeightMax);
    }
    if (lane.ceiling_bps == stated.ceiling_bps) return;
    REQUIRE(cls == ANIC_CLASS_BULK);
    REQUIRE(lane.ceiling_bps >= std::max<std::uint64_t>(stated.rate_bps, ANIC_RATE_MIN_BPS));
    REQUIRE(lane.ceiling_bps <= ceiling_bps);
  }

  static void check_step(const Target& target, std::uint64_t was, std::uint64_t is, std::size_t changes) {
    const std::uint64_t moved = was > is ? was - is : is - was;
    if (target.kind == ANIC_CHANGE_QUEUE_WEIGHT_ADJUST) REQUIRE(moved <= kWeightStep * changes);
    if (target.kind == ANIC_CHANGE_BULK_PATH_THROTTLE && changes == 1)
      REQUIRE(moved <= was * kThrottlePercent / 100);
    if (target.kind == ANIC_CHANGE_QUOTA_BORROW && is > was) REQUIRE(moved <= kBorrowStep * changes);
  }

  const Instance& instance_;
  Records records_;
  audit::Chain chain_;
  std::array<anic_lane, kLanes> stated_{};
  Standing before_;
  Values recorded_;
  std::set<Target> given_back_;  // since the last check
  std::array<Meter, kGoverned + 1> of_tenant_ = {Meter(kChangesOfTenant), Meter(kChangesOfTenant),
                                                 Meter(kChangesOfTenant)};
  Meter of_all_{kChanges};
  std::array<int, ANIC_CHANGE__MAX> changed_{};
  int seen_ = 0;
  int failsafes_ = 0;
  std::uint64_t decided_ = 0;
};

/// Grabs what it can, starves others, goes to and fro, asks for the impossible.
class Vandal final {
 public:
  explicit Vandal(std::uint32_t seed) : engine_(seed) {}

  anic_proposal next() {
    anic_proposal proposal{};
    proposal.tenant = static_cast<__u8>(1 + below(kGoverned));
    const std::uint32_t whim = below(16);
    if (whim < 5) {
      proposal.kind = ANIC_CHANGE_QUEUE_WEIGHT_ADJUST;
      proposal.cls = static_cast<__u8>(2 + below(4));
      proposal.value = proposal.cls == ANIC_CLASS_RPC || below(8) == 0 ? 1000 : 1;
      proposal.duration_ns = below(2) * below(100) * kMs;
    } else if (whim < 8) {
      proposal.kind = ANIC_CHANGE_BULK_PATH_THROTTLE;
      proposal.value = below(3) == 0 ? kLink : 0;
      proposal.duration_ns = below(2) * below(100) * kMs;
    } else if (whim < 11) {
      proposal.kind = ANIC_CHANGE_QUOTA_BORROW;
      proposal.value = below(3) == 0 ? 0 : ~0ULL / (1 + below(2));
      proposal.duration_ns = below(100) * kMs;
    } else if (whim < 13) {
      proposal.kind = ANIC_CHANGE_FLOW_CLASS_ESCALATE;
      proposal.service = static_cast<__u16>(1 + below(kServices));
      proposal.value = ANIC_CLASS_CONTROL + below(5);
      proposal.duration_ns = below(2) == 0 ? ~0ULL : below(100) * kMs;
    } else if (whim < 14) {
      proposal.kind = ANIC_CHANGE_PATH_SWITCH;
      proposal.cls = static_cast<__u8>(1 + below(5));
      proposal.value = ANIC_PATH_XSK;
    } else {
      malicious(proposal);
    }
    return proposal;
  }

  std::uint32_t below(std::uint32_t end) { return static_cast<std::uint32_t>(engine_() % end); }

 private:
  /// About others, about control traffic, or about nothing that there is.
  void malicious(anic_proposal& proposal) {
    proposal.kind = static_cast<__u8>(below(9));
    proposal.tenant = static_cast<__u8>(below(3) == 0 ? below(256) : 1 + below(kTenants));
    proposal.cls = static_cast<__u8>(below(7));
    proposal.service = static_cast<__u16>(below(4));
    proposal.bucket = static_cast<__u16>(below(2) * below(200));
    proposal.value = below(2) == 0 ? below(1001) : ~0ULL;
  }

  std::mt19937 engine_;
};

}  // namespace

TEST_CASE("guardian: a harmful proposer breaks no invariant") {
  Instance instance;
  Watcher watcher(instance);
  auto parsed = policy::parse(kPolicy, "the test's policy");
  if (!parsed) FAIL(parsed.error().text());
  instance.install(*parsed, {}, kStart);
  watcher.begin();

  const char* const seed = std::getenv("AGENTNIC_SEED");
  Vandal vandal(seed != nullptr ? static_cast<std::uint32_t>(std::strtoul(seed, nullptr, 10)) : kSeed);
  std::unique_ptr<TestSession> session;
  std::uint64_t now = kStart, answered = 0, ticked = kStart;
  while (answered < kProposals) {
    if (!session) session = std::make_unique<TestSession>(instance, everything(), now, 1);
    // One at a time, so that a step can be told from two; or as many as a drain takes.
    const std::uint32_t batch = vandal.below(40) == 0 ? ANIC_DRAIN_MAX : 1;
    for (std::uint32_t i = 0; i < batch; ++i) {
      anic_proposal proposal = vandal.next();
      proposal.size = sizeof(proposal);
      REQUIRE(session->write(&proposal, vandal.below(100) == 0 ? 40 : sizeof(proposal)));
    }
    const int drained = session->drain(now);
    REQUIRE(drained >= 0);
    answered += static_cast<std::uint64_t>(drained);
    watcher.check(
        now, static_cast<std::size_t>(drained));  // the rest of a batch, if it led to fail-safe, comes next
    if (session->row().id != session->id()) session.reset();  // that was too much
    now += vandal.below(8) * kMs;
    for (; ticked + 10 * kMs <= now; ticked += 10 * kMs) {
      instance.tick(ticked + 10 * kMs);
      watcher.check(ticked + 10 * kMs, 0);
      watcher.check_rates();
    }
  }
  if (session) REQUIRE(session->close(now) == 0);
  watcher.check(now, 0);

  INFO(fmt::format("{} changes seen, {} fail-safes, by kind {}", watcher.seen(), watcher.failsafes(),
                   fmt::join(watcher.changed(), " ")));
  CHECK(watcher.decided() == answered);  // each is in the chain, alone or counted with its like
  CHECK(watcher.seen() > 500);
  CHECK(watcher.failsafes() > 0);
  for (const anic_change kind : {ANIC_CHANGE_QUEUE_WEIGHT_ADJUST, ANIC_CHANGE_BULK_PATH_THROTTLE,
                                 ANIC_CHANGE_FLOW_CLASS_ESCALATE, ANIC_CHANGE_QUOTA_BORROW})
    CHECK(watcher.changed()[kind] > 20);
}
