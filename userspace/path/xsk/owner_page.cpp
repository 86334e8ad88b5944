// SPDX-License-Identifier: Apache-2.0
#include "path/xsk/owner_page.hpp"

#include <sys/mman.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>

namespace agentnic::path {
namespace {

std::size_t page_bytes() { return static_cast<std::size_t>(::sysconf(_SC_PAGESIZE)); }

/// XDP reads while this is written: whole words, in order.
void store(__u64& word, std::uint64_t value) noexcept {
  std::atomic_ref(word).store(value, std::memory_order_release);
}

std::uint64_t load(__u64& word) noexcept { return std::atomic_ref(word).load(std::memory_order_acquire); }

}  // namespace

void OwnerPage::Unmap::operator()(anic_owner* page) const noexcept { ::munmap(page, page_bytes()); }

Result<OwnerPage> OwnerPage::open(int map_fd, std::uint32_t room) {
  OwnerPage made;
  void* at = ::mmap(nullptr, page_bytes(), PROT_READ | PROT_WRITE, MAP_SHARED, map_fd, 0);
  if (at == MAP_FAILED) return fail_errno(errno, "map the page of an owner");
  made.page_.reset(static_cast<anic_owner*>(at));
  made.page_->room = room;
  made.page_->pid = static_cast<std::uint32_t>(::getpid());
  return made;
}

void OwnerPage::publish() noexcept { store(page_->consumed, received_ + lost_); }

void OwnerPage::looked(std::uint32_t frames, std::uint32_t room) noexcept {
  std::atomic_ref(page_->room).store(room, std::memory_order_release);  // before what it is less for
  store(page_->beat, page_->beat + 1);
  if (frames == 0) return;
  received_ += frames;
  publish();
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
