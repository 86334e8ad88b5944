// SPDX-License-Identifier: Apache-2.0
#pragma once

/// JSON text to policy. Pure: no kernel, no clock, no file but the one that load() is given.

#include <string>
#include <string_view>

#include "base/result.hpp"
#include "policy/model.hpp"

namespace agentnic::policy {

inline constexpr std::size_t kMaxBytes = 16U << 20U;    ///< a larger file is refused
inline constexpr int kMaxDepth = 16;                    ///< deeper nesting is refused
inline constexpr std::size_t kMaxPrefixes = 1U << 18U;  ///< of all tenants, local ones included

/// The policy, or the first fault as `NAME: /json/pointer: reason` (NAME: line and column, when it is not
/// JSON at all). Every key must be known, every key may stand once.
Result<Policy> parse(std::string_view text, const std::string& name);

/// parse() of a file.
Result<Policy> load(const std::string& path);

}  // namespace agentnic::policy
