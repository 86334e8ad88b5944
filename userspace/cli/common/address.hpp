// SPDX-License-Identifier: Apache-2.0
#pragma once

/// Addresses with ports on command lines.

#include <string>

#include "base/result.hpp"
#include "path/sockets/udp.hpp"

namespace agentnic::cli {

/// `10.0.0.9:9000` or `[2001:db8::9]:9000`; nothing is looked up.
Result<path::Address> parse_address(const std::string& text);

}  // namespace agentnic::cli
