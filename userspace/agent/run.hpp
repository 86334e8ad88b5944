// SPDX-License-Identifier: Apache-2.0
#pragma once

/// An agent from its session's beginning to its end. Three processes: this one keeps the privileges and
/// looks at nothing that the others say; one, confined, has the session and the controller; and, if a program
/// is the controller, that one, confined, has pipes to the second. A replay has the same three, and a
/// recording instead of the session.

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "agent/loop.hpp"
#include "agent/replay.hpp"
#include "agent/sandbox.hpp"
#include "agent/wire.hpp"
#include "base/unique_fd.hpp"
#include "kern/bpffs.hpp"
#include "kern/guardian.hpp"
#include "kern/maps.hpp"

namespace agentnic::agent {

/// A controller, and what it is kept in.
struct Settings {
  std::optional<Decider> decider;        ///< a built-in one; nothing: that of the recording
  std::vector<std::string> command;      ///< a program as the controller; none: a built-in one
  std::vector<std::string> environment;  ///< of the program: NAME=VALUE
  Confinement confinement;
  std::uint32_t processes = 0;
  std::uint64_t memory_bytes = 0;
  UniqueFd record;  ///< where to write what passes; may be none
};

/// What a session is begun with.
struct Start {
  kern::SessionRequest session;
  Hello hello;  ///< its session is filled in
  Names names;
  LoopSettings loop;
  std::uint64_t heartbeat_ns = 0;  ///< L1: of the policy
};

/// Runs it until it ends. What it changed is given back, if it came to a good end; else its session is left
/// to the guardian, which enters fail-safe when the heartbeat is missed: an error. So is a session that the
/// guardian had ended before.
Status run(const kern::PinDir& dir, const kern::Maps& maps, Start start, Settings settings);

/// Replays a recording, and has `report` print the result, whose answer is the exit status. `confined`: false
/// for somebody who has no privileges to give up; then a program is this user's, with no way to get some.
Result<int> run_replay(UniqueFd recording, Settings settings, bool confined,
                       const std::function<int(const Replayed&)>& report);

}  // namespace agentnic::agent
