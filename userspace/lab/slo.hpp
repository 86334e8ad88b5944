// SPDX-License-Identifier: Apache-2.0
#pragma once

/// A benchmark of the guardian by itself: whether it keeps an SLO where nothing but the queue of a bottleneck
/// stands between two tenants.

#include "base/json.hpp"
#include "base/result.hpp"
#include "lab/measure.hpp"

namespace agentnic::lab {

/// In a lab that is up and has nothing attached: the share of answers within the SLO while another tenant
/// floods the bottleneck, beside the same without the guardian's protection.
Result<Json> slo_kept(const Bench& bench);

}  // namespace agentnic::lab
