// SPDX-License-Identifier: Apache-2.0
#include "path/sockets/tcp_echo.hpp"

#include <algorithm>
#include <array>
#include <optional>

#include "base/clock.hpp"
#include "base/stop.hpp"

namespace agentnic::path {
namespace {

constexpr std::size_t kEvents = 256;
constexpr std::uint64_t kRetryNs = 100'000'000;  // others may have given up what is missing
constexpr int kAcceptBatch = 64;                 // before those that are there are served again

}  // namespace

TcpEcho::TcpEcho(TcpListener listener, Poller poller)
    : listener_(std::move(listener)), poller_(std::move(poller)), buffer_(kReadBytes) {}

Result<TcpEcho> TcpEcho::open(TcpListener listener, const BusyPoll& busy_poll) {
  TcpEcho made(std::move(listener), ANIC_TRY(Poller::open(busy_poll)));
  ANIC_TRY(made.poller_.add(made.listener_.fd(), EPOLLIN));
  return made;
}

const TcpEchoCounters& TcpEcho::run(Wait wait, const std::stop_token& stop) {
  std::array<epoll_event, kEvents> list{};
  while (!stop.stop_requested() && !stop_requested()) {
    if (full_ && monotonic_ns() >= retry_ns_) full_ = !poller_.add(listener_.fd(), EPOLLIN);
    for (const epoll_event& event : poller_.wait(list, wait)) {
      if (event.data.fd == listener_.fd()) {
        accept_all();
      } else {
        serve(event.data.fd, event.events);
      }
    }
  }
  return counters_;
}

void TcpEcho::accept_all() {
  for (int i = 0; i < kAcceptBatch; ++i) {
    std::optional<TcpStream> stream;
    switch (listener_.accept(stream)) {
      case Accepted::Nobody:
        return;
      case Accepted::Full:  // it would be told again and again
        ++counters_.full;
        full_ = true;
        retry_ns_ = monotonic_ns() + kRetryNs;
        poller_.remove(listener_.fd());
        return;
      case Accepted::One:
        break;
    }
    const int fd = stream->fd();
    if (!poller_.add(fd, EPOLLIN)) continue;
    const auto at = static_cast<std::size_t>(fd);
    if (at >= by_fd_.size()) by_fd_.resize(at + 1);
    by_fd_[at] = std::make_unique<Connection>(Connection{.stream = std::move(*stream), .held = {}});
    ++counters_.accepted;
    counters_.most = std::max(counters_.most, ++open_);
  }
}

void TcpEcho::serve(int fd, std::uint32_t events) {
  const auto at = static_cast<std::size_t>(fd);
  if (at >= by_fd_.size() || !by_fd_[at]) return;  // closed by an event before this one
  Connection& connection = *by_fd_[at];
  StreamState state = StreamState::Open;
  if (!connection.held.empty()) {
    state = (events & (EPOLLERR | EPOLLHUP)) != 0 ? StreamState::Reset : send_held(connection);
  } else {
    state = read_and_echo(connection);
  }
  if (state != StreamState::Open) close(fd, state == StreamState::Reset);
}

/// Ended: the peer was done, and has all.
StreamState TcpEcho::read_and_echo(Connection& connection) {
  const Moved got = connection.stream.receive(buffer_);
  if (got.state != StreamState::Open || got.bytes == 0) return got.state;
  const Moved sent = connection.stream.send(std::span(buffer_).first(got.bytes));
  counters_.bytes += sent.bytes;
  if (sent.state != StreamState::Open || sent.bytes == got.bytes) return sent.state;
  ++counters_.slow;
  connection.held.assign(buffer_.begin() + static_cast<std::ptrdiff_t>(sent.bytes),
                         buffer_.begin() + static_cast<std::ptrdiff_t>(got.bytes));
  poller_.change(connection.stream.fd(), EPOLLOUT);
  return StreamState::Open;
}

StreamState TcpEcho::send_held(Connection& connection) {
  const Moved sent = connection.stream.send(connection.held);
  counters_.bytes += sent.bytes;
  connection.held.erase(connection.held.begin(),
                        connection.held.begin() + static_cast<std::ptrdiff_t>(sent.bytes));
  if (connection.held.empty()) poller_.change(connection.stream.fd(), EPOLLIN);
  return sent.state;
}

void TcpEcho::close(int fd, bool is_reset) {
  ++(is_reset ? counters_.reset : counters_.ended);
  by_fd_[static_cast<std::size_t>(fd)].reset();
  --open_;
  if (full_) full_ = !poller_.add(listener_.fd(), EPOLLIN);
}

}  // namespace agentnic::path
