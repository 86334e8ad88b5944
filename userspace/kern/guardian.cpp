// SPDX-License-Identifier: Apache-2.0
#include "kern/guardian.hpp"

#include <bpf/bpf.h>
#include <fmt/format.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "base/clock.hpp"
#include "kern/audit_ring.hpp"
#include "kern/generation.hpp"
#include "kern/order.hpp"

namespace agentnic::kern {
namespace {

/// An order of now.
anic_order make_order(const std::string& reason) {
  anic_order order{};
  order.wall_ns = wall_ns();
  std::memcpy(order.reason, reason.data(), std::min(reason.size(), sizeof(order.reason)));
  return order;
}

std::uint64_t two_words(std::uint32_t low, std::uint32_t high) { return std::uint64_t{high} << 32U | low; }

/// Why no session was opened.
std::unexpected<Error> refused(int code, const std::string& what, const std::string& ifname) {
  const std::string status = "agentnic-load status " + ifname;
  switch (-code) {
    case EEXIST:
      return fail(Exit::Failed, what + ": another session governs one of its tenants", status);
    case ENOSPC:
      return fail(Exit::Failed, fmt::format("{}: {} sessions are open", what, ANIC_SESSIONS_MAX), status);
    case EINVAL:
      return fail(Exit::BadInput, what + ": it asks for no tenant");
    case ENOENT:
      return fail(Exit::BadInput, what + ": the policy in force has no such agent", status);
    default:
      return fail_errno(code, what, status);
  }
}

/// Every entry of an array map, with its index.
template <typename Value, typename Each>
Status for_entries(const Maps& maps, const char* name, std::uint32_t first, std::uint32_t count,
                   Each&& each) {
  for (std::uint32_t i = first; i < first + count; ++i) {
    Value value{};
    ANIC_TRY(maps.read(name, i, value));
    each(i, value);
  }
  return {};
}

Status read_failsafes(const Maps& maps, std::vector<FailSafe>& failsafes) {
  anic_modes modes{};
  ANIC_TRY(maps.read("anic_modes", 0, modes));
  for (std::uint32_t tenant = 0; tenant < ANIC_TENANTS_MAX; ++tenant) {
    FailSafe found{.tenant = tenant, .mode = modes.words[tenant]};
    if (found.mode == 0) continue;
    ANIC_TRY(maps.read("anic_dumps", tenant, found.dump));
    failsafes.push_back(found);
  }
  return {};
}

Status read_chain(const Maps& maps, GuardianState& state) {
  anic_chain chain{};
  ANIC_TRY(maps.read("anic_chain", 0, chain));
  state.seq = chain.seq;
  state.waiting = chain.waiting;
  state.lost = chain.lost_total;
  const AuditRing ring = ANIC_TRY(AuditRing::open(maps, false));
  state.ring = {.unread_bytes = ring.unread_bytes(), .size_bytes = ring.size_bytes()};
  return {};
}

}  // namespace

Status check_reason(const std::string& reason) {
  if (reason.size() <= ANIC_TEXT_LEN) return {};
  return fail(Exit::BadInput,
              fmt::format("the reason has {} bytes, and a record holds {}", reason.size(), ANIC_TEXT_LEN));
}

Result<std::uint32_t> open_session(const PinDir& dir, const SessionRequest& request) {
  const std::string what = "open a session on " + dir.ifname;
  const UniqueFd program = ANIC_TRY(open_pin(dir, kOpenPin));
  anic_order order = make_order(request.reason);
  order.tenants = request.asked.tenants;
  order.kinds_classes = two_words(request.asked.kinds, request.asked.classes);
  order.paths_agent = two_words(request.asked.paths, request.agent);
  const int slot = ANIC_TRY(run_order(program.get(), order, what));
  if (slot < 0) return refused(slot, what, dir.ifname);
  return static_cast<std::uint32_t>(slot);
}

Result<UniqueFd> open_close_program(const PinDir& dir) { return open_pin(dir, kClosePin); }

Result<bool> close_session(int close_fd, std::uint64_t id) {
  const std::string what = fmt::format("close session {}", id);
  anic_order order = make_order("");
  order.session = id;
  const int code = ANIC_TRY(run_order(close_fd, order, what));
  if (code == -ESRCH) return false;
  if (code < 0) return fail_errno(code, what);
  return true;
}

Result<bool> order_failsafe(const PinDir& dir, anic_order_kind kind, std::uint32_t tenant,
                            const std::string& reason) {
  const std::string what = "order fail-safe of " + dir.ifname;
  const UniqueFd program = ANIC_TRY(open_pin(dir, kFailsafePin));
  anic_order order = make_order(reason);
  order.what = two_words(kind, tenant);
  const int code = ANIC_TRY(run_order(program.get(), order, what));
  if (code == -EALREADY) return false;
  if (code < 0) return fail_errno(code, what);
  return true;
}

Result<UniqueFd> open_note_program(const PinDir& dir) { return open_pin(dir, kNotePin); }

Status note_read(int note_fd, anic_record_kind kind, std::uint32_t tenant, std::uint32_t uid,
                 const std::string& reason) {
  const std::string what = fmt::format("record that user {} read records", uid);
  ANIC_TRY(check_reason(reason));
  anic_order order = make_order(reason);
  order.what = two_words(kind, tenant);
  order.session = uid;
  const int code = ANIC_TRY(run_order(note_fd, order, what));
  switch (-code) {
    case 0:
      return {};
    case ENOENT:
      return fail(Exit::Failed, fmt::format("{}: id {} is no tenant's now", what, tenant));
    case ENOSPC:
      return fail(Exit::Failed, what + ": the audit's ring is full, or at its end");
    default:
      return fail_errno(code, what);
  }
}

Status end_audit(const PinDir& dir) {
  const std::string what = "end the audit of " + dir.ifname;
  const UniqueFd program = ANIC_TRY(open_pin(dir, kEndPin));
  const int code = ANIC_TRY(run_order(program.get(), make_order(""), what));
  if (code < 0) return fail_errno(code, what);
  return {};
}

Result<anic_guarding> read_guarding(const Maps& maps) {
  const InForce in_force = ANIC_TRY(read_in_force(maps));
  if (in_force.generation == 0)
    return fail(Exit::Failed, "read the guardian's envelope: no policy is in force");
  anic_guarding guarding{};
  ANIC_TRY(maps.read("anic_guarding", in_force.generation % ANIC_SLOTS, guarding));
  return guarding;
}

Result<std::vector<anic_action>> read_changes(const Maps& maps, std::uint32_t tenant) {
  std::vector<anic_action> changes;
  ANIC_TRY(for_entries<anic_action>(maps, "anic_actions", tenant * ANIC_ACTIONS_MAX, ANIC_ACTIONS_MAX,
                                    [&](std::uint32_t, const anic_action& action) {
                                      if (action.in_force != 0) changes.push_back(action);
                                    }));
  return changes;
}

Result<GuardianState> read_guardian(const Maps& maps) {
  GuardianState state;
  ANIC_TRY(maps.read("anic_guard", 0, state.guard));
  state.guarding = ANIC_TRY(read_guarding(maps));
  ANIC_TRY(
      for_entries<anic_ward>(maps, "anic_wards", 0, ANIC_TENANTS_MAX,
                             [&](std::uint32_t, const anic_ward& ward) { state.wards.push_back(ward); }));
  ANIC_TRY(for_entries<anic_session>(maps, "anic_sessions", 0, ANIC_SESSIONS_MAX,
                                     [&](std::uint32_t, const anic_session& session) {
                                       if (session.id != 0) state.sessions.push_back(session);
                                     }));
  for (std::uint32_t tenant = 1; tenant < ANIC_TENANTS_MAX; ++tenant) {
    if (state.wards[tenant].in_force == 0) continue;
    for (const anic_action& action : ANIC_TRY(read_changes(maps, tenant)))
      state.changes.push_back({.tenant = tenant, .action = action});
  }
  ANIC_TRY(read_failsafes(maps, state.failsafes));
  ANIC_TRY(read_chain(maps, state));
  return state;
}

}  // namespace agentnic::kern
