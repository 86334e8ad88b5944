// SPDX-License-Identifier: Apache-2.0
#include "path/xsk/socket.hpp"

#include <fmt/format.h>
#include <linux/if_xdp.h>
#include <poll.h>
#include <sys/mman.h>
#include <sys/socket.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <thread>

namespace agentnic::path {
namespace {

constexpr std::size_t kAreaBytes = std::size_t{XskSocket::kFrames} * XskSocket::kFrameBytes;
// The kernel tears a closed socket down later, and answers EBUSY until then.
constexpr int kBusyTries = 100;
constexpr std::uint32_t kFramesPerKick = 32;  // TX_BATCH_SIZE of net/xdp/xsk.c
// Looks at an empty ring, and sleep, after which it is found out what was lost of what it waits for. Sleep is
// shorter than ANIC_OWNER_STALE_NS: one that was not woken, because a frame was lost, is not stalled.
constexpr std::uint32_t kIdleLooks = 4096;
constexpr int kPatienceMs = 40;
static_assert(kPatienceMs * 1'000'000LL < ANIC_OWNER_STALE_NS);
constexpr auto kBusyPause = std::chrono::milliseconds(10);

std::uint16_t bind_flags(XskBind bind) {
  switch (bind) {
    case XskBind::Copy:
      return XDP_USE_NEED_WAKEUP | XDP_COPY;
    case XskBind::ZeroCopy:
      return XDP_USE_NEED_WAKEUP | XDP_ZEROCOPY;
    case XskBind::Auto:
      break;
  }
  return XDP_USE_NEED_WAKEUP;
}

}  // namespace

void XskSocket::Unmap::operator()(std::byte* memory) const noexcept { ::munmap(memory, kAreaBytes); }

int XskSocket::create(XskSocket& made, const XskOptions& options) {
  xsk_umem* umem = nullptr;
  const xsk_umem_config umem_config{
      .fill_size = kFrames, .comp_size = kFrames, .frame_size = kFrameBytes, .frame_headroom = 0, .flags = 0};
  made.rings_ = std::make_unique<Rings>();
  if (const int code = xsk_umem__create(&umem, made.memory_.get(), kAreaBytes, &made.rings_->fill,
                                        &made.rings_->completion, &umem_config)) {
    return code;
  }
  made.umem_.reset(umem);
  // Before the bind: a zero-copy driver takes its first buffers there.
  std::uint32_t index = 0;
  xsk_ring_prod__reserve(&made.rings_->fill, kFrames, &index);
  for (std::uint32_t frame = 0; frame < kFrames; ++frame) {
    *xsk_ring_prod__fill_addr(&made.rings_->fill, index + frame) = std::uint64_t{frame} * kFrameBytes;
  }
  xsk_ring_prod__submit(&made.rings_->fill, kFrames);
  xsk_socket_config config{};
  config.rx_size = kFrames;
  config.tx_size = kFrames;
  config.libxdp_flags = XSK_LIBXDP_FLAGS__INHIBIT_PROG_LOAD;
  config.bind_flags = bind_flags(options.bind);
  xsk_socket* socket = nullptr;
  const int code = xsk_socket__create(&socket, options.ifname.c_str(), options.queue, umem, &made.rings_->rx,
                                      &made.rings_->tx, &config);
  if (code == 0) made.socket_.reset(socket);
  return code;
}

Result<XskSocket> XskSocket::open(const XskOptions& options) {
  const std::string what =
      fmt::format("bind an AF_XDP socket to queue {} of {}", options.queue, options.ifname);
  XskSocket made;
  void* area =
      ::mmap(nullptr, kAreaBytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
  if (area == MAP_FAILED) return fail_errno(errno, what);
  made.memory_.reset(static_cast<std::byte*>(area));
  int code = create(made, options);
  for (int tries = 0; code == -EBUSY && tries < kBusyTries; ++tries) {
    made.umem_.reset();
    std::this_thread::sleep_for(kBusyPause);
    code = create(made, options);
  }
  if (code == -EBUSY) return fail_errno(code, what, "another AF_XDP socket owns this queue");
  if (code == -EINVAL) return fail_errno(code, what, "is there such a queue?");
  if (code != 0 && options.bind == XskBind::ZeroCopy) {
    return fail(Exit::Unsupported,
                fmt::format("{}: zero-copy was refused: {}", what, std::generic_category().message(-code)),
                "--bind copy");
  }
  if (code != 0)
    return fail_errno(code, what,
                      code == -EPERM ? "this takes CAP_NET_RAW and CAP_NET_ADMIN: run as root" : "");

  xdp_options obtained{};
  socklen_t size = sizeof(obtained);
  if (::getsockopt(xsk_socket__fd(made.socket_.get()), SOL_XDP, XDP_OPTIONS, &obtained, &size) == 0) {
    made.zero_copy_ = (obtained.flags & XDP_OPTIONS_ZEROCOPY) != 0;
  }
  if (options.page_fd >= 0) made.page_ = ANIC_TRY(OwnerPage::open(options.page_fd, made.room()));
  return made;
}

Status XskSocket::enter(int xsks_map_fd) const {
  if (const int code = xsk_socket__update_xskmap(socket_.get(), xsks_map_fd))
    return fail_errno(code, "enter an AF_XDP socket into its map");
  return {};
}

std::span<xdp_desc> XskSocket::receive() noexcept {
  std::uint32_t index = 0;
  const std::uint32_t count = xsk_ring_cons__peek(&rings_->rx, kBatch, &index);
  if (count == 0 && xsk_ring_prod__needs_wakeup(&rings_->fill)) {
    // A driver that found the fill ring empty waits to be told that it no longer is.
    ::recvfrom(xsk_socket__fd(socket_.get()), nullptr, 0, MSG_DONTWAIT, nullptr, nullptr);
  }
  held_ += count;
  if (page_) {
    page_->looked(count, room());
    if (count == 0 && (++idle_looks_ % kIdleLooks == 0 || page_->refused() != refused_)) settle();
  }
  for (std::uint32_t i = 0; i < count; ++i) batch_[i] = *xsk_ring_cons__rx_desc(&rings_->rx, index + i);
  if (count != 0) xsk_ring_cons__release(&rings_->rx, count);
  return {batch_, count};
}

void XskSocket::send(const xdp_desc& frame) noexcept {
  std::uint32_t index = 0;
  xsk_ring_prod__reserve(&rings_->tx, 1, &index);  // there is room: the ring is as long as there are frames
  *xsk_ring_prod__tx_desc(&rings_->tx, index) = frame;
  ++unsent_;
}

void XskSocket::recycle(const xdp_desc& frame) noexcept {
  std::uint32_t index = 0;
  --held_;
  xsk_ring_prod__reserve(&rings_->fill, 1, &index);
  *xsk_ring_prod__fill_addr(&rings_->fill, index) = frame.addr - frame.addr % kFrameBytes;
  xsk_ring_prod__submit(&rings_->fill, 1);
}

bool XskSocket::flush() noexcept {
  if (unsent_ != 0) {
    xsk_ring_prod__submit(&rings_->tx, unsent_);
    in_flight_ += unsent_;
    unsent_ = 0;
    kick_ = true;
  }
  if (in_flight_ == 0) return true;
  // Copy mode sends inside the call, 32 frames at most; EAGAIN says that there are more.
  for (std::uint32_t tries = 0; kick_ && tries < kFrames / kFramesPerKick; ++tries) {
    kick_ = xsk_ring_prod__needs_wakeup(&rings_->tx) &&
            ::sendto(xsk_socket__fd(socket_.get()), nullptr, 0, MSG_DONTWAIT, nullptr, 0) < 0;
    if (kick_ && errno != EAGAIN) {
      ++refused_kicks_;
      break;
    }
  }
  std::uint32_t index = 0;
  const std::uint32_t count = xsk_ring_cons__peek(&rings_->completion, in_flight_, &index);
  for (std::uint32_t i = 0; i < count; ++i) {
    recycle({.addr = *xsk_ring_cons__comp_addr(&rings_->completion, index + i), .len = 0, .options = 0});
  }
  if (count != 0) xsk_ring_cons__release(&rings_->completion, count);
  in_flight_ -= count;
  return !kick_;
}

void XskSocket::wait() noexcept {
  pollfd waiting{xsk_socket__fd(socket_.get()), POLLIN, 0};
  if (::poll(&waiting, 1, kPatienceMs) == 0) settle();
}

/// For how many frames there are buffers, with some to spare for CPUs that come at the same time. A driver
/// that does zero-copy fills its own ring with them: half of them stay there, or nothing at all would come
/// in.
std::uint32_t XskSocket::room() const noexcept {
  const std::uint32_t taken = held_ + kBatch + (zero_copy_ ? kFrames / 2 : 0);
  return kFrames - std::min(taken, kFrames);
}

/// What was lost is no longer waited for: the ring is empty, and the kernel counts what did not get there.
void XskSocket::settle() noexcept {
  if (!page_) return;
  refused_ = page_->refused();
  if (!page_->waits()) return;
  const XskLosses lost = losses();
  page_->lost(lost.rx_dropped + lost.rx_ring_full);
}

XskLosses XskSocket::losses() const noexcept {
  xdp_statistics stats{};
  socklen_t size = sizeof(stats);
  if (::getsockopt(xsk_socket__fd(socket_.get()), SOL_XDP, XDP_STATISTICS, &stats, &size) != 0) return {};
  return {.rx_dropped = stats.rx_dropped,
          .rx_ring_full = stats.rx_ring_full,
          .fill_ring_empty = stats.rx_fill_ring_empty_descs,
          .rx_invalid = stats.rx_invalid_descs,
          .tx_invalid = stats.tx_invalid_descs};
}

}  // namespace agentnic::path
