// SPDX-License-Identifier: Apache-2.0
#pragma once

/// What agentnic-load prints: the same facts as text for people and as JSON for machines.

#include <map>
#include <string>

#include "cli/common/program.hpp"
#include "kern/change.hpp"
#include "kern/instance.hpp"
#include "kern/napi.hpp"
#include "kern/stats.hpp"
#include "policy/compile.hpp"

namespace agentnic::cli {

/// What a policy puts into the maps.
Json to_json(const policy::Tables& tables);
std::string to_text(const policy::Tables& tables);

Json to_json(const kern::InstanceStatus& status);
std::string to_text(const kern::InstanceStatus& status);

Json to_json(const kern::InstanceStatus& status, const kern::Stats& stats);

/// Counters as tables. With `before` (taken `seconds` earlier) also their rates.
std::string to_text(const kern::InstanceStatus& status, const kern::Stats& stats, const kern::Stats* before,
                    double seconds);

/// What owners of AF_XDP sockets say of themselves, and what XDP has sent them.
Json to_json(const std::map<std::uint32_t, anic_owner>& owners);
std::string to_text(const std::map<std::uint32_t, anic_owner>& owners);

/// How the kernel polls the interface, as far as the policy has set that; null and nothing: not at all.
Json to_json(const kern::NapiState& napi);
std::string to_text(const kern::NapiState& napi);

/// `lab0` or `lab0 in netns NAME`.
std::string place(const kern::InstanceStatus& status);

}  // namespace agentnic::cli
