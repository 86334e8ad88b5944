// SPDX-License-Identifier: Apache-2.0
#pragma once

/// What agentnic-load status prints of the guardian.

#include <string>

#include "audit/sentence.hpp"
#include "base/json.hpp"
#include "kern/guardian.hpp"
#include "kern/instance.hpp"

namespace agentnic::cli {

/// The exit status of `status` when fail-safe is in force, or an alarm is not acknowledged.
inline constexpr int kFailSafeStatus = 4;

/// The guardian of one instance, with the names for its ids.
struct GuardianView {
  kern::GuardianState state;
  audit::Names names;
};
Result<GuardianView> view_guardian(const kern::InstanceStatus& status);

Json to_json(const GuardianView& view);

/// What must be seen first: a line for each fail-safe and alarm, with what to type, or nothing.
std::string alarms_text(const GuardianView& view, const kern::InstanceStatus& status);

/// The rest.
std::string to_text(const GuardianView& view);

}  // namespace agentnic::cli
