// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <vector>

#include "base/result.hpp"

namespace agentnic::cli {

struct VerifyLogOptions {
  std::string log;                  ///< folder, or
  std::string exported;             ///< a file of export
  std::string public_key;           ///< file
  std::string chain_key;            ///< file, or empty: public verification
  std::vector<std::string> others;  ///< files with checkpoints from elsewhere
  bool json = false;
};

/// 0: valid; 1: broken; 5: cannot tell.
Result<int> verify(const VerifyLogOptions& options);

}  // namespace agentnic::cli
