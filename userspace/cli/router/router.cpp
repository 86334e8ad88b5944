// SPDX-License-Identifier: Apache-2.0
#include "cli/router/router.hpp"

#include <algorithm>
#include <cstdlib>
#include <cstring>

#include "base/clock.hpp"
#include "base/stop.hpp"

namespace agentnic::cli {
namespace {

constexpr std::uint64_t kExpireEveryNs = 100'000'000;
constexpr int kWaitMs = 100;

}  // namespace

Router::Router(path::XskClient& client, std::uint16_t port, path::Sender sender)
    : client_(&client), port_(port), sender_(std::move(sender)), slots_(kRouterSlots) {
  for (std::uint32_t number = kRouterSlots; number-- > 0;) free_.push_back(number);
}

Result<Router> Router::open(path::XskClient& client, std::uint16_t port,
                            const std::vector<path::Endpoint>& backends) {
  Router made(client, port, ANIC_TRY(path::Sender::open(client, {.port = port})));
  for (const path::Endpoint& one : backends) made.backends_.push_back({.at = one});
  made.counters_.of_backends.resize(backends.size());
  return made;
}

void Router::run(path::Wait wait) noexcept {
  const WakeUps wake_ups;
  while (!stop_requested() && !client_->gone()) {
    now_ns_ = monotonic_ns();
    bool idle = true;
    for (path::XskSocket& socket : client_->sockets()) {
      for (auto frames = socket.receive(); !frames.empty();) {
        idle = false;
        const auto packet = path::first_packet(frames);
        frames = frames.subspan(packet.size());
        take(socket, packet);
      }
    }
    if (now_ns_ >= expire_ns_) {
      sender_.poll();
      expire();
      expire_ns_ = now_ns_ + kExpireEveryNs;
    }
    if (client_->flush() && idle && wait == path::Wait::Block) client_->wait(kWaitMs);
  }
}

void Router::take(path::XskSocket& socket, std::span<xdp_desc> packet) {
  path::PieceList list;
  const path::Pieces pieces = client_->pieces(packet, list);
  const auto datagram = path::read_datagram(pieces);
  if (!datagram || datagram->destination.port != port_) {
    ++counters_.unread;
    return socket.recycle(packet);
  }
  const auto backend = std::ranges::find(backends_, datagram->source, &Backend::at);
  // The id is in the first frame, as the headers are.
  const bool whole = datagram->payload_length >= sizeof(std::uint64_t) &&
                     pieces.front().size() >= datagram->payload_offset() + sizeof(std::uint64_t);
  if (!whole) {
    ++counters_.refused;
    return socket.recycle(packet);
  }
  const bool taken =
      backend == backends_.end()
          ? pass_on(socket, packet, pieces, *datagram)
          : give_back(socket, packet, *datagram, static_cast<std::uint32_t>(backend - backends_.begin()));
  if (!taken) socket.recycle(packet);
}

/// A request, to a backend. False: the frames are still here.
bool Router::pass_on(path::XskSocket& socket, std::span<xdp_desc> packet, path::Pieces pieces,
                     const path::Datagram& request) {
  auto back = path::Flow::back(pieces.front(), request);
  if (!back || free_.empty()) {
    ++counters_.refused;
    return false;
  }
  // The fewest, and of these the next in turn.
  std::size_t chosen = next_backend_ % backends_.size();
  for (std::size_t i = 1; i < backends_.size(); ++i) {
    const std::size_t other = (next_backend_ + i) % backends_.size();
    if (backends_[other].waiting < backends_[chosen].waiting) chosen = other;
  }
  next_backend_ = chosen + 1;
  const std::uint32_t number = free_.back();
  free_.pop_back();
  Slot& slot = slots_[number];
  std::byte* id = pieces.front().data() + request.payload_offset();
  std::memcpy(&slot.id, id, sizeof(slot.id));
  slot.back = *back;
  slot.use = ::arc4random();  // nobody guesses whose answer it is
  slot.backend = static_cast<std::uint32_t>(chosen);
  slot.until_ns = now_ns_ + kRouterTimeoutNs;
  const std::uint64_t tag = std::uint64_t{slot.use} << 32U | number;
  std::memcpy(id, &tag, sizeof(tag));
  ++backends_[chosen].waiting;
  if (!sender_.send(socket, packet, request.payload_offset(), request.payload_length, backends_[chosen].at)) {
    ++counters_.unsent;
    free(number);
    return true;  // its frames are gone
  }
  ++counters_.requests;
  ++counters_.of_backends[chosen];
  return true;
}

/// An answer, to who asked. False: the frames are still here.
bool Router::give_back(path::XskSocket& socket, std::span<xdp_desc> packet, const path::Datagram& answer,
                       std::uint32_t backend) {
  std::uint64_t tag = 0;
  std::byte* id = client_->data(packet.front()) + answer.payload_offset();
  std::memcpy(&tag, id, sizeof(tag));
  const auto number = static_cast<std::uint32_t>(tag);
  Slot* slot = number < slots_.size() ? &slots_[number] : nullptr;
  if (slot == nullptr || !slot->back || slot->use != tag >> 32U || slot->backend != backend) {
    ++counters_.unknown;
    return false;
  }
  std::memcpy(id, &slot->id, sizeof(slot->id));
  const bool sent = path::send_datagram(*client_, socket, packet, answer.payload_offset(),
                                        answer.payload_length, *slot->back);
  free(number);
  ++(sent ? counters_.answers : counters_.unsent);
  return true;
}

void Router::free(std::uint32_t number) noexcept {
  Slot& slot = slots_[number];
  --backends_[slot.backend].waiting;
  slot.back.reset();
  free_.push_back(number);
}

void Router::expire() noexcept {
  for (std::uint32_t number = 0; number < slots_.size(); ++number) {
    if (!slots_[number].back || slots_[number].until_ns > now_ns_) continue;
    ++counters_.timeouts;
    free(number);
  }
}

}  // namespace agentnic::cli
