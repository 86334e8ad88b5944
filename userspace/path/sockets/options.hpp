// SPDX-License-Identifier: Apache-2.0
#pragma once

/// What sockets of the kernel are asked for, whatever their protocol: socket(7).

#include <cstdint>
#include <optional>

#include "base/result.hpp"

namespace agentnic::path {

/// A call that waits polls the device instead of sleeping (SO_PREFER_BUSY_POLL, SO_BUSY_POLL,
/// SO_BUSY_POLL_BUDGET). Takes CAP_NET_ADMIN, and a device with NAPI: a veth has it while XDP is attached.
struct BusyPoll {
  std::uint32_t us = 0;       ///< for so long at most, then asleep; 0: off
  std::uint16_t budget = 64;  ///< packets of one poll
};
Status set_busy_poll(int fd, const BusyPoll& busy_poll);

/// What is not set is the kernel's own. Set before the socket is bound.
struct SocketOptions {
  BusyPoll busy_poll = {};
  bool reuse_port = false;                         ///< several sockets share a port (SO_REUSEPORT)
  std::optional<int> incoming_cpu = std::nullopt;  ///< this one is for packets of that CPU (SO_INCOMING_CPU)
  int buffer_bytes = 0;  ///< SO_RCVBUF and SO_SNDBUF; the kernel caps them: net.core.rmem_max, wmem_max
};
Status set_options(int fd, const SocketOptions& options);

}  // namespace agentnic::path
