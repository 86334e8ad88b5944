// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

#include "base/result.hpp"

namespace agentnic::cli {

struct KeygenOptions {
  std::string origin;
  std::string out;  ///< folder
  bool json = false;
};

/// Makes the keys of a log: log.key, log.pub and chain.key in a folder.
Result<int> keygen(const KeygenOptions& options);

}  // namespace agentnic::cli
