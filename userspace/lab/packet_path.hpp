// SPDX-License-Identifier: Apache-2.0
#pragma once

/// Benchmarks of the packet path by BPF_PROG_TEST_RUN: what a packet costs over a no-op program, in the same
/// run. "Full scale" is 64 tenants, 100,000 prefixes of both families and 10,000 services.

#include "base/json.hpp"
#include "base/result.hpp"

namespace agentnic::lab {

Result<Json> xdp_hot_ns();
Result<Json> xdp_hot_v6_ns();
Result<Json> xdp_flows_ns();
Result<Json> xdp_scale_ratio();
Result<Json> xdp_new_flow_ns();
Result<Json> xdp_new_source_ns();
Result<Json> xdp_flood_ratio();
Result<Json> xdp_two_cpu_ratio();

}  // namespace agentnic::lab
