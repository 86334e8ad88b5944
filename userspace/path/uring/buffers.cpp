// SPDX-License-Identifier: Apache-2.0
#include "path/uring/buffers.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

namespace agentnic::path {
namespace {

constexpr std::size_t kFew = 16;
constexpr unsigned kLooks = 1024;

}  // namespace

Result<BufferRing> BufferRing::open(Ring& ring, std::uint16_t group, std::uint32_t entries) {
  int code = 0;
  io_uring_buf_ring* buffers = io_uring_setup_buf_ring(ring.get(), entries, group, 0, &code);
  if (buffers == nullptr)
    return fail_errno(code, fmt::format("register a ring of {} buffers with an io_uring", entries));
  return BufferRing(ring.get(), buffers, group, entries);
}

BufferRing::~BufferRing() {
  if (ring_ != nullptr && buffers_ != nullptr) io_uring_free_buf_ring(ring_, buffers_, entries_, group_);
}

bool BufferRing::renew() noexcept {
  int code = 0;
  io_uring_free_buf_ring(ring_, buffers_, entries_, group_);
  buffers_ = io_uring_setup_buf_ring(ring_, entries_, group_, 0, &code);
  return buffers_ != nullptr;
}

ReceiveBuffers::ReceiveBuffers(BufferRing ring, Mapping memory, std::uint32_t count, std::size_t bytes)
    : ring_(std::move(ring)),
      bytes_(bytes),
      memory_(std::move(memory)),
      count_(count),
      wanted_(std::min<std::size_t>(count, kFew)),
      least_(wanted_) {
  free_.reserve(count);
  for (std::uint32_t id = 0; id < count; ++id) give_back(static_cast<std::uint16_t>(id));
  publish();
}

Result<ReceiveBuffers> ReceiveBuffers::open(Ring& ring, std::uint16_t group, std::uint32_t count,
                                            std::size_t bytes) {
  Mapping memory = ANIC_TRY(Mapping::anonymous(count * bytes, "map buffers to receive into"));
  return ReceiveBuffers(ANIC_TRY(BufferRing::open(ring, group, count)), std::move(memory), count, bytes);
}

void ReceiveBuffers::publish() noexcept {
  if (std::exchange(missed_, false)) {
    wanted_ = std::min(count_, wanted_ * 2);
    least_ = 0;
    looks_ = 0;
  }
  least_ = std::min(least_, there_);
  if (++looks_ == kLooks) {
    if (least_ > wanted_ / 2) wanted_ = std::max(wanted_ / 2, std::min<std::size_t>(count_, kFew));
    least_ = wanted_;
    looks_ = 0;
  }
  while (there_ < wanted_ && !free_.empty()) {
    ring_.add(buffer(free_.back()), free_.back());
    free_.pop_back();
    ++there_;
  }
  ring_.publish();
}

}  // namespace agentnic::path
