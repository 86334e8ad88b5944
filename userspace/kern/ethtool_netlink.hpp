// SPDX-License-Identifier: Apache-2.0
#pragma once

/// What is asked of a NIC by ethtool netlink: the feature ntuple, and header/data split of its receive rings.
/// Each call has a socket of its own, in the calling thread's namespace. An interface is known by its name.
/// Messages and attributes: Documentation/networking/ethtool-netlink.rst of Linux.

#include <cstdint>
#include <optional>
#include <string>

#include "base/result.hpp"
#include "kern/queue_plan.hpp"

namespace agentnic::kern {

/// What a driver says of its flow rules.
struct Ntuple {
  bool on = false;
  bool can_change = false;
};

Result<Ntuple> read_ntuple(const std::string& ifname);
/// A feature that the driver does not let be is no error to the kernel: read it again.
Status set_ntuple(const std::string& ifname, bool on);

/// A driver that has no rings to ask for has no header/data split.
Result<HeaderSplit> read_header_split(const std::string& ifname);
/// Both in one step; a threshold that is absent stays as it is. Unsupported: the driver or the kernel
/// refuses, which says why if it does. What a zero-copy receiver that has ended still holds is waited for, a
/// second at most.
Status set_header_split(const std::string& ifname, SplitMode mode, std::optional<std::uint32_t> threshold);

}  // namespace agentnic::kern
