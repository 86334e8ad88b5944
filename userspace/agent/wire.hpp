// SPDX-License-Identifier: Apache-2.0
#pragma once

/// The lines between agentnic and a program that is the agent: JSON, one object a line, schema
/// agentnic.agent/1 (docs/agent.md). Pure. What comes from the program is trusted in nothing.

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "agent/proposal.hpp"
#include "base/json.hpp"
#include "base/result.hpp"

namespace agentnic::agent {

inline constexpr std::size_t kMaxLine = 65536;  ///< bytes of an answer, without its end

/// What the agent is told once, before all else.
struct Hello {
  std::string ifname;
  std::string agent;
  std::uint64_t session = 0;
  std::uint64_t interval_ns = 0;
  anic_grants grants{};
  std::vector<Spread> spreads;  ///< of what is granted
};

/// Each is one line with its end.
std::string hello_line(const Hello& hello, const Names& names);
std::string observation_line(const Observation& observation);
std::string decision_line(const Decision& decision, std::uint64_t tick, std::uint64_t session,
                          const Names& names);
std::string error_line(const std::string& what);

/// What it answers to an observation: its tick, and at most ANIC_DRAIN_MAX proposals, none of them for a name
/// that it was not granted. Else bad input: what is wrong, and where.
Result<std::vector<Proposal>> parse_answer(std::string_view line, std::uint64_t tick, const Names& names);

/// Such an answer, as one line with its end.
std::string answer_line(const std::vector<Proposal>& proposals, std::uint64_t tick, const Names& names);

// The other way round, for recordings: bad input when it is no such line. What has more keys is of a later
// version.

/// What the agent was told first, and names with ids of our own.
struct Told {
  Hello hello;
  Names names;
};
Result<Told> parse_hello(std::string_view line);
Result<Observation> parse_observation(std::string_view line);
/// `proposal`: what was decided. Of a rejection, what is not told is 0.
Result<Decision> parse_decision(std::string_view line, const Proposal& proposal);

}  // namespace agentnic::agent
