// SPDX-License-Identifier: Apache-2.0
#pragma once

/// What the driver of an interface says it can do. Only asked, by netlink and ioctl: nothing is changed, and
/// no privileges are needed. Call inside the interface's network namespace.

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "base/result.hpp"
#include "kern/interface.hpp"

namespace agentnic::kern {

struct QueueCount {
  std::uint32_t now = 0;
  std::uint32_t most = 0;
};

/// Queues as the driver groups them: a combined one receives and transmits.
struct Channels {
  QueueCount rx;
  QueueCount tx;
  QueueCount combined;
};

/// The bits of enum netdev_xdp_act (<linux/netdev.h> of Linux 6.3; Debian 12 has the headers of 6.1).
enum : std::uint64_t {
  kXdpBasic = 1U << 0U,        ///< native XDP: abort, drop, pass, transmit
  kXdpXskZeroCopy = 1U << 3U,  ///< AF_XDP without a copy
};

struct XdpFeatures {
  std::uint64_t flags = 0;
  std::uint32_t zero_copy_segments_max = 0;  ///< buffers a zero-copy frame may span; 1: no chains
};

/// Flow rules that lead to a queue: ntuple, as ethtool(8) calls it.
struct FlowRules {
  bool on = false;
  bool can_change = false;
};

struct Driver {
  std::uint32_t mtu_bytes = 0;
  std::string link;                     ///< up, no-carrier or down
  std::optional<Channels> channels;     ///< nothing where the driver does not count queues
  std::optional<XdpFeatures> features;  ///< nothing where this kernel does not say (before 6.3)
  std::optional<bool> vlan_offload;     ///< of receiving: the tag is out of the frame before XDP sees it
  /// Of TCP: header and data are received into memory apart, as zero-copy receive (io_uring) needs it.
  std::optional<bool> header_split;          ///< nothing where the driver does not say
  std::optional<FlowRules> flow_rules;       ///< nothing where it was not found out, like the next
  std::optional<std::uint32_t> rss_entries;  ///< of its RSS table; 0: it has none
};

Result<Driver> ask_driver(const Interface& interface);

/// The names of the bits, as `ynl` and the kernel's documentation have them.
std::vector<std::string> xdp_feature_names(std::uint64_t flags);

}  // namespace agentnic::kern
