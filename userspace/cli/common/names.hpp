// SPDX-License-Identifier: Apache-2.0
#pragma once

/// The names that records of an instance need.

#include "audit/names.hpp"
#include "base/result.hpp"
#include "kern/maps.hpp"

namespace agentnic::cli {

/// The maps that names are read from.
inline constexpr const char* kNameMaps[] = {"anic_state", "anic_policies", "anic_tenants", "anic_services",
                                            "anic_guarding"};

/// What the policy in force calls its ids.
Result<audit::NameBook> read_name_book(const kern::Maps& maps);

/// The same, and the clocks of now. What had another name under an earlier policy is
/// called by its present one.
Result<audit::Names> read_audit_names(const kern::Maps& maps);

}  // namespace agentnic::cli
