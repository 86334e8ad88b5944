// SPDX-License-Identifier: Apache-2.0
#pragma once

/// Memory that the kernel takes a buffer of when something has come, not before (IORING_REGISTER_PBUF_RING,
/// Linux 5.19): many connections share as much of it as is under way.

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <utility>
#include <vector>

#include "base/result.hpp"
#include "path/mapping.hpp"
#include "path/uring/ring.hpp"

namespace agentnic::path {

/// A group of buffers that are given to the kernel in an order, and taken by it in that order. Borrows the
/// ring. One thread.
class BufferRing final {
 public:
  /// `entries`: a power of two, of at most 32,768 buffers that can be there at a time.
  static Result<BufferRing> open(Ring& ring, std::uint16_t group, std::uint32_t entries);
  BufferRing(BufferRing&& other) noexcept
      : ring_(std::exchange(other.ring_, nullptr)),
        buffers_(other.buffers_),
        group_(other.group_),
        entries_(other.entries_),
        added_(other.added_) {}
  BufferRing(const BufferRing&) = delete;
  BufferRing& operator=(const BufferRing&) = delete;
  BufferRing& operator=(BufferRing&&) = delete;
  ~BufferRing();

  /// Gives a buffer to the kernel with the next publish().
  void add(std::span<std::byte> bytes, std::uint16_t id) noexcept {
    io_uring_buf_ring_add(buffers_, bytes.data(), static_cast<unsigned>(bytes.size()), id,
                          io_uring_buf_ring_mask(entries_), added_++);
  }
  void publish() noexcept {
    if (added_ != 0) io_uring_buf_ring_advance(buffers_, std::exchange(added_, 0));
  }
  /// Forgets what the kernel has not taken. False: it is of no use any more.
  bool renew() noexcept;
  [[nodiscard]] std::uint16_t group() const noexcept { return group_; }

 private:
  BufferRing(io_uring* ring, io_uring_buf_ring* buffers, std::uint16_t group, std::uint32_t entries) noexcept
      : ring_(ring), buffers_(buffers), group_(group), entries_(entries) {}
  io_uring* ring_;
  io_uring_buf_ring* buffers_;
  std::uint16_t group_;
  std::uint32_t entries_;
  int added_ = 0;
};

/// Equal buffers to receive into. The kernel has few of them at a time, those that came back last: their
/// memory is in the caches still. It gets more when they do not last, and fewer again when they do.
class ReceiveBuffers final {
 public:
  static Result<ReceiveBuffers> open(Ring& ring, std::uint16_t group, std::uint32_t count, std::size_t bytes);

  [[nodiscard]] std::span<std::byte> buffer(std::uint16_t id) noexcept {
    return {memory_.get() + id * bytes_, bytes_};
  }
  /// A completion brought one.
  void taken() noexcept { --there_; }
  /// A completion said that the kernel had none (ENOBUFS): it has twice as many from the next publish() on.
  void missed() noexcept { missed_ = true; }
  void give_back(std::uint16_t id) { free_.push_back(id); }
  /// All are under way: none is the kernel's, and none is back.
  [[nodiscard]] bool all_taken() const noexcept { return there_ == 0 && free_.empty(); }
  [[nodiscard]] std::size_t there() const noexcept { return there_; }
  /// Gives the kernel what it is short of.
  void publish() noexcept;
  [[nodiscard]] std::uint16_t group() const noexcept { return ring_.group(); }

 private:
  ReceiveBuffers(BufferRing ring, Mapping memory, std::uint32_t count, std::size_t bytes);
  BufferRing ring_;
  std::size_t bytes_;
  Mapping memory_;
  std::vector<std::uint16_t> free_;  ///< a stack
  std::size_t count_;
  std::size_t there_ = 0;  ///< that the kernel has
  std::size_t wanted_;     ///< that it should have
  std::size_t least_;      ///< that it had left since the last look at whether it needs so many
  unsigned looks_ = 0;
  bool missed_ = false;
};

}  // namespace agentnic::path
