// SPDX-License-Identifier: Apache-2.0
#pragma once

/// How the load generator's requests go out and its answers come in.

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>

#include "base/result.hpp"
#include "path/sockets/tcp.hpp"
#include "path/sockets/udp.hpp"
#include "path/xsk/client.hpp"

namespace agentnic::lab {

/// To one server. One thread.
class Line {
 public:
  Line() = default;
  Line(const Line&) = delete;
  Line& operator=(const Line&) = delete;
  virtual ~Line() = default;

  /// False when it was not taken.
  virtual bool send(std::span<const std::byte> payload) noexcept = 0;
  /// The payload of an answer, valid until the next call; nothing when none came, or a signal.
  virtual std::optional<std::span<const std::byte>> receive(path::Wait wait) noexcept = 0;
  /// Waits until there is something to receive, for at most so long.
  virtual void wait_readable(std::uint64_t timeout_ns) noexcept = 0;
  /// Answers that were lost at this end.
  [[nodiscard]] virtual std::uint64_t drops() const noexcept = 0;
};

/// A kernel socket.
Result<std::unique_ptr<Line>> open_udp_line(const path::Address& server,
                                            const path::SocketOptions& options = {});

/// Connections, several with one request each at most; an answer is as long as a request, which are all of
/// `size` bytes.
Result<std::unique_ptr<Line>> open_tcp_line(const path::Address& server, std::size_t size,
                                            unsigned connections = 1,
                                            const path::SocketOptions& options = {});

/// AF_XDP sockets that are there, in the namespace of their interface. Answers must be redirected to them.
/// Requests have at most `size` bytes.
Result<std::unique_ptr<Line>> open_xsk_line(path::XskClient client, const path::Address& server,
                                            std::size_t size);

}  // namespace agentnic::lab
