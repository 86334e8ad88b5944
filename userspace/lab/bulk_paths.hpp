// SPDX-License-Identifier: Apache-2.0
#pragma once

/// agentnic-bulk by each path, at several sizes, over soft-RoCE and TCP between the two ends of a lab: how
/// much of a processor each takes, and what registering memory costs beside it. Soft-RoCE is a program in the
/// kernel: its figures say nothing of an RDMA device.

#include <cstdint>
#include <string>

#include "base/json.hpp"
#include "base/result.hpp"

namespace agentnic::lab {

struct BulkPathsOptions {
  std::uint64_t mib = 64;  ///< of content in each session
  int repeats = 3;
};

/// {schema: agentnic.bulk-paths/1, emulated, host, rows: [{size_bytes, path, gbps, cpu_s_per_gb,
/// registration_us}], write: a row of results/bench (rdma_vs_ib_write_bw)}. Unsupported: no soft-RoCE between
/// network namespaces (it takes Linux 7.3). Puts this process into private mounts; call it once.
Result<Json> run_bulk_paths(const BulkPathsOptions& options);

/// The same as a table.
std::string bulk_paths_table(const Json& result);

}  // namespace agentnic::lab
