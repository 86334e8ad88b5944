// SPDX-License-Identifier: Apache-2.0
//
// What becomes of one proposal.

#include <algorithm>
#include <cstring>
#include <span>

#include "guardian.hpp"

namespace agentnic::model {
namespace {

constexpr std::uint64_t kSecondNs = 1'000'000'000;

bool has_class(std::uint8_t kind) {
  return kind == ANIC_CHANGE_QUEUE_WEIGHT_ADJUST || kind == ANIC_CHANGE_PATH_SWITCH ||
         kind == ANIC_CHANGE_QUEUE_REBALANCE;
}

std::uint32_t target_of(const anic_proposal& proposal) {
  switch (proposal.kind) {
    case ANIC_CHANGE_BULK_PATH_THROTTLE:
      return ANIC_TARGET(proposal.kind, ANIC_CLASS_BULK, 0);
    case ANIC_CHANGE_FLOW_CLASS_ESCALATE:
      return ANIC_TARGET(proposal.kind, 0, proposal.service);
    case ANIC_CHANGE_QUEUE_REBALANCE:
      return ANIC_TARGET(proposal.kind, proposal.cls, proposal.bucket);
    default:
      return ANIC_TARGET(proposal.kind, proposal.cls, 0);
  }
}

/// The class that must have been granted; NONE: it is about none.
std::uint64_t class_asked(const anic_proposal& proposal) {
  if (proposal.kind == ANIC_CHANGE_BULK_PATH_THROTTLE) return ANIC_CLASS_BULK;
  return proposal.kind == ANIC_CHANGE_FLOW_CLASS_ESCALATE ? proposal.value : proposal.cls;
}

bool has(std::uint64_t bits, std::uint64_t bit) { return (bits >> bit & 1U) != 0; }

/// Control is never refused here: C1 says more. `before`: the class that a service is taken out of, or NONE.
bool grants(const anic_grants& granted, const anic_proposal& proposal, std::uint64_t before) {
  const std::uint64_t cls = class_asked(proposal);
  return has(granted.tenants, proposal.tenant - 1U) && has(granted.kinds, proposal.kind) &&
         (before == ANIC_CLASS_NONE || has(granted.classes, before)) &&
         (cls == ANIC_CLASS_NONE || cls == ANIC_CLASS_CONTROL || has(granted.classes, cls)) &&
         (proposal.kind != ANIC_CHANGE_PATH_SWITCH || has(granted.paths, proposal.value));
}

std::uint64_t interval_ns(std::uint32_t a_second) { return kSecondNs / a_second; }

/// GCRA, with as many at once as in a second.
bool has_passed(std::uint64_t due_ns, std::uint32_t a_second, std::uint64_t now_ns) {
  return due_ns <= now_ns + kSecondNs - interval_ns(a_second);
}

bool is_same(const anic_record& a, const anic_record& b) {
  if (a.invariant == ANIC_INVARIANT_L4 || a.invariant == ANIC_INVARIANT_A1)
    return a.tenant == b.tenant && a.invariant == b.invariant;
  return a.proposed == b.proposed && a.tenant == b.tenant && a.cls == b.cls && a.service == b.service &&
         a.bucket == b.bucket && a.requested == b.requested && a.invariant == b.invariant;
}

}  // namespace

struct Guardian::Judgement {
  anic_proposal proposal{};
  std::uint32_t tenant = 0;
  std::uint32_t target = 0;
  std::uint64_t observed = 0;
  std::uint64_t value = 0;
  std::uint64_t duration_ns = 0;
  std::uint32_t rewritten = 0;
  anic_invariant invariant = ANIC_INVARIANT_NONE;  ///< the last that rewrote it
  anic_action* row = nullptr;
  std::uint16_t flips = 0;  ///< with this one, if it is one

  void rewrite(std::uint64_t to, anic_invariant why) {
    if (to == value) return;
    value = to;
    note(why);
  }
  void note(anic_invariant why) {
    invariant = why;
    rewritten |= 1U << why;
  }
  [[nodiscard]] std::uint64_t until_ns(std::uint64_t now_ns) const {
    return duration_ns != 0 ? now_ns + duration_ns : 0;
  }
  [[nodiscard]] std::uint8_t direction() const { return value == observed ? 0 : value > observed ? 1 : 2; }
};

// --- what can be said without the value in force ---

bool Guardian::has_scope(const anic_proposal& proposal) const {
  const bool is_rebalance = proposal.kind == ANIC_CHANGE_QUEUE_REBALANCE;
  if (has_class(proposal.kind) ? proposal.cls < ANIC_CLASS_CONTROL || proposal.cls > ANIC_CLASS_BULK
                               : proposal.cls != 0)
    return false;
  if (is_rebalance ? proposal.bucket >= ANIC_STEER_BUCKETS : proposal.bucket != 0) return false;
  if (proposal.kind != ANIC_CHANGE_FLOW_CLASS_ESCALATE) return proposal.service == 0;
  const anic_service* row = service(proposal.service);
  return row != nullptr && (row->tenant == 0 || row->tenant == proposal.tenant);
}

bool Guardian::has_value(const anic_proposal& proposal) const {
  switch (proposal.kind) {
    case ANIC_CHANGE_QUEUE_WEIGHT_ADJUST:
      return proposal.value <= 0xffffffff;
    case ANIC_CHANGE_BULK_PATH_THROTTLE:
      return link_rate() != 0;
    case ANIC_CHANGE_FLOW_CLASS_ESCALATE:
      return proposal.value >= ANIC_CLASS_CONTROL && proposal.value <= ANIC_CLASS_BULK;
    case ANIC_CHANGE_PATH_SWITCH:
      return proposal.value == ANIC_PATH_KERNEL || proposal.value == ANIC_PATH_XSK;
    case ANIC_CHANGE_QUEUE_REBALANCE:
      return proposal.value < ANIC_CPUS_MAX;
    default:
      return link_rate() != 0 && stated_lane(proposal.tenant, ANIC_CLASS_NONE).ceiling_bps != 0;
  }
}

bool Guardian::is_formed(const anic_proposal& proposal) const {
  if (proposal.size != sizeof(proposal) || proposal._pad != 0 || proposal._pad2 != 0) return false;
  if (proposal.kind == ANIC_CHANGE_NONE || proposal.kind >= ANIC_CHANGE__MAX) return false;
  if (proposal.duration_ns > ANIC_DURATION_MAX_NS) return false;
  if (proposal.tenant == 0 || proposal.tenant >= ANIC_TENANTS_MAX) return false;
  if (tables_.tenants[proposal.tenant].name[0] == '\0') return false;
  return has_scope(proposal) && has_value(proposal);
}

bool Guardian::is_spread(std::uint32_t lane) const {
  return std::ranges::any_of(tables_.spread[lane].cpu, [](__u16 cpu) { return cpu != 0; });
}

bool Guardian::is_granted(const anic_session& session, const anic_proposal& proposal) const {
  const bool moves = proposal.kind == ANIC_CHANGE_FLOW_CLASS_ESCALATE;
  const std::uint64_t before = moves ? service(proposal.service)->cls : std::uint64_t{ANIC_CLASS_NONE};
  if (!grants(session.asked, proposal, before)) return false;
  if (session.agent != 0 &&
      !grants(std::span(tables_.guarding.agents)[session.agent].grants, proposal, before))
    return false;
  if (proposal.kind != ANIC_CHANGE_QUEUE_REBALANCE || proposal.cls == ANIC_CLASS_CONTROL) return true;
  const std::uint32_t lane = ANIC_LANE(proposal.tenant, proposal.cls);
  return !is_spread(lane) ||  // C2 says so
         std::ranges::find(tables_.spread[lane].cpu, proposal.value + 1) !=
             std::end(tables_.spread[lane].cpu);
}

/// What the policy has nothing for cannot be.
bool Guardian::can_be(const anic_proposal& proposal) const {
  if (proposal.kind == ANIC_CHANGE_PATH_SWITCH && proposal.value == ANIC_PATH_XSK)
    return stated_lane(proposal.tenant, proposal.cls).path == ANIC_PATH_XSK;
  if (proposal.kind == ANIC_CHANGE_QUEUE_REBALANCE)
    return is_spread(ANIC_LANE(proposal.tenant, proposal.cls));
  return true;
}

anic_invariant Guardian::judge_scope(const anic_session& session, const anic_proposal& proposal) const {
  if (!is_formed(proposal)) return ANIC_INVARIANT_FORM;
  if (!is_granted(session, proposal)) return ANIC_INVARIANT_I3;
  if (in_failsafe(proposal.tenant)) return ANIC_INVARIANT_L4;
  if (class_asked(proposal) == ANIC_CLASS_CONTROL) return ANIC_INVARIANT_C1;
  return can_be(proposal) ? ANIC_INVARIANT_NONE : ANIC_INVARIANT_C2;
}

// --- rewriting ---

void Guardian::rewrite_weight(Judgement& judgement) const {
  const std::uint64_t step = envelope().weight_step;
  const std::uint64_t least = judgement.observed - std::min(judgement.observed, step);
  judgement.rewrite(std::clamp<std::uint64_t>(judgement.value, envelope().weight_min, envelope().weight_max),
                    ANIC_INVARIANT_R2);
  judgement.rewrite(std::clamp(judgement.value, least, judgement.observed + step), ANIC_INVARIANT_R1);
}

/// A percentage is that of whole hundreds.
void Guardian::rewrite_throttle(Judgement& judgement) const {
  const std::uint64_t step = judgement.observed / 100 * envelope().throttle_percent;
  const std::uint64_t most = value_of(judgement.tenant, judgement.target,
                                      stated_lane(judgement.tenant, ANIC_CLASS_BULK).ceiling_bps);
  judgement.rewrite(std::min(judgement.value, most), ANIC_INVARIANT_R2);
  judgement.rewrite(std::clamp(judgement.value, judgement.observed - std::min(judgement.observed, step),
                               judgement.observed + step),
                    ANIC_INVARIANT_R1);
  judgement.rewrite(
      std::max(judgement.value,
               least_bulk(judgement.tenant, stated_lane(judgement.tenant, ANIC_CLASS_BULK).ceiling_bps)),
      ANIC_INVARIANT_I2);
}

void Guardian::rewrite_borrow(Judgement& judgement) const {
  judgement.rewrite(std::min<std::uint64_t>(judgement.value, envelope().borrow_max_bps), ANIC_INVARIANT_R2);
  judgement.rewrite(std::min<std::uint64_t>(judgement.value, judgement.observed + envelope().borrow_step_bps),
                    ANIC_INVARIANT_R1);
}

void Guardian::rewrite(Judgement& judgement) const {
  const std::uint8_t kind = judgement.proposal.kind;
  const bool is_limited = kind == ANIC_CHANGE_FLOW_CLASS_ESCALATE || kind == ANIC_CHANGE_QUOTA_BORROW;
  if (is_limited && (judgement.duration_ns == 0 || judgement.duration_ns > envelope().duration_ns)) {
    judgement.duration_ns = envelope().duration_ns;
    judgement.note(ANIC_INVARIANT_R6);
  }
  if (kind == ANIC_CHANGE_QUEUE_WEIGHT_ADJUST) rewrite_weight(judgement);
  if (kind == ANIC_CHANGE_BULK_PATH_THROTTLE) rewrite_throttle(judgement);
  if (kind == ANIC_CHANGE_QUOTA_BORROW) rewrite_borrow(judgement);
}

// --- what depends on what is in force ---

bool Guardian::is_too_fast(std::uint32_t tenant) const {
  return !has_passed(state_.wards.at(tenant).changes_due, envelope().changes_of_tenant, now_ns_) ||
         !has_passed(state_.guard.changes_due, envelope().changes, now_ns_);
}

/// The target's, else the first that nothing is left to remember of.
anic_action* Guardian::row_for(std::uint32_t tenant, std::uint32_t target) {
  const std::uint64_t window_ns = std::max(envelope().oscillation_ns, envelope().instability_ns);
  anic_action* usable = nullptr;
  for (std::size_t i = 0; i < ANIC_ACTIONS_MAX; ++i) {
    anic_action& row = action(tenant, i);
    if (row.target == target) return &row;
    const bool is_past =
        row.in_force == 0 && now_ns_ - row.changed_ns >= window_ns && row.blocked_ns <= now_ns_;
    if (usable == nullptr && (row.target == 0 || is_past)) usable = &row;
  }
  return usable;
}

/// I1: what is borrowed is what others are not guaranteed.
bool Guardian::leaves_minimums(const Judgement& judgement) const {
  if (judgement.proposal.kind != ANIC_CHANGE_QUOTA_BORROW) return true;
  std::uint64_t sum = stated_lane(judgement.tenant, ANIC_CLASS_NONE).ceiling_bps + judgement.value;
  for (std::uint32_t tenant = 1; tenant < ANIC_TENANTS_MAX; ++tenant) {
    if (tenant != judgement.tenant) sum += stated_lane(tenant, ANIC_CLASS_NONE).rate_bps;
  }
  return sum <= link_rate();
}

/// R5: it goes back on the change before, as others did before it in the window.
bool Guardian::oscillates(Judgement& judgement) const {
  const anic_action& row = *judgement.row;
  const std::uint64_t window_ns = envelope().oscillation_ns;
  const bool flips = row.target == judgement.target && judgement.direction() != 0 && row.direction != 0 &&
                     row.direction != judgement.direction() && now_ns_ - row.changed_ns < window_ns;
  if (!flips) return false;
  const std::uint32_t before = now_ns_ - row.flips_ns < window_ns ? row.flips : 0U;
  judgement.flips = static_cast<std::uint16_t>(before + 1);
  return before >= envelope().flips;
}

anic_invariant Guardian::judge_value(const anic_session& session, Judgement& judgement) {
  judgement.tenant = judgement.proposal.tenant;
  judgement.target = target_of(judgement.proposal);
  judgement.observed = value(judgement.tenant, judgement.target);
  judgement.value = judgement.proposal.value;
  judgement.duration_ns = judgement.proposal.duration_ns;
  if (is_too_fast(judgement.tenant)) return ANIC_INVARIANT_R3;
  judgement.row = row_for(judgement.tenant, judgement.target);
  const bool is_its_own = judgement.row != nullptr && judgement.row->target == judgement.target;
  if (is_its_own && judgement.row->blocked_ns > now_ns_) return ANIC_INVARIANT_L3;
  rewrite(judgement);
  if (!leaves_minimums(judgement)) return ANIC_INVARIANT_I1;
  if (judgement.row != nullptr && oscillates(judgement)) return ANIC_INVARIANT_R5;
  if (judgement.row == nullptr) return ANIC_INVARIANT_R4;
  const bool adds = !(is_its_own && judgement.row->in_force != 0) &&
                    raw_of(judgement.tenant, judgement.target, judgement.value) !=
                        raw(judgement.tenant, judgement.target, true);
  if (adds && state_.wards.at(judgement.tenant).in_force >= envelope().actions) return ANIC_INVARIANT_R4;
  return ring_.may_add(1 + session.pending) ? ANIC_INVARIANT_NONE : ANIC_INVARIANT_A1;
}

// --- what follows ---

void Guardian::apply(const anic_session& session, const Judgement& judgement) {
  anic_ward& ward = state_.wards.at(judgement.tenant);
  const auto take = [&](auto& due_ns, std::uint32_t a_second) {
    due_ns = std::max<std::uint64_t>(due_ns, now_ns_) + interval_ns(a_second);
  };
  take(ward.changes_due, envelope().changes_of_tenant);
  take(state_.guard.changes_due, envelope().changes);

  anic_action& row = *judgement.row;
  if (row.target != judgement.target) row = {};
  row.target = judgement.target;
  const std::uint64_t stated = raw(judgement.tenant, judgement.target, true);
  const std::uint64_t next = raw_of(judgement.tenant, judgement.target, judgement.value);
  if (judgement.direction() != 0) {
    put(judgement.tenant, judgement.target, next);
    row.changed_ns = now_ns_;
    row.direction = judgement.direction();
    if (judgement.flips != 0) row.flips = judgement.flips;
    if (judgement.flips == 1) row.flips_ns = now_ns_;
  }
  ward.in_force -= row.in_force;
  row.in_force = next != stated ? 1 : 0;
  ward.in_force += row.in_force;
  row.session = session.id;
  row.stated = value_of(judgement.tenant, judgement.target, stated);
  row.value = judgement.value;
  row.until_ns = judgement.until_ns(now_ns_);
}

/// Its record is in the chain before anything else is.
void Guardian::approve(anic_session& session, const Judgement& judgement, anic_record& record) {
  flush_rejection(session);
  apply(session, judgement);
  record.invariant = static_cast<__u8>(judgement.invariant);
  record.decided = judgement.rewritten != 0 ? ANIC_DECIDED_REWRITE : ANIC_DECIDED_APPROVE;
  record.rewritten = judgement.rewritten;
  record.approved = judgement.value;
  record.until_ns = judgement.until_ns(now_ns_);
  ring_.add(record);
  session.rejected_in_row = 0;
}

void Guardian::reject(anic_session& session, const Judgement& judgement, anic_record& record,
                      anic_invariant invariant) {
  record.invariant = static_cast<__u8>(invariant);
  record.decided = ANIC_DECIDED_REJECT;
  record.approved = judgement.observed;
  if (invariant == ANIC_INVARIANT_FORM) record.tenant = 0;  // whatever stands there
  if (session.pending != 0 && is_same(session.rejection, record)) {
    ++session.rejection.count;
  } else {
    flush_rejection(session);
    session.rejection = record;
    session.pending = 1;
  }
  if (invariant == ANIC_INVARIANT_R5 && is_once_too_often(judgement.tenant)) unstable_ = judgement.tenant;
  if (invariant == ANIC_INVARIANT_L4 || invariant == ANIC_INVARIANT_A1) return;
  if (++session.rejected_in_row >= envelope().rejections) over_ = true;
}

anic_answer Guardian::judge(anic_session& session, const Sample& sample) {
  Judgement judgement;
  if (sample.size() == sizeof(anic_proposal)) std::memcpy(&judgement.proposal, sample.data(), sample.size());
  const anic_proposal& proposal = judgement.proposal;
  anic_invariant invariant = judge_scope(session, proposal);
  if (invariant == ANIC_INVARIANT_NONE) invariant = judge_value(session, judgement);

  anic_record record = new_record(ANIC_RECORD_DECISION);
  record.session = session.id;
  record.tenant = proposal.tenant;
  record.cls = proposal.cls;
  record.service = proposal.service;
  record.bucket = proposal.bucket;
  record.proposed = proposal.kind;
  record.observed = judgement.observed;
  record.requested = proposal.value;
  std::ranges::copy(proposal.reason, record.reason);
  if (invariant == ANIC_INVARIANT_NONE) {
    approve(session, judgement, record);
  } else {
    reject(session, judgement, record, invariant);
  }
  ++std::span(session.decided)[record.decided];
  return {.cookie = proposal.cookie,
          .decided = record.decided,
          .invariant = record.invariant,
          ._pad = {},
          .rewritten = record.rewritten,
          .observed = record.observed,
          .requested = record.requested,
          .approved = record.approved,
          .until_ns = record.until_ns,
          .seq = record.seq};
}

}  // namespace agentnic::model
