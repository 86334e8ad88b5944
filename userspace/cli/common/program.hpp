// SPDX-License-Identifier: Apache-2.0
#pragma once

/// What every program does the same way: options, errors, exit status.

#include <CLI/CLI.hpp>

#include <functional>
#include <string>

#include "base/json.hpp"
#include "base/result.hpp"

namespace agentnic::cli {

/// Parses the command line and runs what its subcommand's callback set. Returns the exit status. Errors
/// go to stderr as `PROGRAM: what; hint: ...`.
class Program final {
 public:
  Program(const std::string& name, const std::string& purpose);

  CLI::App& app() { return app_; }
  /// Adds a subcommand; `run` is called once the command line is known to be good, and returns the exit
  /// status.
  CLI::App* command(const std::string& name, const std::string& purpose, std::function<Result<int>()> run);
  /// The same under another subcommand.
  CLI::App* command(CLI::App* parent, const std::string& name, const std::string& purpose,
                    std::function<Result<int>()> run);

  /// For a program that does one thing: no subcommands.
  void only(std::function<Result<int>()> run);

  int main(int argc, char** argv);

 private:
  CLI::App app_;
  std::function<Result<int>()> run_;
};

/// What was built: the version of the changelog, and the revision of the sources.
std::string version();
std::string revision();

/// Prints JSON and a new line to standard output.
void print_json(const Json& json);

}  // namespace agentnic::cli
