// SPDX-License-Identifier: Apache-2.0
#pragma once

/// Controllers: what they are told, and what they may ask for. A built-in one is pure: what it proposes
/// follows from the observations and decisions that it was given, and from its seed. It has no clock, no
/// input and no state of the machine.

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "agent/observation.hpp"
#include "agent/proposal.hpp"
#include "base/result.hpp"

namespace agentnic::agent {

class Controller {
 public:
  Controller() = default;
  Controller(const Controller&) = delete;
  Controller& operator=(const Controller&) = delete;
  virtual ~Controller() = default;

  /// What it asks for, at most ANIC_DRAIN_MAX changes, each with a reason of one sentence. Nothing: it was
  /// not asked, because somebody wants to stop. An error ends the agent.
  virtual Result<std::optional<std::vector<Proposal>>> decide(const Observation& observation) = 0;

  /// What became of each, in the order in which it asked. An error ends the agent.
  virtual Status decided(const std::vector<Decision>& decisions) = 0;
};

/// The built-in ones, for messages.
std::vector<std::string> controller_names();

/// A built-in one; bad input when there is none of this name.
Result<std::unique_ptr<Controller>> make_controller(const std::string& name, std::uint64_t seed);

}  // namespace agentnic::agent
