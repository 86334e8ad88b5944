// SPDX-License-Identifier: Apache-2.0
#include "path/sockets/tcp.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>

#include <cerrno>

#include "base/clock.hpp"
#include "base/stop.hpp"

namespace agentnic::path {
namespace {

constexpr int kBacklog = 4096;  // net.core.somaxconn caps it

Result<UniqueFd> open_socket(const Address& address, const SocketOptions& options, int type) {
  UniqueFd fd(::socket(address.storage.ss_family, type | SOCK_CLOEXEC, 0));
  if (!fd) return fail_errno(errno, "open a TCP socket");
  ANIC_TRY(set_options(fd.get(), options));
  return fd;
}

void send_at_once(int fd) noexcept {
  const int on = 1;
  ::setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
}

// Not in connect() itself: work that the kernel does for an io_uring of this thread interrupts that, as a
// signal does.
Status wait_until_connected(int fd, const std::string& what, int timeout_ms) {
  const std::uint64_t until = monotonic_ns() + static_cast<std::uint64_t>(timeout_ms) * 1'000'000;
  pollfd waiting{fd, POLLOUT, 0};
  while (::poll(&waiting, 1, kStopCheckMs) <= 0) {
    if (stop_requested()) return fail(Exit::Failed, what + ": stopped");
    if (monotonic_ns() > until)
      return fail(Exit::Failed, fmt::format("{}: no answer for {} ms", what, timeout_ms));
  }
  int code = 0;
  socklen_t length = sizeof(code);
  ::getsockopt(fd, SOL_SOCKET, SO_ERROR, &code, &length);
  if (code != 0) return fail_errno(code, what);
  return {};
}

bool is_later(int code) noexcept { return code == EAGAIN || code == EWOULDBLOCK || code == EINTR; }

}  // namespace

Result<TcpStream> TcpStream::connect(const Address& peer, const SocketOptions& options, int timeout_ms) {
  const std::string what = "connect to " + peer.text();
  TcpStream made(ANIC_TRY(open_socket(peer, options, SOCK_STREAM | SOCK_NONBLOCK)));
  send_at_once(made.fd());
  if (::connect(made.fd(), peer.get(), peer.length) != 0) {
    if (errno != EINPROGRESS) return fail_errno(errno, what);
    ANIC_TRY(wait_until_connected(made.fd(), what, timeout_ms));
  }
  ::fcntl(made.fd(), F_SETFL, ::fcntl(made.fd(), F_GETFL) & ~O_NONBLOCK);
  return made;
}

Moved TcpStream::send(std::span<const std::byte> data, Wait wait) noexcept {
  const int flags = MSG_NOSIGNAL | (wait == Wait::Block ? 0 : MSG_DONTWAIT);
  const ssize_t sent = ::send(fd_.get(), data.data(), data.size(), flags);
  if (sent >= 0) return {.bytes = static_cast<std::size_t>(sent), .state = StreamState::Open};
  return {.bytes = 0, .state = is_later(errno) || errno == ENOBUFS ? StreamState::Open : StreamState::Reset};
}

Moved TcpStream::receive(std::span<std::byte> buffer, Wait wait) noexcept {
  const ssize_t got = ::recv(fd_.get(), buffer.data(), buffer.size(), wait == Wait::Block ? 0 : MSG_DONTWAIT);
  if (got > 0) return {.bytes = static_cast<std::size_t>(got), .state = StreamState::Open};
  if (got == 0) return {.bytes = 0, .state = buffer.empty() ? StreamState::Open : StreamState::Ended};
  return {.bytes = 0, .state = is_later(errno) ? StreamState::Open : StreamState::Reset};
}

void TcpStream::end() noexcept { ::shutdown(fd_.get(), SHUT_WR); }

void TcpStream::wait(bool readable, bool writable, std::uint64_t timeout_ns) const noexcept {
  const int events = (readable ? POLLIN : 0) | (writable ? POLLOUT : 0);
  wait_for_events(fd_.get(), static_cast<short>(events), timeout_ns);
}

Result<TcpListener> TcpListener::listen(const Address& local, const SocketOptions& options) {
  const std::string what = "listen at " + local.text();
  TcpListener made(ANIC_TRY(open_socket(local, options, SOCK_STREAM | SOCK_NONBLOCK)));
  send_at_once(made.fd());  // and those that it accepts
  const int on = 1;
  ::setsockopt(made.fd(), SOL_SOCKET, SO_REUSEADDR, &on,
               sizeof(on));  // connections of the one before may linger
  if (::bind(made.fd(), local.get(), local.length) != 0 || ::listen(made.fd(), kBacklog) != 0)
    return fail_errno(errno, what);
  return made;
}

Accepted TcpListener::accept(std::optional<TcpStream>& stream) noexcept {
  UniqueFd fd(::accept4(fd_.get(), nullptr, nullptr, SOCK_CLOEXEC));
  if (!fd) {
    const bool full = errno == EMFILE || errno == ENFILE || errno == ENOBUFS || errno == ENOMEM;
    return full ? Accepted::Full : Accepted::Nobody;
  }
  stream.emplace(std::move(fd));
  return Accepted::One;
}

void TcpListener::wait(std::uint64_t timeout_ns) const noexcept {
  wait_for_events(fd_.get(), POLLIN, timeout_ns);
}

void TcpListener::end() noexcept { ::shutdown(fd_.get(), SHUT_RDWR); }

}  // namespace agentnic::path
