// SPDX-License-Identifier: Apache-2.0
#pragma once

/// A benchmark of turnaround: what the dataplane makes of how long answers take, against the client that
/// waits for them.

#include "base/json.hpp"
#include "base/result.hpp"
#include "lab/measure.hpp"

namespace agentnic::lab {

/// At both ends of a lab that is up and has nothing attached: the larger error of p50 and p99.
Result<Json> turnaround_error_pct(const Bench& bench);

}  // namespace agentnic::lab
