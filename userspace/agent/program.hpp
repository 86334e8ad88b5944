// SPDX-License-Identifier: Apache-2.0
#pragma once

/// A program as the controller: it gets observations and decisions on its standard input and answers on its
/// standard output. This is the end of those pipes that trusts it in nothing.

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "agent/controller.hpp"
#include "agent/lines.hpp"
#include "agent/wire.hpp"
#include "base/unique_fd.hpp"

namespace agentnic::agent {

/// The ends of the pipes to a program that are ours; none of them blocks.
struct Pipes {
  UniqueFd to;
  UniqueFd from;
  UniqueFd errors;
};

class ProgramController final : public Controller {
 public:
  ProgramController(Pipes pipes, const Hello& hello, Names names);

  /// Sends the observation and waits for the answer. An error when the program is silent for the heartbeat,
  /// ends, or says what is no answer again and again.
  Result<std::optional<std::vector<Proposal>>> decide(const Observation& observation) override;
  Status decided(const std::vector<Decision>& decisions) override;

  /// Whether it has closed its output, after a whole line.
  [[nodiscard]] bool ended() const { return ended_ && lines_.empty(); }

 private:
  /// Passes on what it says on its standard error, a part at a time.
  void relay_errors();
  Status send(const std::string& line);
  /// Writes what the pipe takes of what is to be sent.
  Status flush();
  /// Waits for input or room, then reads.
  Status wait(std::uint64_t until_ns);
  Status read_some();

  Pipes pipes_;
  Names names_;
  std::uint64_t session_;
  std::uint64_t tick_ = 0;
  std::string unsent_;
  LineBuffer lines_{kMaxLine};
  std::string error_text_;
  bool ended_ = false;
};

}  // namespace agentnic::agent
