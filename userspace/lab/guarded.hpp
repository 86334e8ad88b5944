// SPDX-License-Identifier: Apache-2.0
#pragma once

/// An interface with a guardian that approves what a session asks for, as benchmarks of guardian and audit
/// need it.

#include <cstdint>

#include "abi/guardian.h"
#include "base/result.hpp"
#include "kern/audit_ring.hpp"
#include "kern/maps.hpp"
#include "kern/session.hpp"
#include "lab/measure.hpp"
#include "policy/model.hpp"

namespace agentnic::lab {

/// Nothing but the form of proposals is in their way.
Result<policy::Policy> guarded_policy();

/// To class rpc of the policy's one tenant; so that each changes something.
anic_proposal weight_proposal(std::uint64_t number);

/// An interface with the policy attached, a session on it, and its records.
struct Guarded {
  Attached attached;
  kern::Maps maps;
  kern::AuditRing ring;
  kern::Session session;

  /// Empties the ring.
  [[nodiscard]] Status take() const;
};

Result<Guarded> make_guarded(const Bench& bench, const policy::Policy& policy);

}  // namespace agentnic::lab
