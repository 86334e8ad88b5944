// SPDX-License-Identifier: Apache-2.0
#pragma once

/// Path A: UDP over kernel sockets.

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>

#include "base/result.hpp"
#include "base/unique_fd.hpp"
#include "path/sockets/address.hpp"
#include "path/sockets/options.hpp"
#include "path/wait.hpp"

namespace agentnic::path {

/// A UDP socket. Receiving in Wait::Block ends when a datagram or a signal comes: loops hold a WakeUps. One
/// thread.
class UdpSocket final {
 public:
  static Result<UdpSocket> bind(const Address& local, const SocketOptions& options = {});
  static Result<UdpSocket> connect(const Address& peer, const SocketOptions& options = {});

  /// False when the kernel did not take it (full queue, peer's port closed).
  bool send(std::span<const std::byte> data) noexcept;
  bool send_to(std::span<const std::byte> data, const Address& peer) noexcept;
  /// The length, or nothing when none came (or came as an error).
  std::optional<std::size_t> receive(std::span<std::byte> buffer, Wait wait) noexcept;
  std::optional<std::size_t> receive_from(std::span<std::byte> buffer, Wait wait, Address& peer) noexcept;

  /// Waits until there is something to receive, for at most `timeout_ns`.
  void wait_readable(std::uint64_t timeout_ns) const noexcept;

  /// Datagrams that the kernel dropped at this socket because its buffer was full (SO_MEMINFO).
  [[nodiscard]] std::uint64_t drops() const noexcept;
  [[nodiscard]] int fd() const noexcept { return fd_.get(); }

 private:
  explicit UdpSocket(UniqueFd fd) : fd_(std::move(fd)) {}
  static Result<UdpSocket> open(int family, const SocketOptions& options);
  UniqueFd fd_;
};

struct EchoCounters {
  std::uint64_t packets = 0;  ///< sent back
  std::uint64_t failed = 0;   ///< received and not sent back
};

/// Sends every datagram back to where it came from, until stop_requested().
EchoCounters echo_udp(UdpSocket& socket, Wait wait) noexcept;

}  // namespace agentnic::path
