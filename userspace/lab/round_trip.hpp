// SPDX-License-Identifier: Apache-2.0
#pragma once

/// Benchmarks of round trips: path A and path B, against each other and against sockperf.

#include "base/json.hpp"
#include "base/result.hpp"
#include "lab/measure.hpp"

namespace agentnic::lab {

Result<Json> udp_vs_sockperf(const Bench& bench, path::Wait wait);

/// The policy of all benchmarks is at the server's end, where these turn it on and off.
Result<Json> xsk_server_p50_ratio(const Bench& bench, Attached& attached);
Result<Json> xsk_both_p50_ratio(const Bench& bench, Attached& attached);
Result<Json> xsk_both_p99_ratio(const Bench& bench, Attached& attached);
Result<Json> xsk_vs_sockperf_p50_ratio(const Bench& bench, Attached& attached);
Result<Json> xsk_block_ratio(const Bench& bench, Attached& attached);
Result<Json> xsk_rps_ratio(const Bench& bench, Attached& attached);
Result<Json> busypoll_p50_ratio(const Bench& bench);

/// Waits until someone is bound to a port in a namespace. `sockets`: options of ss, UDP's or TCP's.
Status wait_for_port(const std::string& netns, std::uint16_t port, const char* sockets = "-Hlun");

}  // namespace agentnic::lab
