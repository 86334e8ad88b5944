// SPDX-License-Identifier: Apache-2.0
#include "guardian.hpp"

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <span>

namespace agentnic::model {
namespace {

constexpr std::uint64_t kSecondNs = 1'000'000'000;
constexpr std::uint32_t kStays = 0xffffffff;  ///< the CPU of a bucket that goes to none

bool is_latched(std::uint32_t kind) {
  return kind == ANIC_FAILSAFE_OPERATOR || kind == ANIC_FAILSAFE_REPEATED || kind == ANIC_FAILSAFE_STUCK;
}

}  // namespace

/// What every program begins with.
void Guardian::begin(std::uint64_t now_ns, const char* reason) {
  now_ns_ = now_ns;
  generation_ = state_.generation;
  reason_ = {};
  if (reason != nullptr) std::copy_n(reason, reason_.size(), reason_.begin());
  unstable_ = 0;
  over_ = false;
}

anic_record Guardian::new_record(anic_record_kind kind) const {
  anic_record record{};
  record.kind = static_cast<__u8>(kind);
  record.time_ns = now_ns_;
  record.generation = generation_;
  record.count = 1;
  std::memcpy(record.digest, tables_.policy.digest, sizeof(record.digest));
  return record;
}

// --- what changes stand in ---

const anic_lane& Guardian::stated_lane(std::uint32_t tenant, std::uint32_t cls) const {
  return tables_.lanes[policy::lane_index(ANIC_PROFILE_POLICY, tenant, cls)];
}

const anic_service* Guardian::service(std::uint32_t id) const {
  const bool named = id < tables_.services.size() && tables_.services[id].name[0] != '\0';
  return named ? &tables_.services[id] : nullptr;
}

std::uint64_t Guardian::link_rate() const { return stated_lane(0, ANIC_CLASS_NONE).ceiling_bps; }

/// What bulk may have where its own ceiling is not stated.
std::uint64_t Guardian::stated_ceiling(std::uint32_t tenant) const {
  const std::uint64_t own = stated_lane(tenant, ANIC_CLASS_NONE).ceiling_bps;
  return own != 0 ? own : link_rate();
}

/// As it stands in its lane, table or map.
std::uint64_t Guardian::raw(std::uint32_t tenant, std::uint32_t target, bool stated) const {
  const std::uint32_t cls = ANIC_TARGET_CLASS(target);
  const std::uint32_t part = ANIC_TARGET_PART(target);
  const std::uint32_t id = ANIC_LANE(tenant, cls);
  const anic_lane& lane = stated ? stated_lane(tenant, cls) : state_.tuned.at(id);
  switch (ANIC_TARGET_KIND(target)) {
    case ANIC_CHANGE_QUEUE_WEIGHT_ADJUST:
      return lane.weight;
    case ANIC_CHANGE_BULK_PATH_THROTTLE:
    case ANIC_CHANGE_QUOTA_BORROW:
      return lane.ceiling_bps;
    case ANIC_CHANGE_PATH_SWITCH:
      return lane.path;
    case ANIC_CHANGE_QUEUE_REBALANCE:
      return std::span((stated ? tables_.spread[id] : state_.steered.at(id)).cpu)[part];
    default: {
      const auto found = state_.escalated.find({tenant, part});
      return stated || found == state_.escalated.end() ? 0 : found->second;
    }
  }
}

/// As a proposal asks for it.
std::uint64_t Guardian::value_of(std::uint32_t tenant, std::uint32_t target, std::uint64_t raw) const {
  switch (ANIC_TARGET_KIND(target)) {
    case ANIC_CHANGE_BULK_PATH_THROTTLE:
      return raw != 0 ? raw : stated_ceiling(tenant);
    case ANIC_CHANGE_QUOTA_BORROW:
      return raw - stated_lane(tenant, ANIC_CLASS_NONE).ceiling_bps;
    case ANIC_CHANGE_QUEUE_REBALANCE:
      return raw != 0 ? raw - 1 : kStays;
    case ANIC_CHANGE_FLOW_CLASS_ESCALATE: {
      const anic_service* row = service(ANIC_TARGET_PART(target));
      return raw != 0 ? raw : row != nullptr ? row->cls : 0;
    }
    default:
      return raw;
  }
}

std::uint64_t Guardian::raw_of(std::uint32_t tenant, std::uint32_t target, std::uint64_t value) const {
  const std::uint64_t stated = raw(tenant, target, true);
  if (value == value_of(tenant, target, stated)) return stated;
  switch (ANIC_TARGET_KIND(target)) {
    case ANIC_CHANGE_QUOTA_BORROW:
      return stated + value;
    case ANIC_CHANGE_QUEUE_REBALANCE:
      return value + 1;
    default:
      return value;
  }
}

std::uint64_t Guardian::value(std::uint32_t tenant, std::uint32_t target) const {
  return value_of(tenant, target, raw(tenant, target, false));
}

/// Each time voids the flow cache: the generation changes, its slot does not.
void Guardian::escalate(std::uint32_t tenant, std::uint32_t service, std::uint32_t cls) {
  const std::pair key(static_cast<std::uint16_t>(tenant), static_cast<std::uint16_t>(service));
  if (cls == 0) {
    state_.escalated.erase(key);
  } else {
    state_.escalated[key] = cls;
  }
  state_.guard.escalations = state_.escalated.size();
  state_.generation += ANIC_SLOTS;
}

void Guardian::put(std::uint32_t tenant, std::uint32_t target, std::uint64_t raw) {
  const std::uint32_t part = ANIC_TARGET_PART(target);
  const std::uint32_t id = ANIC_LANE(tenant, ANIC_TARGET_CLASS(target));
  switch (ANIC_TARGET_KIND(target)) {
    case ANIC_CHANGE_QUEUE_WEIGHT_ADJUST:
      state_.tuned.at(id).weight = static_cast<__u16>(raw);
      break;
    case ANIC_CHANGE_BULK_PATH_THROTTLE:
    case ANIC_CHANGE_QUOTA_BORROW:
      state_.tuned.at(id).ceiling_bps = raw;
      break;
    case ANIC_CHANGE_PATH_SWITCH:
      state_.tuned.at(id).path = static_cast<__u8>(raw);
      break;
    case ANIC_CHANGE_QUEUE_REBALANCE:
      std::span(state_.steered.at(id).cpu)[part] = static_cast<__u16>(raw);
      break;
    default:
      escalate(tenant, part, static_cast<std::uint32_t>(raw));
  }
}

anic_action& Guardian::action(std::uint32_t tenant, std::size_t i) {
  return state_.actions.at(tenant * ANIC_ACTIONS_MAX + i);
}

void Guardian::give_back(std::uint32_t tenant, anic_action& action, anic_invariant invariant) {
  put(tenant, action.target, raw(tenant, action.target, true));
  action.in_force = 0;
  if (invariant == ANIC_INVARIANT_R6 && action.direction != 0) {
    action.direction = action.direction == 1 ? 2 : 1;
    action.changed_ns = now_ns_;
  }
  --state_.wards.at(tenant).in_force;
  anic_record record = new_record(ANIC_RECORD_REVERT);
  record.tenant = static_cast<__u8>(tenant);
  record.proposed = static_cast<__u8>(ANIC_TARGET_KIND(action.target));
  record.cls = static_cast<__u8>(ANIC_TARGET_CLASS(action.target));
  const auto part = static_cast<__u16>(ANIC_TARGET_PART(action.target));
  (record.proposed == ANIC_CHANGE_FLOW_CLASS_ESCALATE ? record.service : record.bucket) = part;
  record.session = action.session;
  record.invariant = static_cast<__u8>(invariant);
  record.observed = action.value;
  record.approved = action.stated;
  ring_.keep(record);
}

/// `session`: of this one alone, or 0: of all.
void Guardian::give_all_back(std::uint32_t tenant, std::uint64_t session, anic_invariant invariant) {
  for (std::size_t i = 0; i < ANIC_ACTIONS_MAX; ++i) {
    anic_action& row = action(tenant, i);
    if (row.in_force != 0 && (session == 0 || row.session == session)) give_back(tenant, row, invariant);
  }
}

// --- fail-safe ---

bool Guardian::in_failsafe(std::uint32_t tenant) const {
  return ANIC_MODE_FAILSAFE(state_.modes[0] | state_.modes.at(tenant)) != 0;
}

void Guardian::record_failsafe(anic_decided decided, std::uint32_t tenant, anic_failsafe kind,
                               anic_invariant invariant, std::uint64_t session, std::uint64_t until_ns) {
  anic_record record = new_record(ANIC_RECORD_FAILSAFE);
  record.decided = static_cast<__u8>(decided);
  record.tenant = static_cast<__u8>(tenant);
  record.failsafe = static_cast<__u8>(kind);
  record.invariant = static_cast<__u8>(invariant);
  record.session = session;
  record.until_ns = until_ns;
  std::ranges::copy(reason_, record.reason);
  ring_.keep(record);
}

void Guardian::write_dump(std::uint32_t tenant, anic_failsafe kind, anic_invariant invariant,
                          const anic_session* session) {
  anic_dump& dump = state_.dumps.at(tenant);
  dump = {};
  dump.at_ns = now_ns_;
  dump.generation = generation_;
  dump.kind = static_cast<__u8>(kind);
  dump.invariant = static_cast<__u8>(invariant);
  if (session != nullptr) {
    dump.session = session->id;
    dump.heard_ns = session->heard_ns;
    dump.rejected_in_row = session->rejected_in_row;
  }
  std::ranges::copy(reason_, dump.reason);
  for (std::uint32_t cls = 0; cls < ANIC_CLASS__MAX; ++cls) {
    const std::uint32_t id = ANIC_LANE(tenant, cls);
    std::span(dump.lanes)[cls] = state_.tuned.at(id);
    std::span(dump.samples)[cls] = turns_.at(id).samples;
    std::span(dump.over_slo)[cls] = turns_.at(id).over_slo;
  }
  for (std::size_t i = 0; i < ANIC_ACTIONS_MAX; ++i) std::span(dump.actions)[i] = action(tenant, i);
}

/// A latched kind takes over one that ends by itself; else what is in force stays, and its cool-down begins
/// anew. Each time is recorded, and an alarm.
void Guardian::enter_failsafe(std::uint32_t tenant, anic_failsafe kind, anic_invariant invariant,
                              const anic_session* session) {
  std::uint32_t& word = state_.modes.at(tenant);
  anic_dump& dump = state_.dumps.at(tenant);
  const std::uint32_t before = ANIC_MODE_FAILSAFE(word);
  const std::uint64_t until_ns = is_latched(kind) ? 0 : now_ns_ + envelope().cool_down_ns;
  const bool takes_over = before == 0 || (before != kind && is_latched(kind));
  if (takes_over) {
    write_dump(tenant, kind, invariant, session);
    word = kind;
  }
  word |= ANIC_MODE_ALARM;
  dump.until_ns = is_latched(before) ? 0 : until_ns;
  record_failsafe(ANIC_DECIDED_FAILSAFE_ENTER, tenant, kind, invariant, session != nullptr ? session->id : 0,
                  dump.until_ns);
  if (takes_over && tenant != 0 && kind != ANIC_FAILSAFE_OPERATOR) {
    anic_ward& ward = state_.wards.at(tenant);
    if (ward.failed == 0 || now_ns_ - ward.failed_ns >= envelope().instability_ns) {
      ward.failed = 0;
      ward.failed_ns = now_ns_;
    }
    ++ward.failed;
  }
}

void Guardian::leave_failsafe(std::uint32_t tenant, anic_invariant invariant, bool acknowledged) {
  std::uint32_t& word = state_.modes.at(tenant);
  const auto kind = static_cast<anic_failsafe>(ANIC_MODE_FAILSAFE(word));
  word = acknowledged ? 0 : word & ANIC_MODE_ALARM;
  record_failsafe(ANIC_DECIDED_FAILSAFE_EXIT, tenant, kind, invariant, 0, 0);
}

/// With what follows: all changes are given back, of the instance those of all tenants.
void Guardian::fail(std::uint32_t tenant, anic_failsafe kind, anic_invariant invariant,
                    const anic_session* session) {
  enter_failsafe(tenant, kind, invariant, session);
  for (std::uint32_t id = 0; id < ANIC_TENANTS_MAX; ++id) {
    if (tenant == 0 || id == tenant) give_all_back(id, 0, ANIC_INVARIANT_L4);
  }
}

/// L2, L3: so many within the window.
bool Guardian::is_once_too_often(std::uint32_t tenant) {
  anic_ward& ward = state_.wards.at(tenant);
  if (ward.unstable == 0 || now_ns_ - ward.unstable_ns >= envelope().instability_ns) {
    ward.unstable = 0;
    ward.unstable_ns = now_ns_;
  }
  if (++ward.unstable < envelope().instabilities) return false;
  ward.unstable = 0;
  return true;
}

int Guardian::acknowledge(std::uint32_t tenant) {
  std::uint32_t& word = state_.modes.at(tenant);
  if ((word & ANIC_MODE_ALARM) == 0) return -EALREADY;
  word = ANIC_MODE_FAILSAFE(word);
  anic_record record = new_record(ANIC_RECORD_ACK);
  record.tenant = static_cast<__u8>(tenant);
  record.failsafe = static_cast<__u8>(word);
  std::ranges::copy(reason_, record.reason);
  ring_.keep(record);
  return 0;
}

int Guardian::failsafe(const anic_order& order) {
  begin(order.now_ns, order.reason);
  const auto tenant = static_cast<std::uint32_t>(order.what >> 32U);
  if (tenant >= ANIC_TENANTS_MAX) return -EINVAL;
  const std::uint32_t in_force = ANIC_MODE_FAILSAFE(state_.modes.at(tenant));
  switch (static_cast<std::uint32_t>(order.what)) {
    case ANIC_ORDER_ENTER:
      if (in_force == ANIC_FAILSAFE_OPERATOR) return -EALREADY;
      fail(tenant, ANIC_FAILSAFE_OPERATOR, ANIC_INVARIANT_NONE, nullptr);
      return 0;
    case ANIC_ORDER_EXIT:
      if (in_force == 0) return acknowledge(tenant);
      leave_failsafe(tenant, ANIC_INVARIANT_NONE, true);
      return 0;
    case ANIC_ORDER_ACK:
      return acknowledge(tenant);
    default:
      return -EINVAL;
  }
}

// --- notes ---

/// A record of READ or EXPORT, of what is requested: not out of the reserve.
int Guardian::note(const anic_order& order) {
  begin(order.now_ns);
  const auto kind = static_cast<std::uint32_t>(order.what);
  const auto tenant = static_cast<std::uint32_t>(order.what >> 32U);
  const bool of_somebody = tenant > 0 && tenant < ANIC_TENANTS_MAX;
  if (!(kind == ANIC_RECORD_READ && tenant == 0) &&
      !((kind == ANIC_RECORD_READ || kind == ANIC_RECORD_EXPORT) && of_somebody))
    return -EINVAL;
  if (of_somebody && !ring_.in_tenancy(tenant)) return -ENOENT;
  if (!ring_.may_add(1)) return -ENOSPC;
  anic_record record = new_record(static_cast<anic_record_kind>(kind));
  record.tenant = static_cast<__u8>(tenant);
  record.observed = order.wall_ns;
  record.requested = order.session;
  std::ranges::copy(order.reason, record.reason);
  ring_.add(record);
  return 0;
}

// --- sessions ---

int Guardian::open(const anic_order& order) {
  begin(order.now_ns);
  const auto agent = static_cast<std::uint32_t>(order.paths_agent >> 32U);
  if (agent >= ANIC_AGENTS_MAX) return -ENOENT;
  if (agent != 0 && std::span(tables_.guarding.agents)[agent].name[0] == '\0') return -ENOENT;
  if (order.tenants == 0) return -EINVAL;
  std::uint64_t tenants = order.tenants;
  if (agent != 0) tenants &= std::span(tables_.guarding.agents)[agent].grants.tenants;
  const bool taken = std::ranges::any_of(state_.sessions, [&](const anic_session& session) {
    return session.id != 0 && (session.asked.tenants & tenants) != 0;
  });
  if (taken) return -EEXIST;
  const auto session = std::ranges::find(state_.sessions, 0, &anic_session::id);
  if (session == state_.sessions.end()) return -ENOSPC;
  *session = {};
  session->id = ++state_.guard.sessions;
  session->asked = {.tenants = tenants,
                    .kinds = static_cast<__u32>(order.kinds_classes),
                    .classes = static_cast<__u32>(order.kinds_classes >> 32U),
                    .paths = static_cast<__u32>(order.paths_agent),
                    ._pad = 0};
  session->opened_ns = now_ns_;
  session->agent = agent;
  anic_record record = new_record(ANIC_RECORD_OPEN);
  record.session = session->id;
  record.service = static_cast<__u16>(agent);
  record.requested = tenants;
  std::ranges::copy(order.reason, record.reason);
  ring_.keep(record);
  return static_cast<int>(session - state_.sessions.begin());
}

int Guardian::close(const anic_order& order) {
  begin(order.now_ns);
  const auto session = std::ranges::find(state_.sessions, order.session, &anic_session::id);
  if (order.session == 0 || session == state_.sessions.end()) return -ESRCH;
  end_session(*session, ANIC_FAILSAFE_NONE, ANIC_INVARIANT_NONE);
  return 0;
}

/// What was counted together, into the chain if it has room.
void Guardian::flush_rejection(anic_session& session) {
  if (session.pending == 0) return;
  if (!ring_.may_add(1) || !ring_.add(session.rejection)) ring_.lose(session.rejection);
  session.pending = 0;
}

/// `kind`: what its tenants go into, or NONE: then they give back what was this session's.
void Guardian::end_session(anic_session& session, anic_failsafe kind, anic_invariant invariant) {
  flush_rejection(session);
  for (std::uint32_t tenant = 1; tenant < ANIC_TENANTS_MAX; ++tenant) {
    if ((session.asked.tenants >> (tenant - 1) & 1U) == 0) continue;
    if (kind == ANIC_FAILSAFE_NONE) {
      give_all_back(tenant, session.id, invariant);
    } else {
      fail(tenant, kind, invariant, &session);
    }
  }
  anic_record record = new_record(ANIC_RECORD_CLOSE);
  record.session = session.id;
  record.service = static_cast<__u16>(session.agent);
  record.requested = session.asked.tenants;
  record.invariant = static_cast<__u8>(invariant);
  record.failsafe = static_cast<__u8>(kind);
  ring_.keep(record);
  session.id = 0;
}

int Guardian::drain(std::uint32_t slot, std::uint64_t id, std::deque<Sample>& ring, std::uint64_t now_ns,
                    std::vector<anic_answer>& answers) {
  anic_session& session = state_.sessions.at(slot);
  if (session.id != id) return -ESTALE;
  begin(now_ns);
  session.heard_ns = now_ns;
  int drained = 0;
  while (!ring.empty() && drained < ANIC_DRAIN_MAX && !over_ && unstable_ == 0) {
    answers.push_back(judge(session, ring.front()));
    ring.pop_front();
    ++session.answered;
    ++drained;
  }
  if (over_) {
    end_session(session, ANIC_FAILSAFE_REJECTIONS, ANIC_INVARIANT_L2);
  } else if (unstable_ != 0) {
    fail(unstable_, ANIC_FAILSAFE_INSTABILITY, ANIC_INVARIANT_L2, &session);
  }
  return drained;
}

// --- policies ---

/// Names that are new begin with empty counters.
std::uint64_t Guardian::fresh_tenants(const policy::Tables& next) const {
  std::uint64_t fresh = 0;
  for (std::uint32_t tenant = 1; tenant < ANIC_TENANTS_MAX; ++tenant) {
    const std::string name = policy::name_in(next.tenants[tenant].name);
    if (!name.empty() && (tables_.tenants.empty() || policy::name_in(tables_.tenants[tenant].name) != name))
      fresh |= std::uint64_t{1} << (tenant - 1);
  }
  return fresh;
}

void Guardian::recheck_sessions(const policy::Tables& next, std::uint64_t fresh) {
  for (anic_session& session : state_.sessions) {
    if (session.id == 0) continue;
    flush_rejection(session);
    session.asked.tenants &= ~fresh;
    if (session.heard_ns != 0) session.heard_ns = now_ns_;
    const auto name = [&](const policy::Tables& tables) {
      return policy::name_in(std::span(tables.guarding.agents)[session.agent].name);
    };
    if (session.agent == 0) continue;
    if (name(tables_) != name(next)) {
      end_session(session, ANIC_FAILSAFE_NONE, ANIC_INVARIANT_I3);
    } else {
      session.asked.tenants &= std::span(next.guarding.agents)[session.agent].grants.tenants;
    }
  }
}

void Guardian::begin_ward(std::uint32_t tenant, bool fresh, bool gone) {
  anic_ward& ward = state_.wards.at(tenant);
  if (ward.bulk_bps != 0) limit_bulk(tenant, 0, 0);
  if (fresh)
    std::fill_n(turns_.begin() + ANIC_LANE(tenant, 0), static_cast<std::size_t>(ANIC_CLASS__MAX), Turns{});
  if (fresh || gone) {
    ward = {};
    if (ANIC_MODE_FAILSAFE(state_.modes.at(tenant)) != 0) leave_failsafe(tenant, ANIC_INVARIANT_NONE, true);
    state_.modes.at(tenant) = 0;
  }
  for (std::uint32_t cls = 0; cls < ANIC_CLASS__MAX; ++cls) {
    const Turns& turns = turns_.at(ANIC_LANE(tenant, cls));
    std::span(ward.watches)[cls] = {
        .samples = turns.samples, .over_slo = turns.over_slo, .good_ns = now_ns_, .missed = 0, .waited = 0};
  }
}

int Guardian::commit(const policy::Tables& tables, std::uint64_t now_ns) {
  std::uint64_t minimums = 0;
  for (std::uint32_t tenant = 0; tenant < ANIC_TENANTS_MAX; ++tenant)
    minimums += tables.lanes[policy::lane_index(ANIC_PROFILE_POLICY, tenant, ANIC_CLASS_NONE)].rate_bps;
  if (minimums > tables.lanes[0].ceiling_bps) return -ERANGE;
  begin(now_ns);
  for (std::uint32_t tenant = 0; tenant < ANIC_TENANTS_MAX; ++tenant)
    give_all_back(tenant, 0, ANIC_INVARIANT_NONE);
  const std::uint64_t fresh = fresh_tenants(tables);
  recheck_sessions(tables, fresh);
  state_.actions = {};
  for (std::uint32_t tenant = 0; tenant < ANIC_TENANTS_MAX; ++tenant)
    begin_ward(tenant, tenant != 0 && (fresh >> (tenant - 1) & 1) != 0,
               tenant != 0 && tables.tenants[tenant].name[0] == '\0');
  tables_ = tables;
  std::copy_n(tables.lanes.begin(), state_.tuned.size(), state_.tuned.begin());
  std::ranges::copy(tables.spread, state_.steered.begin());
  generation_ = ++state_.generation;
  if (ring_.chain().seq == 0 && ring_.chain().waiting == 0) ring_.keep(new_record(ANIC_RECORD_ATTACH));
  ring_.keep(new_record(ANIC_RECORD_COMMIT));
  for (std::uint32_t tenant = 1; tenant < ANIC_TENANTS_MAX; ++tenant)
    change_tenancy(tenant, (fresh >> (tenant - 1) & 1) != 0);
  return 0;
}

/// The id may be somebody else's from now on (fresh), or nobody's.
void Guardian::change_tenancy(std::uint32_t tenant, bool fresh) {
  const std::string name = policy::name_in(tables_.tenants[tenant].name);
  if (ring_.in_tenancy(tenant) && (fresh || name.empty())) end_tenancy(tenant);
  if (ring_.in_tenancy(tenant) || name.empty()) return;
  anic_record record = new_record(ANIC_RECORD_COMMIT);
  record.tenant = static_cast<__u8>(tenant);
  std::ranges::copy(name, record.reason);
  ring_.begin_tenancy(tenant, record);
}

void Guardian::end_tenancy(std::uint32_t tenant) {
  anic_record record = new_record(ANIC_RECORD_DETACH);
  record.tenant = static_cast<__u8>(tenant);
  ring_.end_tenancy(tenant, record);
}

void Guardian::end(std::uint64_t now_ns) {
  begin(now_ns);
  for (anic_session& session : state_.sessions) {
    if (session.id != 0) end_session(session, ANIC_FAILSAFE_NONE, ANIC_INVARIANT_NONE);
  }
  ring_.flush(lost_record());
  for (std::uint32_t tenant = 1; tenant < ANIC_TENANTS_MAX; ++tenant) {
    if (ring_.in_tenancy(tenant)) end_tenancy(tenant);
  }
  anic_record record = new_record(ANIC_RECORD_DETACH);
  record.invariant = ANIC_INVARIANT_A3;
  ring_.end(lost_record(), record);
}

void Guardian::count_turns(std::uint32_t lane, std::uint64_t samples, std::uint64_t over_slo) {
  turns_.at(lane).samples += samples;
  turns_.at(lane).over_slo += over_slo;
}

std::vector<std::uint64_t> Guardian::moments() const {
  std::vector<std::uint64_t> times;
  const anic_envelope& envelope = this->envelope();
  for (const anic_session& session : state_.sessions) {
    if (session.id == 0) continue;
    times.push_back(session.heard_ns != 0 ? session.heard_ns + envelope.heartbeat_ns + 1
                                          : session.opened_ns + ANIC_OPENING_NS + 1);
  }
  for (const anic_action& action : state_.actions) {
    if (action.target == 0) continue;
    times.insert(times.end(),
                 {action.until_ns, action.blocked_ns, action.changed_ns + envelope.oscillation_ns,
                  action.changed_ns + envelope.instability_ns, action.flips_ns + envelope.oscillation_ns});
  }
  for (const anic_ward& ward : state_.wards) {
    times.insert(times.end(),
                 {ward.changes_due - kSecondNs + kSecondNs / envelope.changes_of_tenant,
                  ward.unstable_ns + envelope.instability_ns, ward.failed_ns + envelope.instability_ns});
  }
  for (const anic_dump& dump : state_.dumps) times.push_back(dump.until_ns);
  times.push_back(state_.guard.changes_due - kSecondNs + kSecondNs / envelope.changes);
  times.push_back(state_.guard.slo_ns + envelope.slo_interval_ns);
  times.push_back(state_.guard.missed_ns + 10 * envelope.slo_interval_ns);
  return times;
}

}  // namespace agentnic::model
