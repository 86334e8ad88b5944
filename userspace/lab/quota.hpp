// SPDX-License-Identifier: Apache-2.0
#pragma once

/// Benchmarks of quotas, with the kernel's own clock and tick: how well a rate is kept, and what a second CPU
/// on the same tenant costs. By BPF_PROG_TEST_RUN, which offers many times the rate.

#include "base/json.hpp"
#include "base/result.hpp"

namespace agentnic::lab {

/// The worst of: in and out, one CPU and two, alone and borrowing.
Result<Json> quota_error_pct();

}  // namespace agentnic::lab
