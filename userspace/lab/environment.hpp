// SPDX-License-Identifier: Apache-2.0
#pragma once

/// Where a number was measured.

#include <string>
#include <vector>

#include "base/json.hpp"
#include "base/result.hpp"

namespace agentnic::lab {

/// Kernel, CPU, governor, program version and revision.
Json describe_host();

/// Driver, firmware, queues, offloads, packet steering and interrupts of an interface in a named namespace.
/// What the driver does not tell is null.
Result<Json> describe_interface(const std::string& netns, const std::string& ifname);

/// The CPUs that this process may use, ascending.
std::vector<int> usable_cpus();

/// Keeps this process on one CPU.
Status pin_to_cpu(int cpu);

/// What a CPU was not idle for since boot, in seconds, interrupts included (/proc/stat, 10 ms ticks); 0 for
/// -1.
double cpu_busy_s(int cpu);

}  // namespace agentnic::lab
