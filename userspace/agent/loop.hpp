// SPDX-License-Identifier: Apache-2.0
#pragma once

/// The agent's loop: look, decide, propose, once each interval.

#include <cstdint>

#include "agent/controller.hpp"
#include "agent/observation.hpp"
#include "base/result.hpp"
#include "kern/session.hpp"

namespace agentnic::agent {

struct LoopSettings {
  std::uint64_t interval_ns = 0;
  std::uint64_t ticks = 0;  ///< ends after so many; 0: when somebody asks it to
};

/// Runs until its time is over or somebody asks it to stop. A drain is the heartbeat, and comes only when the
/// controller has answered. An error when the controller or the guardian ends it.
Status run_loop(const kern::Session& session, Controller& controller, Observer observer,
                const LoopSettings& settings);

/// The error of whoever finds the session over.
std::unexpected<Error> ended_by_guardian(std::uint64_t session);

}  // namespace agentnic::agent
