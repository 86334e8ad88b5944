// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

#include "audit/filter.hpp"
#include "base/result.hpp"

namespace agentnic::cli {

struct TailOptions {
  std::string ifname;  ///< whose ring to read, or
  std::string log;     ///< the folder of a log
  std::string netns;
  audit::FilterWords filter;
  bool follow = false;
  bool take = false;
  bool json = false;
};

/// Prints records.
Result<int> tail(const TailOptions& options);

}  // namespace agentnic::cli
