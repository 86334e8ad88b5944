// SPDX-License-Identifier: Apache-2.0
#pragma once

/// What changes from one set of tables to another, for people. Pure.

#include <string>
#include <vector>

#include "policy/compile.hpp"

namespace agentnic::policy {

inline constexpr std::size_t kMaxLinesAKind = 20;  ///< more of one kind are summed up in one line

/// One line a change, grouped by what it is about and sorted; names, not ids. Empty only if the tables are
/// equal (policy.committed_at_ns aside).
std::vector<std::string> difference(const Tables& before, const Tables& after);

}  // namespace agentnic::policy
