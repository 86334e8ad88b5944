// SPDX-License-Identifier: Apache-2.0
#pragma once

/// The first key of an audit's chain, where it is not drawn at random: whoever has it can check all records,
/// and forge them.

#include <array>
#include <cstdint>

namespace agentnic::kern {

struct ChainKey {
  std::uint64_t number = 0;  ///< by which its holders call it, in the record ATTACH; never 0
  std::array<std::uint64_t, 2> key{};
};

}  // namespace agentnic::kern
