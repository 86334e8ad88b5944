// SPDX-License-Identifier: Apache-2.0
#pragma once

/// What agentnic-load prints: the same facts as text for people and as JSON for machines.

#include <string>

#include "cli/common/program.hpp"
#include "kern/instance.hpp"
#include "policy/compile.hpp"
#include "policy/model.hpp"

namespace agentnic::cli {

Json to_json(const policy::Policy& policy);
Json to_json(const kern::InstanceStatus& status);
Json to_json(const kern::InstanceStatus& status, const kern::Stats& stats);

std::string to_text(const policy::Policy& policy);
std::string to_text(const kern::InstanceStatus& status);

/// Counters as a table. With `before` (taken `seconds` earlier) also their rates.
std::string to_text(const kern::InstanceStatus& status, const kern::Stats& stats, const kern::Stats* before,
                    double seconds);

/// `lab0` or `lab0 in netns NAME`.
std::string place(const kern::InstanceStatus& status);

}  // namespace agentnic::cli
