// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "base/result.hpp"
#include "base/unique_fd.hpp"

namespace agentnic::path {

/// A descriptor (timerfd) that becomes readable every kStopCheckMs. A wait for many that has it among them
/// ends in time to look at whether to stop, and needs no time limit, which would cost a timer in each wait.
Result<UniqueFd> make_tick();

/// After it has become readable, so that it does again.
void take_tick(const UniqueFd& tick) noexcept;

}  // namespace agentnic::path
