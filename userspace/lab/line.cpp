// SPDX-License-Identifier: Apache-2.0
#include "lab/line.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <deque>
#include <vector>

#include "path/sockets/poller.hpp"
#include "path/xsk/datagram.hpp"
#include "path/xsk/sender.hpp"

namespace agentnic::lab {
namespace {

constexpr std::size_t kLongest = 65507;            // payload of UDP over IPv4
constexpr std::uint64_t kPatienceNs = 40'000'000;  // less than ANIC_OWNER_STALE_NS
constexpr std::uint64_t kLooksPerPoll = 1 << 16;   // some milliseconds
constexpr std::uint16_t kXskPort = 40000;          // that requests over AF_XDP come from

class UdpLine final : public Line {
 public:
  explicit UdpLine(path::UdpSocket socket) : socket_(std::move(socket)), in_(kLongest) {}
  bool send(std::span<const std::byte> payload) noexcept override { return socket_.send(payload); }
  std::optional<std::span<const std::byte>> receive(path::Wait wait) noexcept override {
    const auto size = socket_.receive(in_, wait);
    if (!size) return std::nullopt;
    return std::span<const std::byte>(in_).first(*size);
  }
  void wait_readable(std::uint64_t timeout_ns) noexcept override { socket_.wait_readable(timeout_ns); }
  [[nodiscard]] std::uint64_t drops() const noexcept override { return socket_.drops(); }

 private:
  path::UdpSocket socket_;
  std::vector<std::byte> in_;
};

class TcpLine final : public Line {
 public:
  TcpLine(path::TcpStream stream, std::size_t size) : stream_(std::move(stream)), in_(size) {}

  // What there is no room for leaves with the next call; until then, nothing more is taken.
  bool send(std::span<const std::byte> payload) noexcept override {
    if (!flush()) return false;
    const path::Moved sent = stream_.send(payload);
    if (sent.state != path::StreamState::Open || sent.bytes == 0) return false;
    rest_.assign(payload.begin() + static_cast<std::ptrdiff_t>(sent.bytes), payload.end());
    return true;
  }
  std::optional<std::span<const std::byte>> receive(path::Wait wait) noexcept override {
    if (got_ == in_.size()) got_ = 0;
    do {
      const bool all_left = flush();
      if (!all_left && wait == path::Wait::Block) stream_.wait(true, true, kPatienceNs);
      const path::Moved moved =
          stream_.receive(std::span(in_).subspan(got_), all_left ? wait : path::Wait::Spin);
      got_ += moved.bytes;
      if (moved.bytes == 0) return std::nullopt;
    } while (got_ < in_.size());
    return in_;
  }
  void wait_readable(std::uint64_t timeout_ns) noexcept override { stream_.wait(true, !flush(), timeout_ns); }
  [[nodiscard]] std::uint64_t drops() const noexcept override { return 0; }  // TCP repeats them

 private:
  bool flush() noexcept {
    if (rest_.empty()) return true;
    const path::Moved sent = stream_.send(rest_);
    rest_.erase(rest_.begin(), rest_.begin() + static_cast<std::ptrdiff_t>(sent.bytes));
    return rest_.empty();
  }
  path::TcpStream stream_;
  std::vector<std::byte> rest_;  ///< of the last request
  std::vector<std::byte> in_;
  std::size_t got_ = 0;  ///< of the answer
};

/// Several connections with one request each.
class TcpLines final : public Line {
 public:
  static Result<std::unique_ptr<Line>> open(std::vector<path::TcpStream> streams, std::size_t size,
                                            const path::BusyPoll& busy_poll) {
    auto made = std::make_unique<TcpLines>(ANIC_TRY(path::Poller::open(busy_poll)));
    for (path::TcpStream& stream : streams) {
      const int fd = stream.fd();
      ANIC_TRY(made->poller_.add(fd, EPOLLIN));
      made->by_fd_.resize(std::max<std::size_t>(made->by_fd_.size(), static_cast<std::size_t>(fd) + 1));
      made->by_fd_[static_cast<std::size_t>(fd)] = std::make_unique<TcpLine>(std::move(stream), size);
      made->idle_.push_back(fd);
    }
    return made;
  }
  explicit TcpLines(path::Poller poller) : poller_(std::move(poller)) {}

  bool send(std::span<const std::byte> payload) noexcept override {
    if (idle_.empty()) return false;
    const int fd = idle_.front();
    idle_.pop_front();
    if (line(fd).send(payload)) return true;
    idle_.push_back(fd);
    return false;
  }
  std::optional<std::span<const std::byte>> receive(path::Wait wait) noexcept override {
    if (ready_.empty()) ready_ = poller_.wait(events_, wait);
    while (!ready_.empty()) {
      const int fd = ready_.front().data.fd;
      ready_ = ready_.subspan(1);
      const auto answer = line(fd).receive(path::Wait::Spin);
      if (!answer) continue;  // a part of it, or none any more
      idle_.push_back(fd);
      return answer;
    }
    return std::nullopt;
  }
  void wait_readable(std::uint64_t timeout_ns) noexcept override {
    if (!ready_.empty()) return;
    poller_.wait_ready(timeout_ns);
    ready_ = poller_.wait(events_, path::Wait::Spin);
  }
  [[nodiscard]] std::uint64_t drops() const noexcept override { return 0; }

 private:
  TcpLine& line(int fd) noexcept { return *by_fd_[static_cast<std::size_t>(fd)]; }
  path::Poller poller_;
  std::vector<std::unique_ptr<TcpLine>> by_fd_;
  std::deque<int> idle_;  ///< each has its turn
  std::array<epoll_event, 256> events_{};
  std::span<const epoll_event> ready_;
};

/// Requests and answers of one frame each.
class XskLine final : public Line {
 public:
  /// The client has its place already: the sender borrows it.
  XskLine(std::unique_ptr<path::XskClient> client, path::Sender sender, const path::Endpoint& server)
      : client_(std::move(client)), sender_(std::move(sender)), server_(server) {}

  bool send(std::span<const std::byte> payload) noexcept override {
    path::XskSocket& socket = client_->sockets().front();
    auto frame = client_->take();
    if (!frame || payload.size() > frame->len - path::Sender::kHeadroom) {
      if (frame) socket.recycle(*frame);
      client_->flush();
      return false;
    }
    std::memcpy(client_->data(*frame) + path::Sender::kHeadroom, payload.data(), payload.size());
    return sender_.send(socket, {&*frame, 1}, path::Sender::kHeadroom, payload.size(), server_).has_value();
  }

  // What was queued leaves with the next look, several at a time.
  std::optional<std::span<const std::byte>> receive(path::Wait wait) noexcept override {
    path::XskSocket& socket = client_->sockets().front();
    if (held_) {
      socket.recycle(*held_);
      held_.reset();
    }
    if (frames_.empty()) {
      const bool all_left = client_->flush();
      // Neighbours that were not known when something was sent, or have moved.
      if (sender_.counters().by_kernel != by_kernel_ || ++looks_ % kLooksPerPoll == 0) {
        by_kernel_ = sender_.counters().by_kernel;
        sender_.poll();
      }
      frames_ = socket.receive();
      if (frames_.empty() && all_left && wait == path::Wait::Block && client_->wait(-1))
        frames_ = socket.receive();
    }
    while (!frames_.empty()) {
      const xdp_desc frame = frames_.front();
      frames_ = frames_.subspan(1);
      const auto bytes = client_->bytes(frame);
      const auto datagram = path::read_datagram({&bytes, 1});
      if (datagram && datagram->destination.port == kXskPort && datagram->source == server_) {
        held_ = frame;
        return bytes.subspan(datagram->payload_offset(), datagram->payload_length);
      }
      socket.recycle(frame);
    }
    return std::nullopt;
  }

  void wait_readable(std::uint64_t timeout_ns) noexcept override {
    if (!frames_.empty() || !client_->flush()) return;
    path::XskSocket& socket = client_->sockets().front();
    socket.rest();
    path::wait_for_events(socket.fd(), POLLIN, std::min<std::uint64_t>(timeout_ns, kPatienceNs));
    socket.settle();
  }

  [[nodiscard]] std::uint64_t drops() const noexcept override {
    const path::XskLosses losses = client_->sockets().front().losses();
    return losses.rx_dropped + losses.rx_ring_full;
  }

 private:
  std::unique_ptr<path::XskClient> client_;
  path::Sender sender_;
  path::Endpoint server_;
  std::span<xdp_desc> frames_;
  std::optional<xdp_desc> held_;  ///< whose payload the caller has
  std::uint64_t by_kernel_ = 0;   ///< sent so, when the kernel was last asked about neighbours
  std::uint64_t looks_ = 0;       ///< at the ring
};

}  // namespace

Result<std::unique_ptr<Line>> open_udp_line(const path::Address& server, const path::SocketOptions& options) {
  return std::make_unique<UdpLine>(ANIC_TRY(path::UdpSocket::connect(server, options)));
}

Result<std::unique_ptr<Line>> open_tcp_line(const path::Address& server, std::size_t size,
                                            unsigned connections, const path::SocketOptions& options) {
  std::vector<path::TcpStream> streams;
  for (unsigned i = 0; i < connections; ++i)
    streams.push_back(ANIC_TRY(path::TcpStream::connect(server, options)));
  if (connections > 1) return TcpLines::open(std::move(streams), size, options.busy_poll);
  return std::make_unique<TcpLine>(std::move(streams.front()), size);
}

Result<std::unique_ptr<Line>> open_xsk_line(path::XskClient client, const path::Address& server,
                                            std::size_t size) {
  const std::size_t most = client.memory().frame_bytes() - path::Sender::kHeadroom;
  if (size > most)
    return fail(Exit::BadInput,
                fmt::format("a request of {} bytes over AF_XDP: {} fit into a frame", size, most));
  auto kept = std::make_unique<path::XskClient>(std::move(client));
  auto sender = ANIC_TRY(path::Sender::open(*kept, {.port = kXskPort}));
  return std::make_unique<XskLine>(std::move(kept), std::move(sender), path::Endpoint::from(server));
}

}  // namespace agentnic::lab
