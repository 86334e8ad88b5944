// SPDX-License-Identifier: Apache-2.0
#pragma once

/// Connecting queue pairs by rdma_cm instead of by attributes that were exchanged: the kernel finds the route
/// and agrees with the peer's. The queue pairs stay their owners'. Whoever knows the port can ask; a token
/// says who is meant.

#include <rdma/rdma_cma.h>

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>

#include "base/result.hpp"
#include "path/rdma/queue_pair.hpp"
#include "path/sockets/address.hpp"

namespace agentnic::path {

/// Sent by who connects; the other end has given it to them by a way that both trust.
using CmToken = std::array<std::byte, 16>;

/// Of a queue pair that was connected so; lives as long.
class CmConnection final {
 public:
  /// Waits for at most `timeout_ms` in each step.
  /// `local`: this end's address, which the queue pair's device has. `peer_pair`: the queue pair that is to
  /// answer.
  static Result<CmConnection> connect(const Address& local, const Address& peer, QueuePair& pair,
                                      std::uint32_t peer_pair, const CmToken& token, int timeout_ms);

 private:
  friend class CmListener;
  struct Release {
    void operator()(rdma_event_channel* channel) const noexcept { rdma_destroy_event_channel(channel); }
    void operator()(rdma_cm_id* id) const noexcept { rdma_destroy_id(id); }
  };
  using Channel = std::unique_ptr<rdma_event_channel, Release>;
  using Id = std::unique_ptr<rdma_cm_id, Release>;
  CmConnection(Channel channel, Id id) noexcept : channel_(std::move(channel)), id_(std::move(id)) {}
  Channel channel_;
  Id id_;
};

class CmListener final {
 public:
  /// At this address, and a port that is free.
  static Result<CmListener> open(const Address& local);
  [[nodiscard]] std::uint16_t port() const noexcept;
  /// The one who brings the token for this queue pair of theirs; others are turned away. Once; `timeout_ms`
  /// is for all of it.
  Result<CmConnection> accept(QueuePair& pair, std::uint32_t peer_pair, const CmToken& token, int timeout_ms);

 private:
  CmListener(CmConnection::Channel channel, CmConnection::Id id) noexcept
      : channel_(std::move(channel)), id_(std::move(id)) {}
  CmConnection::Channel channel_;
  CmConnection::Id id_;
};

}  // namespace agentnic::path
