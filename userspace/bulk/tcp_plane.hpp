// SPDX-License-Identifier: Apache-2.0
#pragma once

/// Path A: content in the channel's own connection, as Data. It goes from the page cache to the socket
/// (sendfile(2)), after it was read for its digest; without a digest it goes from the socket to the page
/// cache, too (splice(2)), else through a buffer that stays in the processor's cache.

#include <memory>

#include "base/unique_fd.hpp"
#include "bulk/plane.hpp"

namespace agentnic::bulk {

class TcpPlane final : public Plane {
 public:
  TcpPlane();
  Result<Outcome> send(Channel& channel, const Range& range, Hasher& hasher, Meter& meter) override;
  Result<Outcome> receive(Channel& channel, const Range& range, Hasher& hasher, Meter& meter) override;
  [[nodiscard]] std::string name() const override { return "tcp"; }

 private:
  /// Sends what Data has announced; false: the file was shorter, and zeros went instead.
  Result<bool> send_piece(Channel& channel, int fd, std::uint64_t at, std::size_t bytes, Hasher& hasher);
  /// Receives what Data has announced, with or without a buffer between.
  Status receive_piece(Channel& channel, const Range& range, std::size_t left, Hasher& hasher, Meter& meter,
                       Outcome& outcome);
  Status splice_piece(Channel& channel, const Range& range, std::size_t left, Meter& meter, Outcome& outcome);
  std::unique_ptr<std::byte[]> buffer_;
  UniqueFd pipe_out_;  ///< none: content takes the buffer
  UniqueFd pipe_in_;
};

}  // namespace agentnic::bulk
