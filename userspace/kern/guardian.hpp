// SPDX-License-Identifier: Apache-2.0
#pragma once

/// The guardian of an instance: orders to it, and its state. What it decides by is in the kernel.

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "abi/guardian.h"
#include "base/result.hpp"
#include "kern/bpffs.hpp"
#include "kern/maps.hpp"

namespace agentnic::kern {

/// Whom a session is for, and what it may do at most. Agent 0: an operator, whom the policy grants all.
struct SessionRequest {
  std::uint32_t agent = 0;
  anic_grants asked{};
  std::string reason;
};

/// Opens a session; its entry in anic_sessions.
Result<std::uint32_t> open_session(const PinDir& dir, const SessionRequest& request);

/// Closes it, which gives back what it changed. False: it was over. `close_fd`: the pinned program.
Result<bool> close_session(int close_fd, std::uint64_t id);
Result<UniqueFd> open_close_program(const PinDir& dir);

/// Puts a tenant (0: the instance) in fail-safe, takes it out, or acknowledges its alarm. False: there was
/// nothing to do.
Result<bool> order_failsafe(const PinDir& dir, anic_order_kind kind, std::uint32_t tenant,
                            const std::string& reason);

/// Records that a user read records through agentnic (ANIC_RECORD_READ), or exported a tenant's
/// (ANIC_RECORD_EXPORT). `tenant`: whose they were limited to, 0: all. `note_fd`: the pinned program, which
/// can be handed to who has no privileges. Failed, when the tenant has no records, or the ring no room for
/// this one.
Status note_read(int note_fd, anic_record_kind kind, std::uint32_t tenant, std::uint32_t uid,
                 const std::string& reason);
Result<UniqueFd> open_note_program(const PinDir& dir);

/// Writes the last record of the audit. For detach, which goes on whatever this answers: an older instance,
/// or one that is half made, has no such program.
Status end_audit(const PinDir& dir);

/// Bad input when a text does not fit a record.
Status check_reason(const std::string& reason);

/// The envelope and the agents of the policy in force. Failed, when there is none.
Result<anic_guarding> read_guarding(const Maps& maps);

/// A tenant (0: the instance) that is in fail-safe, or whose alarm nobody has acknowledged.
struct FailSafe {
  std::uint32_t tenant = 0;
  std::uint32_t mode = 0;  ///< see ANIC_MODE_FAILSAFE
  anic_dump dump{};        ///< of when it was entered

  [[nodiscard]] bool in_force() const { return ANIC_MODE_FAILSAFE(mode) != 0; }
  [[nodiscard]] bool alarm() const { return (mode & ANIC_MODE_ALARM) != 0; }
};

/// A change in force.
struct ChangeInForce {
  std::uint32_t tenant = 0;
  anic_action action{};
};

/// How much of the audit's ring nobody has taken yet.
struct RingUse {
  std::uint64_t unread_bytes = 0;
  std::uint64_t size_bytes = 0;
};

struct GuardianState {
  anic_guard guard{};
  anic_guarding guarding{};
  std::vector<anic_ward> wards;        ///< by tenant
  std::vector<FailSafe> failsafes;     ///< by tenant, the instance first
  std::vector<anic_session> sessions;  ///< that are open
  std::vector<ChangeInForce> changes;  ///< by tenant
  std::uint64_t seq = 0;               ///< of the last record
  std::uint32_t waiting = 0;           ///< records that wait for room
  std::uint64_t lost = 0;              ///< records that found none
  RingUse ring;
};
Result<GuardianState> read_guardian(const Maps& maps);

/// The changes in force of a tenant.
Result<std::vector<anic_action>> read_changes(const Maps& maps, std::uint32_t tenant);

}  // namespace agentnic::kern
