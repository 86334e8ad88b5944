// SPDX-License-Identifier: Apache-2.0
#pragma once

/// A UDP echo on an AF_XDP socket.

#include <cstddef>
#include <cstdint>
#include <span>

#include "path/sockets/udp.hpp"
#include "path/xsk/client.hpp"
#include "path/xsk/datagram.hpp"

namespace agentnic::path {

/// What turn_around() made of a frame.
enum class Turned {
  Ready,        ///< addressed back to its sender
  Completed,    ///< likewise; its checksum was partial (CHECKSUM_PARTIAL over veth) and is complete now
  NotUdp,       ///< not a whole UDP datagram from one host to another
  BadChecksum,  ///< damaged on the way
};

/// Answers a UDP frame with itself, in place: reply() of path/xsk/datagram.hpp.
Turned turn_around(Pieces packet) noexcept;

struct XskEchoCounters {
  EchoCounters echo;
  std::uint64_t completed_checksums = 0;
  std::uint64_t bad_checksums = 0;
  std::uint64_t not_udp = 0;
};

/// Sends every UDP datagram back to where it came from, until stop_requested(), or the interface is gone.
XskEchoCounters echo_xsk(XskClient& client, Wait wait) noexcept;

}  // namespace agentnic::path
