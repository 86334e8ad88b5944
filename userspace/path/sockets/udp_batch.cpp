// SPDX-License-Identifier: Apache-2.0
#include "path/sockets/udp_batch.hpp"

#include <netinet/in.h>
#include <netinet/udp.h>

#include <cerrno>
#include <cstdint>
#include <cstring>

#include "base/stop.hpp"

namespace agentnic::path {
namespace {

/// Datagrams in a message, the last of which may be shorter.
std::size_t datagrams_in(std::size_t bytes, std::size_t segment) noexcept {
  return segment == 0 || bytes == 0 ? 1 : (bytes + segment - 1) / segment;
}

}  // namespace

Status join_datagrams(const UdpSocket& socket) {
  const int on = 1;
  if (::setsockopt(socket.fd(), SOL_UDP, UDP_GRO, &on, sizeof(on)) != 0)
    return fail_errno(errno, "have datagrams joined (UDP_GRO)");
  return {};
}

UdpBatch::UdpBatch(std::size_t messages, std::size_t bytes)
    : bytes_(bytes),
      memory_(messages * bytes),
      peers_(messages),
      controls_(messages),
      pieces_(messages),
      headers_(messages) {}

std::size_t UdpBatch::receive(const UdpSocket& socket, Wait wait) noexcept {
  for (std::size_t i = 0; i < headers_.size(); ++i) {
    pieces_[i] = {.iov_base = &memory_[i * bytes_], .iov_len = bytes_};
    headers_[i].msg_len = 0;
    headers_[i].msg_hdr = {.msg_name = &peers_[i],
                           .msg_namelen = sizeof(peers_[i]),
                           .msg_iov = &pieces_[i],
                           .msg_iovlen = 1,
                           .msg_control = &controls_[i],
                           .msg_controllen = sizeof(controls_[i]),
                           .msg_flags = 0};
  }
  const int flags = wait == Wait::Spin ? MSG_DONTWAIT : MSG_WAITFORONE;
  const int got =
      ::recvmmsg(socket.fd(), headers_.data(), static_cast<unsigned>(headers_.size()), flags, nullptr);
  count_ = got > 0 ? static_cast<std::size_t>(got) : 0;
  for (std::size_t i = 0; i < count_; ++i) cut_ += (headers_[i].msg_hdr.msg_flags & MSG_TRUNC) != 0;
  return count_;
}

/// Without a word of the kernel: all of it.
std::size_t UdpBatch::segment_of(std::size_t number) const noexcept {
  const msghdr& header = headers_[number].msg_hdr;
  for (cmsghdr* said = CMSG_FIRSTHDR(&header); said != nullptr;
       said = CMSG_NXTHDR(const_cast<msghdr*>(&header), said)) {
    if (said->cmsg_level != SOL_UDP || said->cmsg_type != UDP_GRO) continue;
    int segment = 0;
    std::memcpy(&segment, CMSG_DATA(said), sizeof(segment));
    if (segment > 0) return static_cast<std::size_t>(segment);
  }
  return headers_[number].msg_len;
}

UdpBatch::Message UdpBatch::message(std::size_t number) const noexcept {
  auto* at = static_cast<std::byte*>(pieces_[number].iov_base);
  return {.bytes = {at, headers_[number].msg_len}, .segment = segment_of(number)};
}

std::size_t UdpBatch::send_back(const UdpSocket& socket) noexcept {
  for (std::size_t i = 0; i < count_; ++i) {
    const std::size_t segment = segment_of(i);
    msghdr& header = headers_[i].msg_hdr;
    pieces_[i].iov_len = headers_[i].msg_len;
    header.msg_flags = 0;
    if (datagrams_in(headers_[i].msg_len, segment) == 1) {
      header.msg_control = nullptr;
      header.msg_controllen = 0;
      continue;
    }
    header.msg_control = &controls_[i];
    header.msg_controllen = CMSG_SPACE(sizeof(std::uint16_t));
    cmsghdr* say = CMSG_FIRSTHDR(&header);
    say->cmsg_level = SOL_UDP;
    say->cmsg_type = UDP_SEGMENT;
    say->cmsg_len = CMSG_LEN(sizeof(std::uint16_t));
    const auto size = static_cast<std::uint16_t>(segment);
    std::memcpy(CMSG_DATA(say), &size, sizeof(size));
  }
  std::size_t sent = 0;
  std::size_t taken = 0;
  while (sent < count_) {
    const int got =
        ::sendmmsg(socket.fd(), &headers_[sent], static_cast<unsigned>(count_ - sent), MSG_DONTWAIT);
    if (got > 0) {
      sent += static_cast<std::size_t>(got);
      taken += static_cast<std::size_t>(got);
    } else {
      ++sent;  // this one it does not take; the others may be of another peer
    }
  }
  return taken;
}

EchoCounters echo_udp(UdpSocket& socket, UdpBatch& batch, Wait wait) noexcept {
  const WakeUps wake_ups;
  EchoCounters counters;
  while (!stop_requested()) {
    const std::size_t got = batch.receive(socket, wait);
    if (got == 0) continue;
    std::size_t datagrams = 0;
    for (std::size_t i = 0; i < got; ++i) {
      const UdpBatch::Message message = batch.message(i);
      datagrams += datagrams_in(message.bytes.size(), message.segment);
    }
    const std::size_t taken = batch.send_back(socket);
    counters.failed += got - taken;
    counters.packets += datagrams - (got - taken);
  }
  return counters;
}

}  // namespace agentnic::path
