// SPDX-License-Identifier: Apache-2.0
#pragma once

/// The names that records of an instance need.

#include "audit/sentence.hpp"
#include "base/result.hpp"
#include "kern/maps.hpp"

namespace agentnic::cli {

/// Those of the policy in force, and the clocks of now. What had another name under an earlier policy is
/// called by its present one.
Result<audit::Names> read_audit_names(const kern::Maps& maps);

}  // namespace agentnic::cli
