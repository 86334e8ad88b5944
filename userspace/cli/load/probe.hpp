// SPDX-License-Identifier: Apache-2.0
#pragma once

/// agentnic-load probe: tries the kernel, asks the driver and the libraries, and tells.

#include <string>

#include "base/result.hpp"

namespace agentnic::cli {

/// Prints the report; `ifname` may be empty. Unsupported when something is missing without which nothing
/// can be attached.
Result<int> probe(const std::string& ifname, const std::string& netns, bool json);

}  // namespace agentnic::cli
