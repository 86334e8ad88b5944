// SPDX-License-Identifier: Apache-2.0
#pragma once

/// Ctrl-C and SIGTERM, as a flag that loops look at.
///
/// A loop that sleeps in the kernel could miss a signal that comes just before it falls asleep, and a time
/// limit on every call costs a timer in each. So a periodic SIGALRM wakes it, whatever it sleeps in.

namespace agentnic {

/// From now on SIGINT and SIGTERM set the flag instead of ending the process, and calls that wait return
/// EINTR every kStopCheckMs at the latest.
void catch_stop_signals() noexcept;

/// Whether one of them came.
[[nodiscard]] bool stop_requested() noexcept;

inline constexpr int kStopCheckMs = 100;

}  // namespace agentnic
