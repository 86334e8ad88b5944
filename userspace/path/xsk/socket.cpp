// SPDX-License-Identifier: Apache-2.0
#include "path/xsk/socket.hpp"

#include <linux/if_ether.h>
#include <linux/if_xdp.h>
#include <sys/socket.h>

#include <algorithm>
#include <cerrno>
#include <utility>

namespace agentnic::path {
namespace {

constexpr std::uint32_t kFramesPerKick = 32;  // TX_BATCH_SIZE of net/xdp/xsk.c
// Looks at an empty ring after which it is found out what was lost of what it waits for.
constexpr std::uint32_t kIdleLooks = 4096;
constexpr std::uint32_t kRefusedLooks =
    64;  // ... and whether frames took path A, which XDP writes on another CPU
constexpr std::uint32_t kFillBatch = 16;  // frames: fewer are given to the kernel only when it has few
constexpr std::uint32_t kLinkBytes = ETH_HLEN + 8;  // two VLAN tags

/// From the kernel's side: what it has produced and the user has not consumed, or the other way round.
std::uint32_t between(const std::uint32_t* producer, const std::uint32_t* consumer) noexcept {
  return __atomic_load_n(producer, __ATOMIC_ACQUIRE) - __atomic_load_n(consumer, __ATOMIC_ACQUIRE);
}

/// Zeros of one that does not say.
xdp_statistics statistics(int fd) noexcept {
  xdp_statistics found{};
  socklen_t size = sizeof(found);
  if (::getsockopt(fd, SOL_XDP, XDP_STATISTICS, &found, &size) != 0) return {};
  return found;
}

bool continues(const xdp_desc& frame) noexcept { return (frame.options & kXskContinues) != 0; }

}  // namespace

std::span<xdp_desc> first_packet(std::span<xdp_desc> frames) noexcept {
  const auto last = std::ranges::find_if_not(frames, continues);
  return frames.first(static_cast<std::size_t>(last - frames.begin()) + (last == frames.end() ? 0 : 1));
}

Result<XskSocket> XskSocket::adopt(XskGrant& grant, std::size_t number, Umem& memory) {
  XskQueueGrant& own = grant.queues[number];
  XskSocket made;
  made.memory_ = &memory;
  made.socket_ = std::move(own.socket);
  made.transmit_ = std::move(own.transmit);
  const UniqueFd page = std::move(own.page);
  auto rings = std::exchange(own.rings, std::nullopt);
  made.rings_ = rings ? std::move(*rings)
                      : ANIC_TRY(XskRings::map(made.socket_.get(), made.transmit_.get(), grant.shape.frames));
  made.queue_ = own.queue;
  made.zero_copy_ = own.zero_copy;
  made.busy_poll_ = grant.shape.busy_poll_us != 0;
  made.level_ = made.receiving_ = xsk_fill_level(grant.shape, grant.queues.size());
  const std::uint32_t of_frame = grant.shape.frame_bytes - kXskHeadroom;
  std::uint32_t longest = of_frame;
  if (grant.shape.multi_buffer) {
    longest = grant.mtu + kLinkBytes;
    made.frames_per_packet_ = (longest + of_frame - 1) / of_frame;
  }
  if (page) made.page_ = ANIC_TRY(OwnerPage::open(page.get(), made.room(), longest));
  return made;
}

/// Gives the kernel frames until it has what it should have, as far as there are any.
void XskSocket::fill() noexcept {
  const std::uint32_t count = std::min(level_ - receiving_, memory_->free());
  if (count == 0 || (count < kFillBatch && receiving_ > level_ / 2)) return;
  std::uint32_t index = 0;
  xsk_ring_prod__reserve(&rings_.fill, count,
                         &index);  // there is room: the ring is as long as there are frames
  for (std::uint32_t i = 0; i < count; ++i)
    *xsk_ring_prod__fill_addr(&rings_.fill, index + i) = memory_->take(FrameAt::Receiving);
  xsk_ring_prod__submit(&rings_.fill, count);
  receiving_ += count;
}

std::span<xdp_desc> XskSocket::receive() noexcept {
  fill();
  if (receiving_ == 0) ++counters_.starved;
  std::uint32_t index = 0;
  const std::uint32_t seen = xsk_ring_cons__peek(&rings_.rx, kXskBatch, &index);
  if (seen == 0 && (busy_poll_ || xsk_ring_prod__needs_wakeup(&rings_.fill) != 0)) {
    // Polls the device; or tells a driver that has found the fill ring empty that it no longer is.
    ::recvfrom(socket_.get(), nullptr, 0, MSG_DONTWAIT, nullptr, nullptr);
  }
  std::uint32_t count = 0;
  std::uint32_t packets = 0;
  for (std::uint32_t i = 0; i < seen; ++i) {
    batch_[i] = *xsk_ring_cons__rx_desc(&rings_.rx, index + i);
    memory_->prefetch(batch_[i].addr);
    if (continues(batch_[i])) continue;
    count = i + 1;
    ++packets;
  }
  if (count != seen) {  // the rest of a packet comes later; what peek() knows of the ring must not end here
    xsk_ring_cons__cancel(&rings_.rx, seen - count);
    rings_.rx.cached_prod = __atomic_load_n(rings_.rx.producer, __ATOMIC_ACQUIRE);
  }
  for (std::uint32_t i = 0; i < count; ++i) take(batch_[i]);
  if (count != 0) xsk_ring_cons__release(&rings_.rx, count);
  receiving_ -= count;
  counters_.received += packets;
  const bool look = count == 0 && ++idle_looks_ % kIdleLooks == 0;
  if (look) look_whether_gone();
  if (page_) {
    if (const auto number = page_->looked(packets, room())) begin_sample(*number);
    if (look || (count == 0 && idle_looks_ % kRefusedLooks == 0 && page_->refused() != refused_)) settle();
  }
  return {batch_, count};
}

void XskSocket::take(const xdp_desc& frame) noexcept {
  counters_.misused += !memory_->move(frame.addr, FrameAt::Receiving, FrameAt::Held);
  if (memory_->begin_of(frame.addr) != sampled_) return;
  sampled_ = kNoFrame;  // it left by another socket
  sample_leaves_ = false;
  page_->given_up();
}

/// Of the packet with this number in the batch, the frame that it begins in: the answer is in the same.
void XskSocket::begin_sample(std::uint32_t number) noexcept {
  const xdp_desc* frame = batch_;
  for (; number > 0; ++frame) number -= continues(*frame) ? 0 : 1;
  sampled_ = memory_->begin_of(frame->addr);
}

void XskSocket::send(const xdp_desc& frame) noexcept {
  if (!memory_->move(frame.addr, FrameAt::Held, FrameAt::Sending)) {
    ++counters_.misused;
    return;
  }
  std::uint32_t index = 0;
  xsk_ring_prod__reserve(&rings_.tx, 1, &index);
  *xsk_ring_prod__tx_desc(&rings_.tx, index) = frame;
  ++unsent_;
  sample_leaves_ |= memory_->begin_of(frame.addr) == sampled_;
  counters_.sent += !continues(frame);
}

void XskSocket::recycle(const xdp_desc& frame) noexcept {
  if (memory_->begin_of(frame.addr) == sampled_) {
    sampled_ = kNoFrame;
    page_->given_up();
  }
  counters_.misused += !memory_->move(frame.addr, FrameAt::Held, FrameAt::Free);
}

void XskSocket::send(std::span<const xdp_desc> packet) noexcept {
  for (const xdp_desc& frame : packet) send(frame);
}

void XskSocket::recycle(std::span<const xdp_desc> packet) noexcept {
  for (const xdp_desc& frame : packet) recycle(frame);
}

/// poll() does not tell: of a socket that is bound to nothing any more it says nothing at all.
bool XskSocket::look_whether_gone() noexcept {
  gone_ =
      gone_ || (::recvfrom(socket_.get(), nullptr, 0, MSG_DONTWAIT, nullptr, nullptr) < 0 && errno == ENXIO);
  return gone_;
}

bool XskSocket::flush() noexcept {
  if (unsent_ != 0) {
    xsk_ring_prod__submit(&rings_.tx, unsent_);
    in_flight_ += unsent_;
    unsent_ = 0;
    kick_ = true;
  }
  if (in_flight_ == 0) return true;
  kick_ =
      kick_ || (zero_copy_ && xsk_ring_prod__needs_wakeup(&rings_.tx) != 0);  // it slept before it had all
  bool later = true;  // what is left is for the kernel to do, or nobody can
  // Copy mode sends inside the call, 32 frames at most; EAGAIN says that there are more.
  for (std::uint32_t tries = 0; kick_ && tries < memory_->frames() / kFramesPerKick; ++tries) {
    kick_ = (busy_poll_ || xsk_ring_prod__needs_wakeup(&rings_.tx) != 0) &&
            ::sendto(transmit_.get(), nullptr, 0, MSG_DONTWAIT, nullptr, 0) < 0;
    later = !kick_;
    if (kick_ && errno != EAGAIN) {
      ++counters_.refused_kicks;
      later = errno == ENETDOWN || errno == ENXIO;  // the interface is down, or gone
      break;
    }
  }
  if (page_ && !kick_) page_->transmitted(counters_.sent);
  if (sample_leaves_ && !kick_) {
    sample_leaves_ = false;
    sampled_ = kNoFrame;
    page_->turned();
  }
  std::uint32_t index = 0;
  const std::uint32_t count = xsk_ring_cons__peek(&rings_.completion, in_flight_, &index);
  for (std::uint32_t i = 0; i < count; ++i) {
    const std::uint64_t address = *xsk_ring_cons__comp_addr(&rings_.completion, index + i);
    counters_.misused += !memory_->move(address, FrameAt::Sending, FrameAt::Free);
  }
  if (count != 0) xsk_ring_cons__release(&rings_.completion, count);
  in_flight_ -= count;
  return later;
}

/// For how many packets there are frames, with some to spare for CPUs that come at the same time. A driver
/// that does zero-copy fills its own ring with them: half of them stay there, or nothing at all would come
/// in.
std::uint32_t XskSocket::room() const noexcept {
  const std::uint32_t spare = kXskBatch + (zero_copy_ ? level_ / 2 : 0);
  return (receiving_ - std::min(spare, receiving_)) / frames_per_packet_;
}

void XskSocket::rest() noexcept {
  fill();
  if (page_) page_->looked(0, room());
}

/// The ring is empty, and the kernel counts what did not get there.
void XskSocket::settle() noexcept {
  if (!page_) return;
  page_->lives();
  refused_ = page_->refused();
  if (!page_->waits()) return;
  const xdp_statistics received = statistics(socket_.get());
  page_->lost(received.rx_dropped + received.rx_ring_full);
}

XskLosses XskSocket::losses() const noexcept {
  const xdp_statistics received = statistics(socket_.get());
  return {.rx_dropped = received.rx_dropped,
          .rx_ring_full = received.rx_ring_full,
          .fill_ring_empty = received.rx_fill_ring_empty_descs,
          .rx_invalid = received.rx_invalid_descs,
          .tx_invalid = statistics(transmit_.get()).tx_invalid_descs};
}

XskOccupancy XskSocket::occupancy() const noexcept {
  return {.fill = between(rings_.fill.producer, rings_.fill.consumer),
          .receive = between(rings_.rx.producer, rings_.rx.consumer),
          .transmit = between(rings_.tx.producer, rings_.tx.consumer),
          .completion = between(rings_.completion.producer, rings_.completion.consumer)};
}

}  // namespace agentnic::path
