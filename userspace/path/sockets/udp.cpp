// SPDX-License-Identifier: Apache-2.0
#include "path/sockets/udp.hpp"

#include <linux/sock_diag.h>
#include <poll.h>

#include <array>
#include <cerrno>
#include <ctime>
#include <utility>

#include "base/stop.hpp"

namespace agentnic::path {
namespace {

constexpr int kBufferBytes = 4 << 20;  // asked for; the kernel caps it at net.core.rmem_max
constexpr std::size_t kDatagramMax = 65536;

}  // namespace

Result<UdpSocket> UdpSocket::open(int family, const SocketOptions& options) {
  UniqueFd fd(::socket(family, SOCK_DGRAM | SOCK_CLOEXEC, 0));
  if (!fd) return fail_errno(errno, "open a UDP socket");
  SocketOptions all = options;
  if (all.buffer_bytes == 0) all.buffer_bytes = kBufferBytes;
  ANIC_TRY(set_options(fd.get(), all));
  return UdpSocket(std::move(fd));
}

Result<UdpSocket> UdpSocket::bind(const Address& local, const SocketOptions& options) {
  UdpSocket made = ANIC_TRY(open(local.storage.ss_family, options));
  if (::bind(made.fd_.get(), local.get(), local.length) != 0)
    return fail_errno(errno, "bind a UDP socket to " + local.text());
  return made;
}

Result<UdpSocket> UdpSocket::connect(const Address& peer, const SocketOptions& options) {
  UdpSocket made = ANIC_TRY(open(peer.storage.ss_family, options));
  if (::connect(made.fd_.get(), peer.get(), peer.length) != 0)
    return fail_errno(errno, "connect a UDP socket to " + peer.text());
  return made;
}

bool UdpSocket::send(std::span<const std::byte> data) noexcept {
  return ::send(fd_.get(), data.data(), data.size(), MSG_DONTWAIT) == static_cast<ssize_t>(data.size());
}

bool UdpSocket::send_to(std::span<const std::byte> data, const Address& peer) noexcept {
  return ::sendto(fd_.get(), data.data(), data.size(), MSG_DONTWAIT, peer.get(), peer.length) ==
         static_cast<ssize_t>(data.size());
}

std::optional<std::size_t> UdpSocket::receive(std::span<std::byte> buffer, Wait wait) noexcept {
  const ssize_t got = ::recv(fd_.get(), buffer.data(), buffer.size(), wait == Wait::Spin ? MSG_DONTWAIT : 0);
  if (got < 0) return std::nullopt;
  return static_cast<std::size_t>(got);
}

std::optional<std::size_t> UdpSocket::receive_from(std::span<std::byte> buffer, Wait wait,
                                                   Address& peer) noexcept {
  peer.length = sizeof(peer.storage);
  const ssize_t got =
      ::recvfrom(fd_.get(), buffer.data(), buffer.size(), wait == Wait::Spin ? MSG_DONTWAIT : 0,
                 reinterpret_cast<sockaddr*>(&peer.storage), &peer.length);
  if (got < 0) return std::nullopt;
  return static_cast<std::size_t>(got);
}

void UdpSocket::wait_readable(std::uint64_t timeout_ns) const noexcept {
  wait_for_events(fd_.get(), POLLIN, timeout_ns);
}

std::uint64_t UdpSocket::drops() const noexcept {
  std::array<std::uint32_t, SK_MEMINFO_VARS> info{};
  socklen_t size = sizeof(info);
  if (::getsockopt(fd_.get(), SOL_SOCKET, SO_MEMINFO, info.data(), &size) != 0) return 0;
  return info[SK_MEMINFO_DROPS];
}

EchoCounters echo_udp(UdpSocket& socket, Wait wait) noexcept {
  const WakeUps wake_ups;
  EchoCounters counters;
  alignas(64) std::byte buffer[kDatagramMax];
  Address peer;
  while (!stop_requested()) {
    const auto got = socket.receive_from(buffer, wait, peer);
    if (!got) continue;
    if (socket.send_to({buffer, *got}, peer)) {
      ++counters.packets;
    } else {
      ++counters.failed;
    }
  }
  return counters;
}

}  // namespace agentnic::path
