// SPDX-License-Identifier: Apache-2.0
#pragma once

/// The two clocks in use, in nanoseconds.

#include <ctime>

#include <cstdint>

namespace agentnic {

inline std::uint64_t clock_ns(clockid_t id) noexcept {
  timespec now{};
  ::clock_gettime(id, &now);
  return static_cast<std::uint64_t>(now.tv_sec) * 1'000'000'000ULL + static_cast<std::uint64_t>(now.tv_nsec);
}

/// For durations.
inline std::uint64_t monotonic_ns() noexcept { return clock_ns(CLOCK_MONOTONIC); }

/// For dates.
inline std::uint64_t wall_ns() noexcept { return clock_ns(CLOCK_REALTIME); }

}  // namespace agentnic
