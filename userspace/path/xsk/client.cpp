// SPDX-License-Identifier: Apache-2.0
#include "path/xsk/client.hpp"

#include <poll.h>

#include <algorithm>

namespace agentnic::path {
namespace {

// Shorter than ANIC_OWNER_STALE_NS: a sleep that nothing ended, because what was to come was lost, is not a
// stall.
constexpr int kPatienceMs = 40;
static_assert(kPatienceMs * 1'000'000LL < ANIC_OWNER_STALE_NS);

}  // namespace

Result<XskClient> XskClient::adopt(XskGrant grant) {
  ANIC_TRY(check_shape(grant.shape, grant.queues.size()));
  XskClient made;
  const std::size_t count = grant.queues.size();
  const std::uint32_t receiving = xsk_fill_level(grant.shape, count) * static_cast<std::uint32_t>(count);
  made.memory_ = std::make_unique<Umem>(ANIC_TRY(Umem::map(grant.memory.get(), grant.shape, receiving)));
  for (std::size_t number = 0; number < count; ++number) {
    made.sockets_.push_back(ANIC_TRY(XskSocket::adopt(grant, number, *made.memory_)));
  }
  made.grant_ = std::move(grant);
  return made;
}

std::span<const std::span<std::byte>> XskClient::pieces(std::span<const xdp_desc> packet,
                                                        PieceList& list) const noexcept {
  for (std::size_t i = 0; i < packet.size(); ++i) list[i] = bytes(packet[i]);
  return std::span(list).first(packet.size());
}

std::optional<xdp_desc> XskClient::take() noexcept {
  if (memory_->free() == 0) return std::nullopt;
  return xdp_desc{.addr = memory_->take(FrameAt::Held), .len = memory_->frame_bytes(), .options = 0};
}

bool XskClient::flush() noexcept {
  bool all = true;
  for (XskSocket& socket : sockets_) all = socket.flush() && all;
  return all;
}

bool XskClient::gone() const noexcept { return std::ranges::any_of(sockets_, &XskSocket::gone); }

bool XskClient::wait(int timeout_ms) noexcept {
  pollfd waiting[kXskQueuesMax];
  for (std::size_t i = 0; i < sockets_.size(); ++i) waiting[i] = {sockets_[i].fd(), POLLIN, 0};
  do {
    for (XskSocket& socket : sockets_) socket.rest();
    const int slice = timeout_ms < 0 ? kPatienceMs : std::min(timeout_ms, kPatienceMs);
    const int ready = ::poll(waiting, sockets_.size(), slice);
    if (ready > 0) return true;
    for (XskSocket& socket : sockets_) {
      socket.flush();  // what was sent meanwhile is there to receive into
      socket.settle();
      if (socket.look_whether_gone()) return true;
    }
    if (ready < 0) return false;
    if (timeout_ms > 0) timeout_ms -= slice;
  } while (timeout_ms != 0);
  return false;
}

}  // namespace agentnic::path
