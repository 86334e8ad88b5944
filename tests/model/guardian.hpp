// SPDX-License-Identifier: Apache-2.0
#pragma once

/// The reference model of the guardian: what it decides, changes, gives back and records, as plainly as
/// docs/guardian.md, abi/guardian.h and abi/audit.h say it and without a line of bpf/. It takes the policy's
/// tables, as they are compiled. Time is what the caller says.

#include <array>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "abi/guardian.h"
#include "audit_ring.hpp"
#include "policy/compile.hpp"

namespace agentnic::model {

/// Bytes that an agent wrote into its session's ring.
using Sample = std::vector<std::byte>;

/// What bulk of each tenant asked for lately, bit/s, in the direction where that is more.
using Wanted = std::array<std::uint64_t, ANIC_TENANTS_MAX>;

/// What maps hold, in their own shapes.
struct GuardianState {
  std::uint32_t generation = 0;
  std::array<std::uint32_t, ANIC_MODES> modes{};
  std::array<anic_ward, ANIC_TENANTS_MAX> wards{};
  std::array<anic_action, ANIC_ACTION_ROWS> actions{};
  std::array<anic_session, ANIC_SESSIONS_MAX> sessions{};
  std::array<anic_dump, ANIC_TENANTS_MAX> dumps{};  ///< without what was wanted
  std::array<anic_lane, ANIC_LANES_MAX> tuned{};
  std::array<anic_spread, ANIC_LANES_MAX> steered{};
  std::map<std::pair<std::uint16_t, std::uint16_t>, std::uint32_t> escalated;  ///< by tenant and service
  anic_guard guard{};                                                          ///< without the lock
};

class Guardian final {
 public:
  // The programs: what they answer.
  int commit(const policy::Tables& tables, std::uint64_t now_ns);
  int open(const anic_order& order);
  int close(const anic_order& order);
  int failsafe(const anic_order& order);
  int note(const anic_order& order);
  void end(std::uint64_t now_ns);
  void tick(std::uint64_t now_ns, const Wanted& wanted);

  /// What is drained is taken out of `ring`, and its answers are added.
  int drain(std::uint32_t slot, std::uint64_t id, std::deque<Sample>& ring, std::uint64_t now_ns,
            std::vector<anic_answer>& answers);

  /// What turnaround has counted in a lane.
  void count_turns(std::uint32_t lane, std::uint64_t samples, std::uint64_t over_slo);

  std::vector<anic_record> take(std::size_t most) { return ring_.take(most); }

  [[nodiscard]] const GuardianState& state() const { return state_; }
  [[nodiscard]] const AuditRing& ring() const { return ring_; }
  [[nodiscard]] const policy::Tables& tables() const { return tables_; }

  // For who chooses proposals that are near a bound.
  [[nodiscard]] const anic_envelope& envelope() const { return tables_.guarding.envelope; }
  [[nodiscard]] std::uint64_t value(std::uint32_t tenant, std::uint32_t target) const;
  /// All times at which something may happen.
  [[nodiscard]] std::vector<std::uint64_t> moments() const;

 private:
  struct Judgement;
  struct Turns {
    std::uint64_t samples = 0;
    std::uint64_t over_slo = 0;
  };
  struct Round;

  // guardian.cpp
  void begin(std::uint64_t now_ns, const char* reason = nullptr);
  [[nodiscard]] anic_record new_record(anic_record_kind kind) const;
  [[nodiscard]] const anic_lane& stated_lane(std::uint32_t tenant, std::uint32_t cls) const;
  [[nodiscard]] const anic_service* service(std::uint32_t id) const;
  [[nodiscard]] std::uint64_t link_rate() const;
  [[nodiscard]] std::uint64_t stated_ceiling(std::uint32_t tenant) const;
  [[nodiscard]] std::uint64_t raw(std::uint32_t tenant, std::uint32_t target, bool stated) const;
  [[nodiscard]] std::uint64_t value_of(std::uint32_t tenant, std::uint32_t target, std::uint64_t raw) const;
  [[nodiscard]] std::uint64_t raw_of(std::uint32_t tenant, std::uint32_t target, std::uint64_t value) const;
  void put(std::uint32_t tenant, std::uint32_t target, std::uint64_t raw);
  void escalate(std::uint32_t tenant, std::uint32_t service, std::uint32_t cls);
  anic_action& action(std::uint32_t tenant, std::size_t i);
  void give_back(std::uint32_t tenant, anic_action& action, anic_invariant invariant);
  void give_all_back(std::uint32_t tenant, std::uint64_t session, anic_invariant invariant);
  [[nodiscard]] bool in_failsafe(std::uint32_t tenant) const;
  void enter_failsafe(std::uint32_t tenant, anic_failsafe kind, anic_invariant invariant,
                      const anic_session* session);
  void write_dump(std::uint32_t tenant, anic_failsafe kind, anic_invariant invariant,
                  const anic_session* session);
  void leave_failsafe(std::uint32_t tenant, anic_invariant invariant, bool acknowledged);
  void record_failsafe(anic_decided decided, std::uint32_t tenant, anic_failsafe kind,
                       anic_invariant invariant, std::uint64_t session, std::uint64_t until_ns);
  void fail(std::uint32_t tenant, anic_failsafe kind, anic_invariant invariant, const anic_session* session);
  int acknowledge(std::uint32_t tenant);
  bool is_once_too_often(std::uint32_t tenant);
  void end_session(anic_session& session, anic_failsafe kind, anic_invariant invariant);
  void flush_rejection(anic_session& session);
  void begin_ward(std::uint32_t tenant, bool fresh, bool gone);
  /// Whose id was another's, or nobody's: bit id - 1.
  [[nodiscard]] std::uint64_t fresh_tenants(const policy::Tables& next) const;
  void change_tenancy(std::uint32_t tenant, bool fresh);
  void end_tenancy(std::uint32_t tenant);
  void recheck_sessions(const policy::Tables& next, std::uint64_t fresh);

  // guardian_judge.cpp
  anic_answer judge(anic_session& session, const Sample& sample);
  [[nodiscard]] bool is_formed(const anic_proposal& proposal) const;
  [[nodiscard]] bool has_scope(const anic_proposal& proposal) const;
  [[nodiscard]] bool has_value(const anic_proposal& proposal) const;
  [[nodiscard]] bool is_granted(const anic_session& session, const anic_proposal& proposal) const;
  [[nodiscard]] bool can_be(const anic_proposal& proposal) const;
  [[nodiscard]] bool is_spread(std::uint32_t lane) const;
  [[nodiscard]] bool is_too_fast(std::uint32_t tenant) const;
  anic_action* row_for(std::uint32_t tenant, std::uint32_t target);
  [[nodiscard]] anic_invariant judge_scope(const anic_session& session, const anic_proposal& proposal) const;
  anic_invariant judge_value(const anic_session& session, Judgement& judgement);
  void rewrite(Judgement& judgement) const;
  void rewrite_weight(Judgement& judgement) const;
  void rewrite_throttle(Judgement& judgement) const;
  void rewrite_borrow(Judgement& judgement) const;
  [[nodiscard]] bool leaves_minimums(const Judgement& judgement) const;
  [[nodiscard]] bool oscillates(Judgement& judgement) const;
  void apply(const anic_session& session, const Judgement& judgement);
  void approve(anic_session& session, const Judgement& judgement, anic_record& record);
  void reject(anic_session& session, const Judgement& judgement, anic_record& record,
              anic_invariant invariant);

  // guardian_watch.cpp
  [[nodiscard]] anic_record lost_record() const;
  void tick_session(anic_session& session);
  void tick_tenant(std::uint32_t tenant);
  void watch_slos(const Wanted& wanted);
  void watch_lane(std::uint32_t tenant, std::uint32_t cls, Round& round);
  [[nodiscard]] std::uint64_t least_bulk(std::uint32_t tenant, std::uint64_t ceiling_bps) const;
  [[nodiscard]] std::uint64_t most_bulk(std::uint32_t tenant) const;
  [[nodiscard]] const anic_lane& lane_in_force(std::uint32_t tenant, std::uint32_t cls) const;
  void limit_bulk(std::uint32_t tenant, std::uint64_t bps, std::uint32_t missed_lane);
  void say_missed(Round& round);
  bool lower_bulk(std::uint32_t tenant, std::uint64_t wanted_bps, Round& round);
  void ease_bulk(std::uint32_t tenant);
  void roll_back(Round& round);

  GuardianState state_;
  policy::Tables tables_;
  AuditRing ring_;
  std::array<Turns, ANIC_LANES_MAX> turns_{};

  // of the program that runs
  std::uint64_t now_ns_ = 0;
  std::uint32_t generation_ = 0;
  std::array<char, ANIC_TEXT_LEN> reason_{};
  std::uint32_t unstable_ = 0;  ///< the tenant that is to go into fail-safe
  bool over_ = false;           ///< L2: the session that is drained
};

}  // namespace agentnic::model
