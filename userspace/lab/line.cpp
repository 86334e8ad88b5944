// SPDX-License-Identifier: Apache-2.0
#include "lab/line.hpp"

#include <fmt/format.h>
#include <poll.h>

#include <algorithm>
#include <cstring>
#include <vector>

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
      // Neighbours that were not known at first, or have moved.
      if (wait == path::Wait::Block || ++looks_ % kLooksPerPoll == 0) sender_.poll();
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
    pollfd waiting{socket.fd(), POLLIN, 0};
    const timespec limit{.tv_sec = 0,
                         .tv_nsec = static_cast<long>(std::min<std::uint64_t>(timeout_ns, kPatienceNs))};
    ::ppoll(&waiting, 1, &limit, nullptr);
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
  std::uint64_t looks_ = 0;       ///< at an empty ring
};

}  // namespace

Result<std::unique_ptr<Line>> open_udp_line(const path::Address& server) {
  return std::make_unique<UdpLine>(ANIC_TRY(path::UdpSocket::connect(server)));
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
