// SPDX-License-Identifier: Apache-2.0
#pragma once

/// Benchmarks of the guardian: what a decision, a record and a tick cost, how soon it falls back, and whether
/// it keeps an SLO that would be missed without it.

#include "base/json.hpp"
#include "base/result.hpp"
#include "lab/measure.hpp"

namespace agentnic::lab {

Result<Json> propose_p50_us(const Bench& bench);
Result<Json> propose_p99_us(const Bench& bench);
Result<Json> decisions_per_s(const Bench& bench);
Result<Json> chain_ns();
Result<Json> failsafe_ms(const Bench& bench);
Result<Json> tick_us();

}  // namespace agentnic::lab
