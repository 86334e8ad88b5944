// SPDX-License-Identifier: Apache-2.0
#include "kern/audit_ring.hpp"

#include <bpf/bpf.h>
#include <fmt/format.h>
#include <linux/bpf.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <utility>

namespace agentnic::kern {
namespace {

constexpr const char* kRing = "anic_audit";
constexpr int kOvertakenMost = 100;  // times in a row, by whoever takes

std::uint64_t rounded(std::uint64_t bytes) { return (bytes + 7) / 8 * 8; }

std::uint32_t load_header(const std::byte* at) {
  return __atomic_load_n(reinterpret_cast<const std::uint32_t*>(at), __ATOMIC_ACQUIRE);
}

std::uint64_t load_position(const std::byte* at) {
  return __atomic_load_n(reinterpret_cast<const std::uint64_t*>(at), __ATOMIC_ACQUIRE);
}

void unmap(const void* at, std::size_t bytes) {
  if (at != nullptr) ::munmap(const_cast<void*>(at), bytes);
}

Result<std::byte*> map_ring(int fd, std::size_t bytes, int protection, std::uint64_t offset) {
  void* at = ::mmap(nullptr, bytes, protection, MAP_SHARED, fd, static_cast<off_t>(offset));
  if (at == MAP_FAILED) return fail_errno(errno, fmt::format("map the ring {}", kRing));
  return static_cast<std::byte*>(at);
}

std::unexpected<Error> not_a_record(std::uint64_t position, const std::string& why) {
  return fail(Exit::Failed, fmt::format("read the audit ring at position {}: {}", position, why),
              "detach, and attach again, begins another");
}

}  // namespace

Result<RecordsRead> read_records(std::span<const std::byte> data, std::uint64_t from, std::uint64_t to) {
  const std::uint64_t size = data.size() / 2;
  if (to < from || to - from > size || from % 8 != 0)
    return not_a_record(from, fmt::format("the kernel says that it ends at {}", to));
  RecordsRead read{.records = {}, .position = from};
  while (read.position < to) {
    const std::uint64_t left = to - read.position;
    const std::byte* header = data.data() + read.position % size;
    const std::uint32_t word = left < BPF_RINGBUF_HDR_SZ ? 0 : load_header(header);
    if ((word & BPF_RINGBUF_BUSY_BIT) != 0) break;
    const std::uint64_t length = word & ~(BPF_RINGBUF_BUSY_BIT | BPF_RINGBUF_DISCARD_BIT);
    const bool discarded = (word & BPF_RINGBUF_DISCARD_BIT) != 0;
    const std::uint64_t takes = rounded(length + BPF_RINGBUF_HDR_SZ);
    if (takes > left || (!discarded && length != sizeof(anic_record))) {
      return not_a_record(read.position,
                          fmt::format("{} bytes, where a record has {}", length, sizeof(anic_record)));
    }
    if (!discarded)
      std::memcpy(&read.records.emplace_back(), header + BPF_RINGBUF_HDR_SZ, sizeof(anic_record));
    read.position += takes;
  }
  return read;
}

Result<AuditRing> AuditRing::open(const Maps& maps, bool takes) {
  bpf_map_info info{};
  std::uint32_t info_size = sizeof(info);
  const int fd = maps.fd(kRing);
  if (bpf_map_get_info_by_fd(fd, &info, &info_size) != 0)
    return fail_errno(errno, fmt::format("open the ring {}", kRing));
  AuditRing ring;
  ring.page_ = static_cast<std::uint64_t>(::sysconf(_SC_PAGESIZE));
  ring.size_ = info.max_entries;
  ring.consumer_ = ANIC_TRY(map_ring(fd, ring.page_, takes ? PROT_READ | PROT_WRITE : PROT_READ, 0));
  ring.producer_ = ANIC_TRY(map_ring(fd, ring.page_ + 2 * ring.size_, PROT_READ, ring.page_));
  return ring;
}

AuditRing::AuditRing(AuditRing&& other) noexcept
    : page_(other.page_),
      size_(other.size_),
      consumer_(std::exchange(other.consumer_, nullptr)),
      producer_(std::exchange(other.producer_, nullptr)) {}

AuditRing::~AuditRing() {
  unmap(consumer_, page_);
  unmap(producer_, page_ + 2 * size_);
}

std::uint64_t AuditRing::taken() const noexcept { return load_position(consumer_); }
std::uint64_t AuditRing::written() const noexcept { return load_position(producer_); }

std::uint64_t AuditRing::unread_bytes() const noexcept {
  const std::uint64_t from = taken();  // first: written() never falls behind it
  return written() - from;
}

Result<RecordsRead> AuditRing::peek(std::optional<std::uint64_t> from) const {
  // What nobody took stays. What somebody took stays until the kernel has written a whole ring more.
  std::uint64_t start = from.value_or(taken());
  for (int i = 0; i < kOvertakenMost; ++i, start = taken()) {
    const std::uint64_t end = written();
    if (end - start > size_) continue;
    auto read = read_records({producer_ + page_, 2 * size_}, start, end);
    __atomic_thread_fence(__ATOMIC_ACQUIRE);
    if (written() - start <= size_) return read;
  }
  return not_a_record(start, fmt::format("the kernel says that it ends at {}", written()));
}

void AuditRing::take(std::uint64_t until) const noexcept {
  auto* position = reinterpret_cast<std::uint64_t*>(consumer_);
  std::uint64_t now = taken();
  while (now < until &&
         !__atomic_compare_exchange_n(position, &now, until, false, __ATOMIC_RELEASE, __ATOMIC_RELAXED)) {
  }
}

}  // namespace agentnic::kern
