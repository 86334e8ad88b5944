// SPDX-License-Identifier: Apache-2.0
#pragma once

/// Address prefixes. Pure.

#include <string>
#include <string_view>

#include "abi/policy.h"
#include "base/result.hpp"

namespace agentnic::policy {

/// "10.0.0.0/8", "2001:db8::/32", or an address alone: all of its bits. v4-mapped ones are IPv4. Bits beyond
/// the length must be 0.
Result<anic_prefix> parse_prefix(std::string_view text);

/// As parse_prefix() reads it.
std::string prefix_text(const anic_prefix& prefix);

}  // namespace agentnic::policy
