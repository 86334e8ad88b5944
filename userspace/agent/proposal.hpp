// SPDX-License-Identifier: Apache-2.0
#pragma once

/// What an agent asks for, and what it is answered. Pure.

#include <cstdint>
#include <string>
#include <vector>

#include "abi/guardian.h"
#include "agent/observation.hpp"

namespace agentnic::agent {

/// One change, and the agent's own number for it.
struct Proposal {
  anic_proposal change{};  ///< its size and cookie are the session's business
  std::uint64_t id = 0;
};

struct Decision {
  Proposal proposal;
  anic_answer answer{};
};

}  // namespace agentnic::agent
