// SPDX-License-Identifier: Apache-2.0
#pragma once

/// What an agent was told, asked for and was answered, as lines: who decided, and then those of
/// agent/wire.hpp in order. Schema agentnic.recording/1 (docs/agent.md).

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "agent/controller.hpp"
#include "agent/lines.hpp"
#include "agent/wire.hpp"
#include "base/result.hpp"
#include "base/unique_fd.hpp"

namespace agentnic::agent {

inline constexpr std::size_t kMaxRecordedLine = 1U << 20U;  ///< an observation of all lanes is a fifth of it

/// Who decided.
struct Decider {
  std::string controller;  ///< a built-in one; empty: a program
  std::uint64_t seed = 0;
};

/// Writes down what passes between a controller and whoever asks it. When that fails, it says so once, and
/// the controller goes on.
class Recorder final : public Controller {
 public:
  Recorder(std::unique_ptr<Controller> controller, UniqueFd file, const Decider& decider, const Hello& hello,
           Names names);

  Result<std::optional<std::vector<Proposal>>> decide(const Observation& observation) override;
  Status decided(const std::vector<Decision>& decisions) override;

 private:
  void write(std::string_view lines);

  std::unique_ptr<Controller> controller_;
  UniqueFd file_;  ///< none: it could not be written
  std::uint64_t session_;
  Names names_;
  std::uint64_t tick_ = 0;
};

/// An observation, and what came of it.
struct Step {
  std::size_t line = 0;  ///< of the observation, from 1
  Observation observation;
  std::vector<Proposal> proposals;
  std::vector<Decision> decisions;  ///< one for each, or fewer: it ended before they were all there
};

/// Reads a recording a line at a time. Pure. Faults are bad input and name the line.
class RecordingParser final {
 public:
  /// The next line, without its end. The step that it completes, if it does.
  Result<std::optional<Step>> add(std::string_view line);

  /// At the end: the step that lacks decisions, if there is one. An observation without an answer is none.
  std::optional<Step> rest();

  /// Whether the first two lines were there, which say who decided, and what it was told first.
  [[nodiscard]] bool begun() const { return lines_ >= 2; }
  [[nodiscard]] std::size_t lines() const { return lines_; }
  [[nodiscard]] const Decider& decider() const { return decider_; }
  [[nodiscard]] const Told& told() const { return told_; }

 private:
  Result<std::optional<Step>> parse(std::string_view line);

  std::size_t lines_ = 0;
  Decider decider_;
  Told told_;
  std::optional<Step> step_;  ///< that is being read
  bool answered_ = false;
};

/// A file with a recording, which is read as it is needed.
class Recording final {
 public:
  /// Reads until a controller can begin.
  static Result<Recording> begin(UniqueFd file);

  [[nodiscard]] const Decider& decider() const { return parser_.decider(); }
  [[nodiscard]] const Told& told() const { return parser_.told(); }

  /// The next step; nothing: there are no more.
  Result<std::optional<Step>> next();

  /// At the end: whether it is in the middle of a line, as after a kill.
  [[nodiscard]] bool cut() const { return !lines_.empty(); }

 private:
  explicit Recording(UniqueFd file) : file_(std::move(file)) {}
  Result<std::optional<std::string>> line();

  UniqueFd file_;
  LineBuffer lines_{kMaxRecordedLine};
  RecordingParser parser_;
};

}  // namespace agentnic::agent
