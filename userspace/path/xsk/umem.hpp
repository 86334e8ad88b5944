// SPDX-License-Identifier: Apache-2.0
#pragma once

/// The memory of an owner of AF_XDP sockets, in frames, and where each of them is.

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "base/result.hpp"
#include "path/mapping.hpp"
#include "path/xsk/grant.hpp"

namespace agentnic::path {

/// Where a frame is. Each is in exactly one place, at any moment.
enum class FrameAt : std::uint8_t {
  Free,       ///< in the pool
  Receiving,  ///< in a fill ring, in the driver's hands, or in a receive ring
  Held,       ///< the user's
  Sending,    ///< in a transmit ring, in the driver's hands, or in a completion ring
};
inline constexpr std::size_t kFramePlaces = 4;

/// How many frames are where; their sum is all.
struct FrameCensus {
  std::uint32_t free = 0;
  std::uint32_t receiving = 0;
  std::uint32_t held = 0;
  std::uint32_t sending = 0;
  [[nodiscard]] std::uint32_t total() const { return free + receiving + held + sending; }
};

/// One thread. Addresses are offsets into the memory, as in the rings; any address inside a frame means it.
class Umem final {
 public:
  /// The first `receiving` frames begin in fill rings, the others in the pool.
  static Result<Umem> map(int memory_fd, const XskShape& shape, std::uint32_t receiving);

  [[nodiscard]] std::byte* data(std::uint64_t address) const noexcept { return memory_.get() + address; }
  [[nodiscard]] std::uint32_t frame_bytes() const noexcept { return 1U << shift_; }
  [[nodiscard]] std::uint32_t frames() const noexcept { return static_cast<std::uint32_t>(at_.size()); }
  [[nodiscard]] std::uint32_t free() const noexcept { return static_cast<std::uint32_t>(pool_.size()); }
  [[nodiscard]] std::uint64_t begin_of(std::uint64_t address) const noexcept {
    return address >> shift_ << shift_;
  }

  /// Begins to fetch what another CPU has written into a frame: the headers, and as much of what follows as a
  /// processor does not fetch by itself.
  void prefetch(std::uint64_t address) const noexcept {
    constexpr std::uint64_t kLine = 64;
    __builtin_prefetch(data(address));
    __builtin_prefetch(data(address + kLine));
  }

  /// From the pool to `to`; the pool must not be empty.
  std::uint64_t take(FrameAt to) noexcept;
  /// Moves a frame. False, and nothing is changed, when it is not there: it was given back twice, or is
  /// nobody's.
  bool move(std::uint64_t address, FrameAt from, FrameAt to) noexcept;

  /// Counted from what is known of each frame, not from counters.
  [[nodiscard]] FrameCensus census() const noexcept;

 private:
  Umem() = default;
  Mapping memory_;
  std::vector<FrameAt> at_;
  std::vector<std::uint32_t> pool_;  ///< of frame numbers; has room for all
  std::uint32_t shift_ = 0;
};

}  // namespace agentnic::path
