// SPDX-License-Identifier: Apache-2.0
#pragma once

/// Path B: one AF_XDP socket that owns one receive queue.

#include <xdp/xsk.h>

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>

#include "base/result.hpp"
#include "path/xsk/owner_page.hpp"

namespace agentnic::path {

/// What is asked of the kernel at bind time.
enum class XskBind {
  Auto,  ///< zero-copy where the driver has it, else copy: the kernel's own choice
  Copy,
  ZeroCopy,  ///< fails where the driver has it not
};

struct XskOptions {
  std::string ifname;
  std::uint32_t queue = 0;
  XskBind bind = XskBind::Auto;
  int page_fd = -1;  ///< borrowed: the owner's page (abi/owner.h); -1: it has none
};

/// Losses that the kernel counts for a socket (XDP_STATISTICS).
struct XskLosses {
  std::uint64_t rx_dropped = 0;  ///< for other reasons
  std::uint64_t rx_ring_full = 0;
  std::uint64_t fill_ring_empty = 0;
  std::uint64_t rx_invalid = 0;
  std::uint64_t tx_invalid = 0;
};

/// A UMEM of its own and four rings, each as long as the UMEM has frames: no ring can overflow, and a frame
/// is always in exactly one of five places: fill ring, receive ring, user, transmit ring, completion ring.
///
/// Open it inside the interface's namespace. A frame larger than kFrameBytes less the 256 bytes of headroom
/// that XDP keeps is lost by the kernel after the redirect, and counted in rx_dropped. One thread.
class XskSocket final {
 public:
  static constexpr std::uint32_t kFrames = 2048;
  static constexpr std::uint32_t kFrameBytes = 2048;
  static constexpr std::size_t kBatch = 64;

  /// Bound, and not yet receiving.
  static Result<XskSocket> open(const XskOptions& options);
  /// Puts it into the slot of its queue: from now on it receives.
  [[nodiscard]] Status enter(int xsks_map_fd) const;
  XskSocket(XskSocket&&) = default;
  XskSocket& operator=(XskSocket&&) = delete;  // members must go in the reverse of their order
  XskSocket(const XskSocket&) = delete;
  XskSocket& operator=(const XskSocket&) = delete;
  ~XskSocket() = default;

  /// Frames received; each is the caller's until it goes back through send() or recycle(). At most kBatch.
  std::span<xdp_desc> receive() noexcept;
  [[nodiscard]] std::byte* data(const xdp_desc& frame) const noexcept { return memory_.get() + frame.addr; }
  /// Queues a received frame for transmission, with the length that it now has.
  void send(const xdp_desc& frame) noexcept;
  /// Gives a received frame back without sending it.
  void recycle(const xdp_desc& frame) noexcept;
  /// Tells the kernel what was queued, and takes back what it has sent. False while it has not taken
  /// everything: call again, and do not wait().
  bool flush() noexcept;
  /// Sleeps until a frame or a signal comes: loops hold a WakeUps.
  void wait() noexcept;

  /// Read back from the kernel, not from what was asked.
  [[nodiscard]] bool zero_copy() const noexcept { return zero_copy_; }
  [[nodiscard]] XskLosses losses() const noexcept;
  /// Wake-ups that the kernel refused for now (EBUSY, ENOBUFS); they are repeated by the next
  /// flush().
  [[nodiscard]] std::uint64_t refused_kicks() const noexcept { return refused_kicks_; }
  /// Frames that took path A, because this owner did not keep up.
  [[nodiscard]] std::uint64_t refused_frames() const noexcept { return page_ ? page_->refused() : 0; }

 private:
  struct Unmap {
    void operator()(std::byte* memory) const noexcept;
  };
  struct Rings {
    xsk_ring_prod fill;
    xsk_ring_cons completion;
    xsk_ring_cons rx;
    xsk_ring_prod tx;
  };
  XskSocket() = default;
  static int create(XskSocket& made, const XskOptions& options);
  [[nodiscard]] std::uint32_t room() const noexcept;
  void settle() noexcept;

  std::unique_ptr<std::byte, Unmap> memory_;
  std::unique_ptr<Rings> rings_;  // libxdp keeps their addresses
  std::unique_ptr<xsk_umem, int (*)(xsk_umem*)> umem_{nullptr, xsk_umem__delete};
  std::unique_ptr<xsk_socket, void (*)(xsk_socket*)> socket_{nullptr, xsk_socket__delete};
  std::optional<OwnerPage> page_;
  std::uint32_t held_ = 0;  // frames that are not in the fill ring, nor on the way through the receive ring
  std::uint32_t idle_looks_ = 0;
  std::uint64_t refused_ = 0;  // when what was lost was last asked for
  xdp_desc batch_[kBatch] = {};
  std::uint32_t in_flight_ = 0;  // queued for transmission and not yet completed
  std::uint32_t unsent_ = 0;     // queued since the last submit
  bool kick_ = false;            // the kernel has not taken everything that was queued
  std::uint64_t refused_kicks_ = 0;
  bool zero_copy_ = false;
};

}  // namespace agentnic::path
