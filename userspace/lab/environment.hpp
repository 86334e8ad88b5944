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

/// A clock that stands while a CPU is idle, in seconds: what passes on it is what the CPU was busy for,
/// interrupts included. The time that a kernel with NO_HZ was idle for is measured, and read in 10 ms
/// (/proc/stat); what it was busy for is sampled by ticks, of which short work between two sleeps meets none.
/// What the hypervisor took meanwhile counts as busy. 0 for -1.
double cpu_busy_s(int cpu);

}  // namespace agentnic::lab
