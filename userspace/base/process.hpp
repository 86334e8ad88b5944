// SPDX-License-Identifier: Apache-2.0
#pragma once

/// Child processes, started without a shell or copied. They die with the thread that started them.

#include <sys/types.h>

#include <functional>
#include <string>
#include <vector>

#include "base/result.hpp"
#include "base/unique_fd.hpp"

namespace agentnic {

using Argv = std::vector<std::string>;

/// A running child whose output comes here. Move-only; ends the child when it goes.
class Child final {
 public:
  /// argv[0] is looked up in PATH.
  static Result<Child> start(const Argv& argv);
  /// A copy of this process that runs `call` and ends: for work that may be killed, or that changes what a
  /// process is in. Its output is what `call` writes to the descriptor; `name` is for messages. Only where no
  /// other thread runs, whose locks the copy would find held for ever.
  static Result<Child> start(const std::string& name, const std::function<void(int out_fd)>& call);
  Child(Child&& other) noexcept;
  Child& operator=(Child&&) = delete;
  Child(const Child&) = delete;
  Child& operator=(const Child&) = delete;
  ~Child();

  /// The next line of standard output without its end; an error when the child ends first or `timeout_ms`
  /// pass.
  Result<std::string> read_line(int timeout_ms);
  [[nodiscard]] pid_t pid() const noexcept { return pid_; }
  /// Asks the child to end (SIGTERM).
  void ask_to_stop() const noexcept;

  struct Outcome {
    int status = 0;  ///< exit status, or 128 + signal
    std::string output;
    std::string errors;
  };
  /// Everything else that it prints, and its end. After `timeout_ms` it is killed, which is an error.
  Result<Outcome> wait(int timeout_ms);

 private:
  Child(Argv argv, pid_t pid, UniqueFd out, UniqueFd err);
  /// Reads what is there into output_ and errors_; false at the end of both.
  Result<bool> pump(int timeout_ms);

  Argv argv_;
  pid_t pid_ = -1;
  UniqueFd out_;
  UniqueFd err_;
  std::string output_;
  std::string errors_;
};

/// What a program that ended badly said: the last line of its standard error, or its status.
Error program_error(const Argv& argv, const Child::Outcome& outcome);

/// Runs to the end; the standard output, or program_error().
Result<std::string> run_program(const Argv& argv, int timeout_ms = 30'000);

}  // namespace agentnic
