// SPDX-License-Identifier: Apache-2.0
#include "cli/common/program.hpp"

#include <fmt/format.h>

#include <cstdlib>
#include <iostream>
#include <utility>

#include "version.h"

namespace agentnic::cli {

Program::Program(const std::string& name, const std::string& purpose) : app_(purpose, name) {
  app_.set_version_flag("--version", name + " " + AGENTNIC_VERSION);
  app_.require_subcommand(1);
  app_.get_formatter()->column_width(36);
}

CLI::App* Program::command(const std::string& name, const std::string& purpose,
                           std::function<Result<int>()> run) {
  return command(&app_, name, purpose, std::move(run));
}

CLI::App* Program::command(CLI::App* parent, const std::string& name, const std::string& purpose,
                           std::function<Result<int>()> run) {
  CLI::App* made = parent->add_subcommand(name, purpose);
  if (run) {
    made->callback([this, run = std::move(run)] { run_ = run; });
  } else {
    made->require_subcommand(1);
  }
  return made;
}

void Program::only(std::function<Result<int>()> run) {
  app_.require_subcommand(0);
  run_ = std::move(run);
}

int Program::main(int argc, char** argv) {
  // Programs that are started from here (ip, sysctl, ethtool) may be where an ordinary user's PATH does not
  // look.
  const char* path = std::getenv("PATH");
  ::setenv(
      "PATH",
      fmt::format("{}:/usr/local/sbin:/usr/sbin:/sbin", path != nullptr ? path : "/usr/bin:/bin").c_str(), 1);
  try {
    app_.parse(argc, argv);
  } catch (const CLI::Success& done) {  // --help, --version
    return app_.exit(done);
  } catch (const CLI::ParseError& error) {
    std::cerr << fmt::format("{}: {}; hint: {} --help\n", app_.get_name(), error.what(), app_.get_name());
    return static_cast<int>(Exit::BadInput);
  }
  const Result<int> status = run_();
  if (status) return *status;
  std::cerr << fmt::format("{}: {}\n", app_.get_name(), status.error().text());
  return static_cast<int>(status.error().exit);
}

std::string version() { return AGENTNIC_VERSION; }

std::string revision() { return AGENTNIC_REVISION; }

void print_json(const Json& json) {
  std::cout << json.dump(2, ' ', false, Json::error_handler_t::replace) << '\n';
}

}  // namespace agentnic::cli
