// SPDX-License-Identifier: Apache-2.0
#pragma once

/// Several datagrams in one call (recvmmsg(2), sendmmsg(2)), and several of one flow in one message (GRO and
/// GSO: udp(7)).

#include <sys/socket.h>

#include <cstddef>
#include <span>
#include <vector>

#include "base/result.hpp"
#include "path/sockets/udp.hpp"

namespace agentnic::path {

/// Has the kernel join datagrams of a flow that come one after the other (UDP_GRO, Linux 5.0), as long as
/// they are of one length; the last may be shorter.
Status join_datagrams(const UdpSocket& socket);

/// Memory for messages, their peers and what the kernel says of them. One thread.
class UdpBatch final {
 public:
  /// `bytes`: of each message; what is longer is cut, and counted. 65,536 for what is joined.
  UdpBatch(std::size_t messages, std::size_t bytes);

  struct Message {
    std::span<std::byte> bytes;
    std::size_t segment =
        0;  ///< length of each datagram in it but the last; that of all of it if there is one
  };

  /// As many as there are, and fit; with Wait::Block at least one, unless a signal comes.
  std::size_t receive(const UdpSocket& socket, Wait wait) noexcept;
  /// Of those that receive() brought.
  [[nodiscard]] Message message(std::size_t number) const noexcept;
  /// Sends the messages that receive() brought back to their peers, joined ones as so many datagrams
  /// (UDP_SEGMENT, Linux 4.18); how many of them the kernel took.
  std::size_t send_back(const UdpSocket& socket) noexcept;
  /// Messages that were longer than there is room for.
  [[nodiscard]] std::uint64_t cut() const noexcept { return cut_; }

 private:
  struct alignas(cmsghdr) Control {
    std::byte bytes[CMSG_SPACE(sizeof(int))];
  };
  [[nodiscard]] std::size_t segment_of(std::size_t number) const noexcept;

  std::size_t bytes_;
  std::vector<std::byte> memory_;
  std::vector<sockaddr_storage> peers_;
  std::vector<Control> controls_;
  std::vector<iovec> pieces_;
  std::vector<mmsghdr> headers_;
  std::size_t count_ = 0;
  std::uint64_t cut_ = 0;
};

/// Sends every datagram back to where it came from, `batch` at a time, until stop_requested().
EchoCounters echo_udp(UdpSocket& socket, UdpBatch& batch, Wait wait) noexcept;

}  // namespace agentnic::path
