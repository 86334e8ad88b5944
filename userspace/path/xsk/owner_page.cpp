// SPDX-License-Identifier: Apache-2.0
#include "path/xsk/owner_page.hpp"

#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <bit>
#include <cerrno>

#include "base/clock.hpp"

namespace agentnic::path {
namespace {

constexpr std::uint32_t kQuietLooks = 64;  // at an empty ring, for a sign of life

std::size_t page_bytes() { return static_cast<std::size_t>(::sysconf(_SC_PAGESIZE)); }

/// XDP reads while this is written: whole words, in order.
void store(__u64& word, std::uint64_t value) noexcept {
  std::atomic_ref(word).store(value, std::memory_order_release);
}

std::uint64_t load(__u64& word) noexcept { return std::atomic_ref(word).load(std::memory_order_acquire); }

}  // namespace

void OwnerPage::Unmap::operator()(anic_owner* page) const noexcept { ::munmap(page, page_bytes()); }

Result<OwnerPage> OwnerPage::open(int map_fd, std::uint32_t room, std::uint32_t longest) {
  OwnerPage made;
  void* at = ::mmap(nullptr, page_bytes(), PROT_READ | PROT_WRITE, MAP_SHARED, map_fd, 0);
  if (at == MAP_FAILED) return fail_errno(errno, "map the page of an owner");
  made.page_.reset(static_cast<anic_owner*>(at));
  made.page_->longest = longest;
  made.page_->room = made.room_ = room;
  made.page_->pid = static_cast<std::uint32_t>(::getpid());
  return made;
}

void OwnerPage::publish() noexcept { store(page_->consumed, received_ + lost_); }

void OwnerPage::lives() noexcept { store(page_->beat, page_->beat + 1); }

std::optional<std::uint32_t> OwnerPage::looked(std::uint32_t packets, std::uint32_t room) noexcept {
  if (packets == 0 && room == room_ && ++quiet_ % kQuietLooks != 0) return std::nullopt;
  if (room != room_) {
    room_ = room;
    std::atomic_ref(page_->room).store(room, std::memory_order_release);  // before what it is less for
  }
  lives();
  if (packets == 0) return std::nullopt;
  const auto found = sample(packets);
  received_ += packets;
  publish();
  return found;
}

/// Packets come in the order in which XDP counted them, unless some were lost that are not known of yet: then
/// the sample is of a later packet, and too long.
std::optional<std::uint32_t> OwnerPage::sample(std::uint32_t packets) noexcept {
  const std::uint64_t at = load(page_->sample_at);
  if (at == sampled_ || at == sample_at_) return std::nullopt;
  const std::uint64_t before = received_ + lost_;
  if (at > before + packets) return std::nullopt;
  sample_at_ = at;
  if (at <= before) {  // it was lost
    given_up();
    return std::nullopt;
  }
  sample_ns_ = load(page_->sample_ns);
  return static_cast<std::uint32_t>(at - before - 1);
}

void OwnerPage::turned() noexcept {
  const std::uint64_t now_ns = monotonic_ns();
  if (now_ns >= sample_ns_) {
    store(page_->turned_ns, page_->turned_ns + now_ns - sample_ns_);
    const std::uint64_t units = (now_ns - sample_ns_) >> ANIC_OWNER_TURN_LOG2;
    const auto bucket = static_cast<std::size_t>(units == 0 ? 0 : std::bit_width(units) - 1);
    ++page_->turns[std::min<std::size_t>(bucket, ANIC_OWNER_TURNS - 1)];
    store(page_->samples, page_->samples + 1);
  }
  given_up();
}

void OwnerPage::given_up() noexcept {
  sampled_ = sample_at_;
  store(page_->sampled, sampled_);
}

void OwnerPage::transmitted(std::uint64_t packets) noexcept {
  if (page_->transmitted != packets) store(page_->transmitted, packets);
}

void OwnerPage::lost(std::uint64_t frames) noexcept {
  if (frames <= lost_) return;
  lost_ = frames;
  store(page_->lost, frames);
  publish();
}

bool OwnerPage::waits() const noexcept { return load(page_->sent) != received_ + lost_; }

std::uint64_t OwnerPage::refused() const noexcept { return load(page_->refused); }

}  // namespace agentnic::path
