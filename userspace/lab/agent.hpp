// SPDX-License-Identifier: Apache-2.0
#pragma once

/// Benchmarks of agents: how long one takes from what it sees to what becomes of it, and what it costs when
/// nothing happens.

#include "base/json.hpp"
#include "base/result.hpp"
#include "lab/measure.hpp"

namespace agentnic::lab {

Result<Json> agent_loop_us(const Bench& bench);
Result<Json> agent_idle_percent(const Bench& bench);

}  // namespace agentnic::lab
