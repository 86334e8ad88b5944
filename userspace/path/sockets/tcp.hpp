// SPDX-License-Identifier: Apache-2.0
#pragma once

/// Path A: TCP over kernel sockets. Nothing of it waits, but what says so.

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

/// What became of a connection in a call.
enum class StreamState : std::uint8_t {
  Open,   ///< it goes on; with no bytes moved: later
  Ended,  ///< the peer sends no more, and all that it sent was received
  Reset,  ///< it is gone, with whatever was under way
};

struct Moved {
  std::size_t bytes = 0;
  StreamState state = StreamState::Open;
};

/// A connection. Small writes leave at once (TCP_NODELAY). One thread.
class TcpStream final {
 public:
  /// Waits for the peer, at most so long, and not once stop_requested().
  static Result<TcpStream> connect(const Address& peer, const SocketOptions& options = {},
                                   int timeout_ms = 3000);
  /// One that was accepted.
  explicit TcpStream(UniqueFd fd) noexcept : fd_(std::move(fd)) {}

  /// As much as there is room for, which may be less than all, or nothing. Wait::Block: all, unless a signal
  /// comes.
  Moved send(std::span<const std::byte> data, Wait wait = Wait::Spin) noexcept;
  /// What has come, as far as it fits. Wait::Block: asleep, or busy polling, until something has, or a
  /// signal.
  Moved receive(std::span<std::byte> buffer, Wait wait = Wait::Spin) noexcept;
  /// No more is sent; what the peer sends still comes.
  void end() noexcept;
  /// Waits until there is something to receive, or to send into, for at most `timeout_ns`.
  void wait(bool readable, bool writable, std::uint64_t timeout_ns) const noexcept;
  [[nodiscard]] int fd() const noexcept { return fd_.get(); }

 private:
  UniqueFd fd_;
};

/// What accept() found.
enum class Accepted : std::uint8_t {
  One,
  Nobody,  ///< who waited has gone, or nobody did
  Full,    ///< this process, or the machine, has no descriptor or memory left for it; it still waits
};

class TcpListener final {
 public:
  static Result<TcpListener> listen(const Address& local, const SocketOptions& options = {});
  Accepted accept(std::optional<TcpStream>& stream) noexcept;
  /// Waits until somebody is there, for at most `timeout_ns`.
  void wait(std::uint64_t timeout_ns) const noexcept;
  /// Lets nobody in any more, and leaves the port to the next: the kernel keeps the socket of a listener that
  /// a ring accepted from until a little after the ring is closed.
  void end() noexcept;
  [[nodiscard]] int fd() const noexcept { return fd_.get(); }

 private:
  explicit TcpListener(UniqueFd fd) noexcept : fd_(std::move(fd)) {}
  UniqueFd fd_;
};

}  // namespace agentnic::path
