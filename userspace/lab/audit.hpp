// SPDX-License-Identifier: Apache-2.0
#pragma once

/// Benchmarks of the audit log: keeping records, verifying them, handing a tenant its own.

#include "base/json.hpp"
#include "base/result.hpp"
#include "lab/measure.hpp"

namespace agentnic::lab {

Result<Json> record_per_s(const Bench& bench);
Result<Json> verify_per_s();
Result<Json> export_s();

}  // namespace agentnic::lab
