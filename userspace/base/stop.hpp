// SPDX-License-Identifier: Apache-2.0
#pragma once

/// Ctrl-C and SIGTERM, as a flag that loops look at.

namespace agentnic {

/// From now on SIGINT and SIGTERM set the flag instead of ending the process.
void catch_stop_signals() noexcept;

/// Whether one of them came.
[[nodiscard]] bool stop_requested() noexcept;

inline constexpr int kStopCheckMs = 100;

/// While one lives, calls that wait return EINTR every kStopCheckMs at the latest. A loop that sleeps in the
/// kernel could miss a signal that comes just before it falls asleep, and a time limit on every call would
/// cost a timer in each; so a periodic SIGALRM wakes it. One at a time.
class WakeUps final {
 public:
  WakeUps() noexcept;
  ~WakeUps();
  WakeUps(const WakeUps&) = delete;
  WakeUps& operator=(const WakeUps&) = delete;
};

}  // namespace agentnic
