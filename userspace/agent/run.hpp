// SPDX-License-Identifier: Apache-2.0
#pragma once

/// An agent from its session's beginning to its end. Three processes: this one keeps the privileges and
/// looks at nothing that the others say; one, confined, has the session and the controller; and, if a program
/// is the controller, that one, confined, has pipes to the second.

#include <cstdint>
#include <string>
#include <vector>

#include "agent/loop.hpp"
#include "agent/sandbox.hpp"
#include "agent/wire.hpp"
#include "kern/bpffs.hpp"
#include "kern/guardian.hpp"
#include "kern/maps.hpp"

namespace agentnic::agent {

struct Settings {
  kern::SessionRequest session;
  Hello hello;
  Names names;
  std::string controller;
  std::uint64_t seed = 0;
  std::vector<std::string> command;      ///< a program as the controller; none: a built-in one
  std::vector<std::string> environment;  ///< of the program: NAME=VALUE
  Confinement confinement;
  std::uint32_t processes = 0;
  std::uint64_t memory_bytes = 0;
  LoopSettings loop;
};

/// Runs it until it ends. What it changed is given back, if it came to a good end; else its session is left
/// to the guardian, which enters fail-safe when the heartbeat is missed: an error.
Status run(const kern::PinDir& dir, const kern::Maps& maps, Settings settings);

}  // namespace agentnic::agent
