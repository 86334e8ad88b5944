// SPDX-License-Identifier: Apache-2.0
#pragma once

/// A program as the controller: it gets observations and decisions on its standard input and answers on its
/// standard output. This is the end of those pipes that trusts it in nothing.

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "agent/controller.hpp"
#include "agent/error_text.hpp"
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
  ProgramController(const ProgramController&) = delete;
  ProgramController& operator=(const ProgramController&) = delete;
  ~ProgramController() override;

  /// Sends the observation and waits for the answer. An error when the program is silent for the heartbeat,
  /// ends, or says what is no answer again and again.
  Result<std::optional<std::vector<Proposal>>> decide(const Observation& observation) override;
  Status decided(const std::vector<Decision>& decisions) override;

  /// Whether it has closed its output, after a whole line.
  [[nodiscard]] bool ended() const { return ended_ && lines_.empty(); }

 private:
  Result<std::optional<std::vector<Proposal>>> answer_to(const Observation& observation);
  /// Passes on what it has said on its standard error.
  void relay_errors();
  /// ... and what has no end, for there is no more to come.
  void end_errors();
  Status send(const std::string& line);
  /// Writes what the pipe takes of what is to be sent.
  Status flush();
  /// Waits for what it says or for room, then reads.
  Status wait(std::uint64_t until_ns);
  Status read_some();

  Pipes pipes_;
  Names names_;
  std::uint64_t session_;
  std::uint64_t tick_ = 0;
  std::string unsent_;
  LineBuffer lines_{kMaxLine};
  ErrorText errors_;
  bool ended_ = false;
};

}  // namespace agentnic::agent
