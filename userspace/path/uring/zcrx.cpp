// SPDX-License-Identifier: Apache-2.0
#include "path/uring/zcrx.hpp"

#include <fmt/format.h>
#include <liburing/io_uring/query.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <bit>
#include <cerrno>
#include <cstring>

namespace agentnic::path {
namespace {

constexpr std::size_t kBufferBytes = 4096;  // the kernel's unit of the area
constexpr std::size_t kPacketsOfBuffer = 4;
constexpr std::size_t kFlushesOfArea = 4;
constexpr std::size_t kEntriesMax = 32768;  // of the ring of what is given back

// Of Linux 7.3, and not yet in liburing 2.15.
constexpr std::uint32_t kFeatureEvent = 1U << 1U;
enum Event : std::uint32_t { kAllocFail = 0, kCopy = 1 };
struct EventDesc {
  std::uint64_t user_data;
  std::uint32_t type_mask;
  std::uint32_t flags;
  std::uint64_t stats_offset;
  std::uint64_t resv2[9];
};
constexpr std::uint32_t kDescHasStats = 1;
struct Stats {
  std::uint64_t copy_count;
  std::uint64_t copy_bytes;
};
constexpr std::uint32_t kCtrlArmEvent = 2;

bool kernel_has_events() noexcept {
  io_uring_query_zcrx zcrx{};
  io_uring_query_hdr query{};
  query.query_data = reinterpret_cast<std::uint64_t>(&zcrx);
  query.query_op = IO_URING_QUERY_ZCRX;
  query.size = sizeof(zcrx);
  return ::syscall(__NR_io_uring_register, -1, IORING_REGISTER_QUERY, &query, 0) == 0 && query.result == 0 &&
         (zcrx.features & kFeatureEvent) != 0;
}

Error refusal(int code, const ZcrxOptions& options) {
  if (options.ifindex == 0) {
    const std::string what = "receive without copies, without a device";
    if (code == -EINVAL || code == -EOPNOTSUPP || code == -ENODEV)
      return {Exit::Unsupported, what + ": this kernel cannot", "Linux 6.18 cannot, 7.3 can"};
    return Error::from_errno(code, what, code == -EPERM ? "this takes CAP_NET_ADMIN: run as root" : "");
  }
  const std::string what =
      fmt::format("receive without copies from queue {} of interface {}", options.queue, options.ifindex);
  if (code == -EOPNOTSUPP)
    return {Exit::Unsupported, what + ": its driver takes no memory of programs",
            "bnxt, gve, mlx5, fbnic do"};
  if (code == -EINVAL)
    return {Exit::Unsupported, what + ": this kernel, or the NIC as it is set, cannot",
            "it takes Linux 6.15, header/data split, and no XDP program"};
  if (code == -EEXIST || code == -EBUSY)
    return {Exit::Failed, what + ": the queue is somebody's already", ""};
  return Error::from_errno(code, what, code == -EPERM ? "this takes CAP_NET_ADMIN: run as root" : "");
}

}  // namespace

Result<Zcrx> Zcrx::open(Ring& ring, const ZcrxOptions& options) {
  const auto page = static_cast<std::size_t>(::sysconf(_SC_PAGESIZE));
  // Several packets may share a buffer of a device, and each is given back by itself.
  const auto entries = static_cast<std::uint32_t>(
      std::min(std::bit_ceil(options.area_bytes / kBufferBytes) * kPacketsOfBuffer, kEntriesMax));
  const std::size_t ring_bytes =
      (page + entries * sizeof(io_uring_zcrx_rqe) + page - 1) / page * page;  // a page of heads first
  const bool has_events = kernel_has_events();
  Zcrx made(
      ring.get(), ANIC_TRY(Mapping::anonymous(options.area_bytes, "map memory to receive into")),
      ANIC_TRY(Mapping::anonymous(ring_bytes + (has_events ? page : 0), "map what is given back of it")));
  io_uring_region_desc region{};
  region.user_addr = reinterpret_cast<std::uint64_t>(made.region_.get());
  region.size = made.region_.size();
  region.flags = IORING_MEM_REGION_TYPE_USER;
  io_uring_zcrx_area_reg area{};
  area.addr = reinterpret_cast<std::uint64_t>(made.area_.get());
  area.len = options.area_bytes;
  io_uring_zcrx_ifq_reg wanted{};
  wanted.if_idx = options.ifindex;
  wanted.if_rxq = options.queue;
  wanted.rq_entries = entries;
  wanted.flags = options.ifindex == 0 ? static_cast<std::uint32_t>(ZCRX_REG_NODEV) : 0U;
  wanted.area_ptr = reinterpret_cast<std::uint64_t>(&area);
  wanted.region_ptr = reinterpret_cast<std::uint64_t>(&region);
  EventDesc events{};
  if (has_events) {
    events.user_data = options.event_id;
    events.type_mask = (1U << kAllocFail) | (1U << kCopy);
    events.flags = kDescHasStats;
    events.stats_offset = ring_bytes;
    wanted.__resv[0] = reinterpret_cast<std::uint64_t>(&events);
  }
  if (const int code = io_uring_register_ifq(ring.get(), &wanted); code != 0)
    return fail(refusal(code, options));
  made.id_ = wanted.zcrx_id;
  made.token_ = area.rq_area_token;
  made.entries_ = wanted.rq_entries;
  made.khead_ = made.in_region<std::uint32_t>(wanted.offsets.head);
  made.ktail_ = made.in_region<std::uint32_t>(wanted.offsets.tail);
  made.refill_ = made.in_region<io_uring_zcrx_rqe>(wanted.offsets.rqes);
  // Without a device nobody takes what is given back until the kernel is told to.
  made.flush_at_ = options.ifindex != 0
                       ? made.entries_
                       : static_cast<std::uint32_t>(options.area_bytes / kBufferBytes / kFlushesOfArea);
  made.counters_.has_events = has_events;
  if (has_events) made.stats_offset_ = events.stats_offset;
  return made;
}

void Zcrx::prepare(io_uring_sqe* entry, int fd) const noexcept {
  io_uring_prep_rw(IORING_OP_RECV_ZC, entry, fd, nullptr, 0, 0);
  entry->zcrx_ifq_idx = id_;
  entry->ioprio |= IORING_RECV_MULTISHOT;
}

std::span<const std::byte> Zcrx::chunk(const io_uring_cqe& done) noexcept {
  ++counters_.chunks;
  const auto* where = reinterpret_cast<const io_uring_zcrx_cqe*>(&done + 1);
  return {area_.get() + (where->off & ~IORING_ZCRX_AREA_MASK), static_cast<std::size_t>(done.res)};
}

void Zcrx::give_back(const io_uring_cqe& done) noexcept {
  const auto* where = reinterpret_cast<const io_uring_zcrx_cqe*>(&done + 1);
  if (waiting() >= flush_at_) flush();
  if (waiting() == entries_) {  // a device that takes none, and a kernel that cannot be told to
    ++counters_.lost;
    return;
  }
  refill_[tail_ & (entries_ - 1)] = {.off = (where->off & ~IORING_ZCRX_AREA_MASK) | token_,
                                     .len = static_cast<std::uint32_t>(done.res),
                                     .__pad = 0};
  __atomic_store_n(ktail_, ++tail_, __ATOMIC_RELEASE);
}

void Zcrx::flush() noexcept {
  zcrx_ctrl ask{};
  ask.zcrx_id = id_;
  ask.op = ZCRX_CTRL_FLUSH_RQ;
  if (io_uring_register_zcrx_ctrl(ring_, &ask) >= 0) ++counters_.flushes;
}

void Zcrx::event(const io_uring_cqe& done) noexcept {
  const auto type = static_cast<std::uint32_t>(done.res);
  if (type == kAllocFail) ++counters_.allocation_failures;
  zcrx_ctrl ask{};  // each is told once, until it is asked for again; copies are in the statistics
  ask.zcrx_id = id_;
  ask.op = kCtrlArmEvent;
  std::memcpy(&ask.zc_flush, &type, sizeof(type));  // struct zcrx_ctrl_arm_event
  if (type == kAllocFail) io_uring_register_zcrx_ctrl(ring_, &ask);
}

ZcrxCounters Zcrx::counters() const noexcept {
  ZcrxCounters counters = counters_;
  if (stats_offset_ != 0) {
    const auto* stats = in_region<Stats>(stats_offset_);
    counters.copied_chunks = __atomic_load_n(&stats->copy_count, __ATOMIC_RELAXED);
    counters.copied_bytes = __atomic_load_n(&stats->copy_bytes, __ATOMIC_RELAXED);
  }
  return counters;
}

}  // namespace agentnic::path
