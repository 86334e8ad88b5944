// SPDX-License-Identifier: Apache-2.0
#pragma once

/// What an owner of AF_XDP sockets holds: descriptors of its memory, its sockets and their pages. Who makes
/// them has the privileges, and hands them over; from then on nobody else has them.

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "base/result.hpp"
#include "base/unique_fd.hpp"
#include "path/xsk/rings.hpp"

namespace agentnic::path {

/// What is asked of the kernel at bind time.
enum class XskBind : std::uint32_t {
  Auto,  ///< zero-copy where the driver has it, else copy: the kernel's own choice
  Copy,
  ZeroCopy,  ///< fails where the driver has it not
};

/// The memory of an owner (UMEM) and what its sockets are to do.
struct XskShape {
  std::uint32_t frames = 2048;       ///< of all queues; a power of two, kXskFramesMin to kXskFramesMax
  std::uint32_t frame_bytes = 2048;  ///< 2048 or 4096; 256 of them XDP keeps as headroom
  XskBind bind = XskBind::Auto;
  bool multi_buffer = false;       ///< packets longer than a frame, in several (XDP_USE_SG, Linux 6.6)
  std::uint32_t busy_poll_us = 0;  ///< preferred busy polling (SO_PREFER_BUSY_POLL); 0: interrupts
  std::uint32_t busy_budget = 64;  ///< packets of one poll (SO_BUSY_POLL_BUDGET)
};

inline constexpr std::uint32_t kXskBatch = 64;                    ///< frames that one look brings at most
inline constexpr std::uint32_t kXskReceivingMin = 2 * kXskBatch;  ///< frames to receive into, of each queue
inline constexpr std::uint32_t kXskFramesMin = 256;
inline constexpr std::uint32_t kXskFramesMax = 1 << 18;
inline constexpr std::uint32_t kXskHeadroom = 256;  ///< XDP_PACKET_HEADROOM
inline constexpr std::size_t kXskQueuesMax = 64;    ///< of one owner

/// Of one receive queue. A socket receives, another one sends: for each packet that comes, the kernel writes
/// into the first one's lines on another CPU, and its owner would write into them for each that goes.
struct XskQueueGrant {
  std::uint32_t queue = 0;
  bool zero_copy = false;  ///< read back from the kernel
  UniqueFd socket;         ///< receives; bound, with the fill and the completion ring of the queue
  UniqueFd transmit;       ///< sends; bound to the same queue, and shares those rings
  UniqueFd page;           ///< bpf/abi/owner.h; none: XDP redirects all that fits into ANIC_XSK_FRAME_MAX
  std::optional<XskRings> rings;  ///< as long as there are frames, each; of who made them: before Linux 6.4
                                  ///< nobody else can map them
};

struct XskGrant {
  std::string ifname;
  std::uint32_t ifindex = 0;
  std::uint32_t mtu = 0;
  XskShape shape;
  bool huge_pages = false;  ///< obtained
  UniqueFd memory;          ///< memfd of frames * frame_bytes
  std::vector<XskQueueGrant> queues;
};

/// Frames that begin in the fill ring of each queue: of queue number i of n, those from i times that many on.
/// A quarter of all is for sending.
[[nodiscard]] constexpr std::uint32_t xsk_fill_level(const XskShape& shape, std::size_t queues) {
  return (shape.frames - shape.frames / 4) / static_cast<std::uint32_t>(queues == 0 ? 1 : queues);
}

/// What cannot be is refused.
Status check_shape(const XskShape& shape, std::size_t queues);

struct XskBindOptions {
  std::string ifname;
  std::vector<std::uint32_t> queues;  ///< in this order, those that nobody has
  std::size_t count = 1;              ///< of them
  XskShape shape = {};
  int patience_ms = 1000;
};

/// Binds sockets to queues of an interface, over one new memory: inside the interface's namespace, with
/// CAP_NET_RAW, and CAP_NET_ADMIN for busy polling. They receive once they are in an XSKMAP, and have no
/// pages. A closed socket keeps its queue for a while, as the kernel tears it down later: so long it is
/// waited for.
Result<XskGrant> bind_xsk(const XskBindOptions& options);

/// Whether who gets a bound socket can map its rings, found out by trying; unsupported: the kernel lets
/// nobody. Takes what bind_xsk() takes.
Status can_hand_over();

}  // namespace agentnic::path
