// SPDX-License-Identifier: Apache-2.0
#pragma once

/// What this machine runs under. A result that was made under software emulation proves logic, never speed.

#include <string>

namespace agentnic {

/// The name with which the hypervisor presents itself by CPUID ("KVMKVMKVM", "TCGTCGTCGTCG", "Microsoft Hv");
/// empty on bare metal, and on processors other than x86, which have no such word.
std::string hypervisor();

/// Whether that is QEMU's software emulation of a processor (TCG).
bool emulated();

/// What stands beside each figure that was measured there.
inline constexpr const char* kEmulated = "EMULATED";
inline constexpr const char* kEmulatedMeans =
    "EMULATED: measured on a processor in software; shows that the paths work, and says nothing about speed";

}  // namespace agentnic
