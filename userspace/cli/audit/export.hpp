// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

#include "base/result.hpp"

namespace agentnic::cli {

struct ExportOptions {
  std::string log;
  std::string tenant;
  std::string out;  ///< folder
  std::string reason = "export";
  bool json = false;
};

/// Writes a tenant's records, with their proofs, into a folder of the tenant's.
Result<int> export_records(const ExportOptions& options);

}  // namespace agentnic::cli
