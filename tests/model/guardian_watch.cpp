// SPDX-License-Identifier: Apache-2.0
//
// What the guardian does by itself, at each tick.

#include <algorithm>
#include <span>

#include "guardian.hpp"

namespace agentnic::model {
namespace {

constexpr std::uint32_t kPatience = 10;  ///< intervals

bool is_over(std::uint64_t until_ns, std::uint64_t now_ns) {
  return until_ns != 0 && static_cast<std::int64_t>(now_ns - until_ns) >= 0;
}

}  // namespace

/// One look at all SLOs.
struct Guardian::Round {
  anic_record first{};  ///< of the first that missed it
  bool is_said = false;
  std::uint32_t missed = 0;
  bool again = false;          ///< one of them had missed it the last time too
  std::uint64_t since_ns = 0;  ///< all of them were well
};

void Guardian::tick_session(anic_session& session) {
  if (session.id == 0) return;
  flush_rejection(session);
  if (session.heard_ns == 0) {
    if (now_ns_ - session.opened_ns > ANIC_OPENING_NS)
      end_session(session, ANIC_FAILSAFE_NONE, ANIC_INVARIANT_L1);
  } else if (now_ns_ - session.heard_ns > envelope().heartbeat_ns) {
    end_session(session, ANIC_FAILSAFE_HEARTBEAT, ANIC_INVARIANT_L1);
  }
}

void Guardian::tick_tenant(std::uint32_t tenant) {
  for (std::size_t i = 0; i < ANIC_ACTIONS_MAX; ++i) {
    anic_action& row = action(tenant, i);
    if (row.in_force != 0 && is_over(row.until_ns, now_ns_)) give_back(tenant, row, ANIC_INVARIANT_R6);
  }
  if (ANIC_MODE_FAILSAFE(state_.modes.at(tenant)) != 0 && is_over(state_.dumps.at(tenant).until_ns, now_ns_))
    leave_failsafe(tenant, ANIC_INVARIANT_L4, false);
  const anic_ward& ward = state_.wards.at(tenant);
  if (ward.failed >= envelope().instabilities && now_ns_ - ward.failed_ns < envelope().instability_ns)
    unstable_ = tenant;
}

void Guardian::tick(std::uint64_t now_ns, const Wanted& wanted) {
  begin(now_ns);
  ring_.flush(lost_record());
  for (anic_session& session : state_.sessions) tick_session(session);
  for (std::uint32_t tenant = 0; tenant < ANIC_TENANTS_MAX; ++tenant) tick_tenant(tenant);
  if (unstable_ != 0) {
    state_.wards.at(unstable_).failed = 0;
    unstable_ = 0;
    fail(0, ANIC_FAILSAFE_REPEATED, ANIC_INVARIANT_L2, nullptr);
  }
  if (now_ns - state_.guard.slo_ns >= envelope().slo_interval_ns) {
    state_.guard.slo_ns = now_ns;
    watch_slos(wanted);
  }
  if (unstable_ != 0) fail(unstable_, ANIC_FAILSAFE_SLO, ANIC_INVARIANT_L3, nullptr);
  ++state_.guard.ticks;
  state_.guard.last_tick_ns = now_ns;
}

anic_record Guardian::lost_record() const {
  anic_record record = new_record(ANIC_RECORD_LOST);
  record.invariant = ANIC_INVARIANT_A2;
  return record;
}

// --- SLOs ---

const anic_lane& Guardian::lane_in_force(std::uint32_t tenant, std::uint32_t cls) const {
  if (!in_failsafe(tenant)) return state_.tuned.at(ANIC_LANE(tenant, cls));
  return tables_.lanes[policy::lane_index(ANIC_PROFILE_FALLBACK, tenant, cls)];
}

void Guardian::watch_lane(std::uint32_t tenant, std::uint32_t cls, Round& round) {
  if (lane_in_force(tenant, cls).slo_ns == 0) return;
  const std::uint32_t id = ANIC_LANE(tenant, cls);
  anic_watch& watch = std::span(state_.wards.at(tenant).watches)[cls];
  const std::uint64_t samples = turns_.at(id).samples - watch.samples;
  const std::uint64_t over = turns_.at(id).over_slo - watch.over_slo;
  const bool enough = samples >= envelope().slo_samples;
  if (!enough && ++watch.waited < kPatience) return;
  watch.samples = turns_.at(id).samples;
  watch.over_slo = turns_.at(id).over_slo;
  watch.waited = 0;
  if (!enough) return;
  if (over * 100 <= envelope().slo_percent * samples) {
    watch.good_ns = now_ns_;
    watch.missed = 0;
    return;
  }
  if (round.missed++ == 0) {
    round.first = new_record(ANIC_RECORD_MISSED);
    round.first.tenant = static_cast<__u8>(tenant);
    round.first.cls = static_cast<__u8>(cls);
    round.first.invariant = ANIC_INVARIANT_L3;
    round.first.observed = samples;
    round.first.approved = over;
    round.first.requested = lane_in_force(tenant, cls).slo_ns;
    round.since_ns = watch.good_ns;
  }
  round.since_ns = std::min<std::uint64_t>(round.since_ns, watch.good_ns);
  round.again = ++watch.missed > 1 || round.again;
}

/// The tenant's minimum, as far as bulk may have so much at all. `ceiling_bps`: of bulk; 0: none.
std::uint64_t Guardian::least_bulk(std::uint32_t tenant, std::uint64_t ceiling_bps) const {
  const std::uint64_t minimum = stated_lane(tenant, ANIC_CLASS_NONE).rate_bps;
  const std::uint64_t least = std::max<std::uint64_t>(minimum, ANIC_RATE_MIN_BPS);
  return ceiling_bps == 0 ? least : std::min(least, ceiling_bps);
}

std::uint64_t Guardian::most_bulk(std::uint32_t tenant) const {
  const std::uint64_t own = lane_in_force(tenant, ANIC_CLASS_BULK).ceiling_bps;
  return own != 0 ? own : stated_ceiling(tenant);
}

/// Before the first of what is done for it.
void Guardian::say_missed(Round& round) {
  if (!round.is_said) ring_.keep(round.first);
  round.is_said = true;
}

/// 0: no limit. `missed_lane`: of this tenant, or 0.
void Guardian::limit_bulk(std::uint32_t tenant, std::uint64_t bps, std::uint32_t missed_lane) {
  anic_ward& ward = state_.wards.at(tenant);
  anic_record record = new_record(ANIC_RECORD_PROTECT);
  record.tenant = static_cast<__u8>(tenant);
  record.cls = ANIC_CLASS_BULK;
  record.invariant = ANIC_INVARIANT_L3;
  record.observed = ward.bulk_bps;
  record.requested = missed_lane;
  record.approved = bps;
  ward.bulk_bps = bps;
  ring_.keep(record);
}

/// Half of what bulk may have, or of what it asks for if that is less, where there is so much to take.
/// Without a rate of the link nothing is limited, nor is what a tenant asked for that is there no more.
bool Guardian::lower_bulk(std::uint32_t tenant, std::uint64_t wanted_bps, Round& round) {
  if (lane_in_force(tenant, ANIC_CLASS_NONE).weight == 0 || link_rate() == 0) return false;
  const std::uint64_t limit = state_.wards.at(tenant).bulk_bps;
  const std::uint64_t had = std::min(limit != 0 ? limit : most_bulk(tenant), wanted_bps);
  const std::uint64_t next =
      std::max(had / 2, least_bulk(tenant, lane_in_force(tenant, ANIC_CLASS_BULK).ceiling_bps));
  if (next >= had) return false;
  say_missed(round);
  limit_bulk(tenant, next, tenant == round.first.tenant ? ANIC_LANE(tenant, round.first.cls) : 0);
  return true;
}

/// An eighth more.
void Guardian::ease_bulk(std::uint32_t tenant) {
  const std::uint64_t limit = state_.wards.at(tenant).bulk_bps;
  if (limit == 0) return;
  const std::uint64_t next = limit + std::max<std::uint64_t>(limit / 8, ANIC_RATE_MIN_BPS);
  limit_bulk(tenant, next >= most_bulk(tenant) ? 0 : next, 0);
}

/// The latest change since all was well.
void Guardian::roll_back(Round& round) {
  anic_action* latest = nullptr;
  for (anic_action& row : state_.actions) {
    if (row.in_force != 0 && row.changed_ns > (latest != nullptr ? latest->changed_ns : round.since_ns))
      latest = &row;
  }
  if (latest == nullptr) return;
  say_missed(round);
  const auto tenant = static_cast<std::uint32_t>((latest - state_.actions.data()) / ANIC_ACTIONS_MAX);
  give_back(tenant, *latest, ANIC_INVARIANT_L3);
  latest->blocked_ns = now_ns_ + envelope().cool_down_ns;
  if (is_once_too_often(tenant)) unstable_ = tenant;
}

void Guardian::watch_slos(const Wanted& wanted) {
  Round round;
  for (std::uint32_t tenant = 1; tenant < ANIC_TENANTS_MAX; ++tenant) {
    for (std::uint32_t cls = ANIC_CLASS_DEFAULT; cls < ANIC_CLASS__MAX; ++cls) watch_lane(tenant, cls, round);
  }
  if (round.missed == 0) {
    if (now_ns_ - state_.guard.missed_ns < kPatience * envelope().slo_interval_ns) return;
    for (std::uint32_t tenant = 0; tenant < ANIC_TENANTS_MAX; ++tenant) ease_bulk(tenant);
    return;
  }
  state_.guard.missed_ns = now_ns_;
  bool lowered = false;
  for (std::uint32_t tenant = 0; tenant < ANIC_TENANTS_MAX && envelope().protects != 0; ++tenant)
    lowered = lower_bulk(tenant, wanted.at(tenant), round) || lowered;
  if (!lowered || round.again) roll_back(round);
}

}  // namespace agentnic::model
