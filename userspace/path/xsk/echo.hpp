// SPDX-License-Identifier: Apache-2.0
#pragma once

/// A UDP echo on an AF_XDP socket.

#include <cstddef>
#include <cstdint>
#include <span>

#include "path/sockets/udp.hpp"
#include "path/xsk/socket.hpp"

namespace agentnic::path {

/// What turn_around() made of a frame.
enum class Turned {
  Ready,        ///< addressed back to its sender
  Completed,    ///< likewise; its checksum was partial (CHECKSUM_PARTIAL over veth) and is complete now
  NotUdp,       ///< not a whole UDP datagram
  BadChecksum,  ///< damaged on the way
};

/// Swaps the addresses and ports of a UDP frame, in place. A valid checksum stays valid, because a
/// one's-complement sum does not depend on the order of its words (RFC 1071); a partial one, which holds the
/// sum of the pseudo header alone, is completed; any other is refused.
Turned turn_around(std::span<std::byte> frame) noexcept;

struct XskEchoCounters {
  EchoCounters echo;
  std::uint64_t completed_checksums = 0;
  std::uint64_t bad_checksums = 0;
  std::uint64_t not_udp = 0;
};

/// Sends every UDP datagram back to where it came from, until stop_requested().
XskEchoCounters echo_xsk(XskSocket& socket, Wait wait) noexcept;

}  // namespace agentnic::path
