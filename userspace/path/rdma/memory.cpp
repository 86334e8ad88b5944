// SPDX-License-Identifier: Apache-2.0
#include "path/rdma/memory.hpp"

#include <fmt/format.h>
#include <linux/capability.h>
#include <sys/resource.h>

#include <cerrno>
#include <charconv>
#include <fstream>
#include <string>

#include "base/clock.hpp"

namespace agentnic::path {
namespace {

/// A number of /proc/self/status.
std::uint64_t status_number(std::string_view name, int base) {
  std::ifstream file("/proc/self/status");
  for (std::string line; std::getline(file, line);) {
    if (!line.starts_with(name)) continue;
    const std::size_t first = line.find_first_not_of(" \t", name.size());
    std::uint64_t value = 0;
    if (first != std::string::npos)
      std::from_chars(line.data() + first, line.data() + line.size(), value, base);
    return value;
  }
  return 0;
}

/// How much more memory this process may pin: RLIMIT_MEMLOCK, less what is pinned, or all (CAP_IPC_LOCK).
std::uint64_t lockable_bytes() {
  if ((status_number("CapEff:", 16) >> CAP_IPC_LOCK & 1U) != 0) return UINT64_MAX;
  rlimit limit{};
  if (::getrlimit(RLIMIT_MEMLOCK, &limit) != 0 || limit.rlim_cur == RLIM_INFINITY) return UINT64_MAX;
  const std::uint64_t pinned = status_number("VmPin:", 10) << 10U;
  return limit.rlim_cur > pinned ? limit.rlim_cur - pinned : 0;
}

}  // namespace

Result<RdmaMemory> RdmaMemory::open(const RdmaDevice& device, std::size_t bytes, unsigned access) {
  if (const std::uint64_t most = lockable_bytes(); most < bytes) {
    return fail(Exit::Failed,
                fmt::format("register {} KiB of memory: this process may pin {} KiB more (RLIMIT_MEMLOCK)",
                            bytes >> 10U, most >> 10U),
                "ulimit -l, LimitMEMLOCK= of a systemd unit, or fewer and smaller slots");
  }
  RdmaMemory made;
  made.memory_ = ANIC_TRY(Mapping::anonymous(bytes, "map memory for RDMA"));
  const std::uint64_t begin = monotonic_ns();
  made.region_.reset(ibv_reg_mr(device.domain(), made.memory_.get(), bytes, static_cast<int>(access)));
  if (!made.region_)
    return fail_errno(errno,
                      fmt::format("register {} KiB of memory with {}", bytes >> 10U, device.port().device));
  made.registration_ns_ = monotonic_ns() - begin;
  return made;
}

}  // namespace agentnic::path
