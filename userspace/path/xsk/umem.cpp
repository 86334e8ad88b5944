// SPDX-License-Identifier: Apache-2.0
#include "path/xsk/umem.hpp"

#include <array>
#include <bit>

namespace agentnic::path {

Result<Umem> Umem::map(int memory_fd, const XskShape& shape, std::uint32_t receiving) {
  Umem made;
  made.memory_ = ANIC_TRY(
      Mapping::map(memory_fd, std::size_t{shape.frames} * shape.frame_bytes, 0, "map the memory of frames"));
  made.shift_ = static_cast<std::uint32_t>(std::countr_zero(shape.frame_bytes));
  made.at_.assign(shape.frames, FrameAt::Free);
  made.pool_.reserve(shape.frames);
  for (std::uint32_t frame = shape.frames; frame-- > 0;) {
    if (frame < receiving) {
      made.at_[frame] = FrameAt::Receiving;
    } else {
      made.pool_.push_back(frame);
    }
  }
  return made;
}

std::uint64_t Umem::take(FrameAt to) noexcept {
  const std::uint32_t frame = pool_.back();
  pool_.pop_back();
  at_[frame] = to;
  return std::uint64_t{frame} << shift_;
}

bool Umem::move(std::uint64_t address, FrameAt from, FrameAt to) noexcept {
  const std::uint64_t frame = address >> shift_;
  if (frame >= at_.size() || at_[frame] != from) return false;
  at_[frame] = to;
  if (to == FrameAt::Free) pool_.push_back(static_cast<std::uint32_t>(frame));
  return true;
}

FrameCensus Umem::census() const noexcept {
  std::array<std::uint32_t, kFramePlaces> count{};
  for (const FrameAt at : at_) ++count[static_cast<std::size_t>(at)];
  return {.free = count[0], .receiving = count[1], .held = count[2], .sending = count[3]};
}

}  // namespace agentnic::path
