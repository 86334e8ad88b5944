// SPDX-License-Identifier: Apache-2.0
#pragma once

/// An owner of AF_XDP sockets: one memory, and sockets for each of its queues. One thread; a program with
/// several workers has one for each.

#include <array>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "base/result.hpp"
#include "path/xsk/grant.hpp"
#include "path/xsk/socket.hpp"
#include "path/xsk/umem.hpp"

namespace agentnic::path {

/// Room for the frames of one packet.
using PieceList = std::array<std::span<std::byte>, kXskBatch>;

class XskClient final {
 public:
  /// Takes over what was made, by this process (bind_xsk) or by another. It looks alive to XDP from now on.
  static Result<XskClient> adopt(XskGrant grant);

  [[nodiscard]] std::span<XskSocket> sockets() noexcept { return sockets_; }
  [[nodiscard]] std::byte* data(const xdp_desc& frame) const noexcept { return memory_->data(frame.addr); }
  [[nodiscard]] std::span<std::byte> bytes(const xdp_desc& frame) const noexcept {
    return {data(frame), frame.len};
  }
  /// Where the frames of a packet are, in `list`.
  [[nodiscard]] std::span<const std::span<std::byte>> pieces(std::span<const xdp_desc> packet,
                                                             PieceList& list) const noexcept;
  /// A frame to send, with its whole length; nothing while there is none: flush().
  std::optional<xdp_desc> take() noexcept;
  /// Of all sockets. False while the kernel has not taken everything: call again, and do not wait().
  bool flush() noexcept;
  /// Sleeps until there is something to receive, a signal comes, or `timeout_ms` are over (-1: never). True
  /// when there is something, or a socket is gone().
  bool wait(int timeout_ms) noexcept;

  /// The interface of a socket was removed: nothing comes any more.
  [[nodiscard]] bool gone() const noexcept;

  [[nodiscard]] const Umem& memory() const noexcept { return *memory_; }
  /// Of which the sockets and the memory were taken.
  [[nodiscard]] const XskGrant& grant() const noexcept { return grant_; }

 private:
  XskClient() = default;
  XskGrant grant_;
  std::unique_ptr<Umem> memory_;  // sockets keep its address
  std::vector<XskSocket> sockets_;
};

}  // namespace agentnic::path
