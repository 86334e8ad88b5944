// SPDX-License-Identifier: Apache-2.0
#pragma once

/// A controller against a recording instead of a kernel.

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>

#include "agent/controller.hpp"
#include "agent/recording.hpp"
#include "base/result.hpp"

namespace agentnic::agent {

/// An answer that is not the one that was recorded; both as agent/wire.hpp has them.
struct Difference {
  std::size_t line = 0;  ///< of the observation in the recording
  std::uint64_t tick = 0;
  std::string recorded;
  std::string replayed;
};

struct Replayed {
  std::uint64_t observations = 0;
  std::uint64_t proposals = 0;  ///< of this controller
  std::uint64_t different = 0;  ///< answers
  std::optional<Difference> first;
  bool cut = false;  ///< the recording ends in the middle of a line
};

/// Shows the controller all observations that were answered, and compares its answers. Where it asks for what
/// was asked for then, it gets the decisions of then; where it does not, nobody can know, and it gets none.
Result<Replayed> replay(Recording& recording, Controller& controller);

}  // namespace agentnic::agent
