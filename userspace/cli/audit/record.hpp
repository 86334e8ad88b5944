// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "base/result.hpp"

namespace agentnic::cli {

struct RecordOptions {
  std::string ifname;
  std::string netns;
  std::string log;  ///< folder
  std::string key;  ///< of who signs
  std::string user = "agentnic-audit";
  std::string group;  ///< of who may read; empty: the user's
  std::uint64_t sync_ms = 100;
  std::uint64_t checkpoint_seconds = 10;
  std::uint64_t checkpoint_records = 65'536;
  std::string checkpoint_file;
  std::vector<std::string> checkpoint_command;
  bool wait = false;
  bool json = false;
};

/// Takes records out of the kernel's ring and keeps them, until the instance is detached or a signal comes.
Result<int> record(const RecordOptions& options);

}  // namespace agentnic::cli
