// SPDX-License-Identifier: Apache-2.0
#include "path/tick.hpp"

#include <sys/timerfd.h>
#include <unistd.h>

#include <cerrno>
#include <cstdint>

#include "base/stop.hpp"

namespace agentnic::path {

Result<UniqueFd> make_tick() {
  UniqueFd tick(::timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC));
  if (!tick) return fail_errno(errno, "make a timer");
  const timespec period{.tv_sec = 0, .tv_nsec = kStopCheckMs * 1'000'000L};
  const itimerspec every{.it_interval = period, .it_value = period};
  if (::timerfd_settime(tick.get(), 0, &every, nullptr) != 0) return fail_errno(errno, "set a timer");
  return tick;
}

void take_tick(const UniqueFd& tick) noexcept {
  std::uint64_t times = 0;
  static_cast<void>(::read(tick.get(), &times, sizeof(times)));
}

}  // namespace agentnic::path
