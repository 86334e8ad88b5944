// SPDX-License-Identifier: Apache-2.0
#pragma once

/// Path B: what owns one receive queue, an AF_XDP socket that receives and one that sends.

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>

#include "base/result.hpp"
#include "path/xsk/grant.hpp"
#include "path/xsk/owner_page.hpp"
#include "path/xsk/rings.hpp"
#include "path/xsk/umem.hpp"

namespace agentnic::path {

/// Losses that the kernel counts for the two sockets (XDP_STATISTICS).
struct XskLosses {
  std::uint64_t rx_dropped = 0;  ///< for other reasons
  std::uint64_t rx_ring_full = 0;
  std::uint64_t fill_ring_empty = 0;
  std::uint64_t rx_invalid = 0;
  std::uint64_t tx_invalid = 0;
};

/// Entries in each ring, at some moment.
struct XskOccupancy {
  std::uint32_t fill = 0;
  std::uint32_t receive = 0;
  std::uint32_t transmit = 0;
  std::uint32_t completion = 0;
};

/// What a socket has done since it was adopted.
struct XskCounters {
  std::uint64_t received = 0;  ///< packets
  std::uint64_t sent = 0;      ///< packets that were queued
  std::uint64_t starved = 0;   ///< looks at which the kernel had no frame of ours to receive into
  std::uint64_t refused_kicks =
      0;  ///< wake-ups that the kernel refused for now (EBUSY, ENOBUFS); flush() repeats them
  std::uint64_t misused = 0;  ///< frames that were given back or sent and were not the user's
};

/// In the options of a frame: the packet goes on in the next (XDP_PKT_CONTD, Linux 6.6).
inline constexpr std::uint32_t kXskContinues = 1;

/// The frames of the first packet among `frames`, which receive() brought and are not none.
[[nodiscard]] std::span<xdp_desc> first_packet(std::span<xdp_desc> frames) noexcept;

/// The rings are as long as the memory has frames, so that none can overflow. A packet of several frames has
/// them one after the other, and kXskContinues in the options of all but its last. Its owner is an XskClient,
/// which outlives it. One thread.
///
/// A packet that is longer than a frame, less the headroom of 256 bytes that XDP keeps, takes path A, unless
/// the socket was bound for several buffers.
class XskSocket final {
 public:
  /// Takes what the grant has of its queue number `number`.
  static Result<XskSocket> adopt(XskGrant& grant, std::size_t number, Umem& memory);

  /// Frames of whole packets; each is the caller's until it goes back through send() or recycle(). At most
  /// kXskBatch; valid until the next call.
  std::span<xdp_desc> receive() noexcept;
  /// Queues a frame for transmission, with the address and the length that it now has: received, or of
  /// XskClient::take().
  void send(const xdp_desc& frame) noexcept;
  /// Gives a frame back without sending it.
  void recycle(const xdp_desc& frame) noexcept;
  void send(std::span<const xdp_desc> packet) noexcept;
  void recycle(std::span<const xdp_desc> packet) noexcept;
  /// Tells the kernel what was queued, and takes back what it has sent. False while it has not taken
  /// everything: call again, and do not wait.
  bool flush() noexcept;
  /// Before a sleep: gives the kernel what frames there are, and tells XDP of it.
  void rest() noexcept;
  /// Tells XDP what was lost of what it waits for, so that it is not waited for any more. receive() does so
  /// now and then; after a sleep that brought nothing, its owner does.
  void settle() noexcept;

  /// Finds out whether the interface was removed; receive() does so now and then, and a sleep that ends for
  /// it.
  bool look_whether_gone() noexcept;
  [[nodiscard]] bool gone() const noexcept { return gone_; }

  /// Becomes readable when there is something to receive. Borrowed.
  [[nodiscard]] int fd() const noexcept { return socket_.get(); }
  [[nodiscard]] std::uint32_t queue() const noexcept { return queue_; }
  /// Read back from the kernel, not from what was asked.
  [[nodiscard]] bool zero_copy() const noexcept { return zero_copy_; }
  [[nodiscard]] XskLosses losses() const noexcept;
  [[nodiscard]] XskOccupancy occupancy() const noexcept;
  [[nodiscard]] const XskCounters& counters() const noexcept { return counters_; }
  /// Packets that took path A, because this owner did not keep up.
  [[nodiscard]] std::uint64_t refused() const noexcept { return page_ ? page_->refused() : 0; }

 private:
  XskSocket() = default;
  [[nodiscard]] std::uint32_t room() const noexcept;
  void fill() noexcept;
  void take(const xdp_desc& frame) noexcept;
  void begin_sample(std::uint32_t number) noexcept;

  static constexpr std::uint64_t kNoFrame = ~0ULL;

  Umem* memory_ = nullptr;
  UniqueFd socket_;    // receives
  UniqueFd transmit_;  // sends
  XskRings rings_;
  std::optional<OwnerPage> page_;
  std::uint32_t queue_ = 0;
  std::uint32_t level_ = 0;              // frames that the kernel should have to receive into
  std::uint32_t receiving_ = 0;          // frames that it has, those in the receive ring included
  std::uint32_t frames_per_packet_ = 1;  // at most
  std::uint32_t in_flight_ = 0;          // queued for transmission and not yet completed
  std::uint32_t unsent_ = 0;             // queued since the last submit
  std::uint32_t idle_looks_ = 0;
  std::uint64_t refused_ = 0;         // when what was lost was last asked for
  std::uint64_t sampled_ = kNoFrame;  // of turnaround: the frame of the packet
  bool sample_leaves_ = false;        // its answer is queued
  bool kick_ = false;                 // the kernel has not taken everything that was queued
  bool busy_poll_ = false;            // each look at an empty ring polls the device
  bool zero_copy_ = false;
  bool gone_ = false;
  XskCounters counters_;
  xdp_desc batch_[kXskBatch] = {};
};

}  // namespace agentnic::path
