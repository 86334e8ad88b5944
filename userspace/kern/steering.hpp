// SPDX-License-Identifier: Apache-2.0
#pragma once

/// CPUs that lanes are spread over: whether this machine has them, and their queues in the cpumap.

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "abi/types.h"
#include "base/result.hpp"
#include "kern/maps.hpp"
#include "policy/compile.hpp"

namespace agentnic::kern {

/// Whether cpumap of this kernel aggregates TCP as the driver's own receive path does (Linux 6.15).
bool cpumap_does_gro();

/// What the user of a policy with these anic_uses should know of steering: what of it is not done, and what
/// it needs. `driver`: of the interface.
std::vector<std::string> steering_notes(std::uint32_t uses, anic_mode mode, const std::string& driver);

/// Says in the tables whether TCP is steered too. Unsupported where a lane is spread over a CPU that is not
/// online.
Status fit_steering(policy::Tables& tables);

/// Gives each CPU that a lane is spread over its queue, with anic_arrive on the other side of it. Those that
/// have one keep it, and what it holds.
Status open_cpu_queues(const Maps& maps, int arrive_fd, std::span<const anic_spread> lanes);

/// Puts another anic_arrive behind the queues that there are. What the old ones hold is delivered first.
Status renew_cpu_queues(const Maps& maps, int arrive_fd);

}  // namespace agentnic::kern
