// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <poll.h>

#include <cstdint>
#include <ctime>

namespace agentnic::path {

/// How an endpoint waits for a packet.
enum class Wait {
  Block,  ///< asleep in the kernel until one comes
  Spin,   ///< asking again and again, one CPU to itself
};

/// Sleeps until a descriptor has one of these events of poll(2), for at most `timeout_ns`, or a signal.
inline void wait_for_events(int fd, short events, std::uint64_t timeout_ns) noexcept {
  pollfd waiting{fd, events, 0};
  const timespec timeout{.tv_sec = static_cast<time_t>(timeout_ns / 1'000'000'000),
                         .tv_nsec = static_cast<long>(timeout_ns % 1'000'000'000)};
  ::ppoll(&waiting, 1, &timeout, nullptr);
}

}  // namespace agentnic::path
