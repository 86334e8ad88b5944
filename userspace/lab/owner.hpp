// SPDX-License-Identifier: Apache-2.0
#pragma once

/// A benchmark of what becomes of path B when the owner of its socket stops.

#include "base/json.hpp"
#include "base/result.hpp"
#include "lab/measure.hpp"

namespace agentnic::lab {

/// From SIGSTOP of an owner to the first answer of path A.
Result<Json> xsk_failover_ms(const Bench& bench);

}  // namespace agentnic::lab
