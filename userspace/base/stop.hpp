// SPDX-License-Identifier: Apache-2.0
#pragma once

/// Ctrl-C and SIGTERM, as a flag that loops look at.

namespace agentnic {

/// From now on SIGINT and SIGTERM set the flag instead of ending the process; waiting calls return EINTR.
void catch_stop_signals() noexcept;

/// Whether one of them came. Loops that wait do so for at most kStopCheckMs at a time.
[[nodiscard]] bool stop_requested() noexcept;

inline constexpr int kStopCheckMs = 100;

}  // namespace agentnic
