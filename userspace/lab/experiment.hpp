// SPDX-License-Identifier: Apache-2.0
#pragma once

/// Experiments: what `make demo` runs, its result file and its table.

#include <string>
#include <utility>
#include <vector>

#include "base/json.hpp"
#include "base/result.hpp"

namespace agentnic::lab {

struct ExperimentOptions {
  std::string policy_file;
  int repeats = 5;
  double duration_s = 0.6;
  std::vector<std::string> argv;  ///< of the program, for the record
};

/// Names, and what each is about.
std::vector<std::pair<std::string, std::string>> experiments();

/// first-light: a kernel UDP server without agentnic, the same under its policy, and an AF_XDP server, at 64,
/// 128, 256 and 512 B. concurrency: the last two, at 64, 256 and 512 B with 1 to 64 requests outstanding,
/// asked by an AF_XDP client. Both spinning and blocking, repeats alternating, in a lab of its own that goes
/// when this process ends. Schema agentnic.result/1. Puts this process into private mounts; call it once.
Result<Json> run_experiment(const std::string& name, const ExperimentOptions& options);

/// The table of an agentnic.result/1; bad input when it is something else.
Result<std::string> report(const Json& result);

/// Whether every row of a result can be trusted.
bool is_valid(const Json& result);

/// The folder that save_result() writes to; call it before measuring.
Status make_result_folder(const std::string& directory);

/// Writes DIR/local-<time>.json and makes DIR/latest.json the same; the first path.
Result<std::string> save_result(const Json& result, const std::string& directory);

}  // namespace agentnic::lab
