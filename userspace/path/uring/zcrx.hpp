// SPDX-License-Identifier: Apache-2.0
#pragma once

/// Zero-copy receive of io_uring: payload of TCP is put by the device into memory of the program, or, without
/// a device, is copied there by the kernel, and stays until the program gives it back. Layouts: liburing's
/// io_uring.h, and include/uapi/linux/io_uring/zcrx.h of Linux 7.3 for events.

#include <cstddef>
#include <cstdint>
#include <span>
#include <utility>

#include "base/result.hpp"
#include "path/mapping.hpp"
#include "path/uring/ring.hpp"

namespace agentnic::path {

struct ZcrxOptions {
  std::uint32_t ifindex = 0;          ///< of the device; 0: none, and all is copied (Linux 7)
  std::uint32_t queue = 0;            ///< of it, to which nothing else comes
  std::size_t area_bytes = 16 << 20;  ///< memory to receive into
  std::uint64_t event_id = 0;         ///< that events complete with
};

struct ZcrxCounters {
  std::uint64_t chunks = 0;
  std::uint64_t lost = 0;                 ///< that found no room to be given back
  std::uint64_t flushes = 0;              ///< times at which the kernel was told to take what was given back
  std::uint64_t allocation_failures = 0;  ///< events of it: there was no memory to receive into
  bool has_events = false;                ///< else this and what follows is not known: Linux 7.3 has them
  std::uint64_t copied_chunks = 0;        ///< that the kernel copied into the area
  std::uint64_t copied_bytes = 0;
};

/// Of a ring with large completions. Borrows it. One thread.
class Zcrx final {
 public:
  /// Unsupported: names what is missing.
  static Result<Zcrx> open(Ring& ring, const ZcrxOptions& options);

  /// Prepares a receive that goes on (IORING_OP_RECV_ZC, multishot).
  void prepare(io_uring_sqe* entry, int fd) const noexcept;
  /// The payload of a completion of it with a result above 0.
  [[nodiscard]] std::span<const std::byte> chunk(const io_uring_cqe& done) noexcept;
  /// Once for each of these.
  void give_back(const io_uring_cqe& done) noexcept;
  /// Has the kernel take what was given back; a device takes it by itself.
  void flush() noexcept;
  /// A completion with the id of events.
  void event(const io_uring_cqe& done) noexcept;
  [[nodiscard]] ZcrxCounters counters() const noexcept;

 private:
  Zcrx(io_uring* ring, Mapping area, Mapping region) noexcept
      : ring_(ring), area_(std::move(area)), region_(std::move(region)) {}
  /// Given back, and not taken yet.
  [[nodiscard]] std::uint32_t waiting() const noexcept {
    return tail_ - __atomic_load_n(khead_, __ATOMIC_ACQUIRE);
  }
  template <typename T>
  T* in_region(std::uint64_t offset) const noexcept {
    return reinterpret_cast<T*>(region_.get() + offset);
  }

  io_uring* ring_;
  Mapping area_;
  Mapping region_;  ///< the ring of what is given back, and statistics
  std::uint32_t id_ = 0;
  std::uint64_t token_ = 0;
  std::uint32_t entries_ = 0;
  std::uint32_t flush_at_ = 0;
  std::uint32_t tail_ = 0;
  std::uint64_t stats_offset_ = 0;  ///< 0: there are none
  std::uint32_t* khead_ = nullptr;
  std::uint32_t* ktail_ = nullptr;
  io_uring_zcrx_rqe* refill_ = nullptr;
  ZcrxCounters counters_;
};

}  // namespace agentnic::path
