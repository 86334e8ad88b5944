// SPDX-License-Identifier: Apache-2.0
#pragma once

/// Benchmarks: each measures agentnic beside a peer, in the same run, by turns.

#include <string>
#include <vector>

#include "base/json.hpp"
#include "base/result.hpp"

namespace agentnic::lab {

struct BenchmarkInfo {
  std::string id;
  std::string what;
};
std::vector<BenchmarkInfo> benchmarks();

/// Runs those with these ids, or all when there are none. A list of {id, value, unit, peer, ratio, low, high,
/// target, met, valid, note}: `value` is the median of the repeats, `low` and `high` bound it; `peer` is what
/// it is measured against, {name, value}; `ratio` is against the peer, above 1 is better for agentnic;
/// `target` is for `ratio` or for `value`, as `note` says. Puts this process into private mounts; call it
/// once.
Result<Json> run_benchmarks(const std::vector<std::string>& ids);

/// The same as a table.
std::string benchmark_table(const Json& list);

}  // namespace agentnic::lab
