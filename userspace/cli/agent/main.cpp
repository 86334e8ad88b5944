// SPDX-License-Identifier: Apache-2.0
//
// agentnic-agent: runs a controller, built in or any program, as the agent of an interface, with no more
// power than the policy grants.

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <cstdlib>
#include <cstring>
#include <iostream>
#include <string>
#include <vector>

#include "agent/run.hpp"
#include "agent/wire.hpp"
#include "cli/common/program.hpp"
#include "kern/generation.hpp"
#include "kern/guardian.hpp"
#include "kern/instance.hpp"
#include "kern/libbpf_log.hpp"
#include "kern/maps.hpp"
#include "policy/text.hpp"
#include "policy/units.hpp"

namespace {

using namespace agentnic;
using agentnic::Json;

constexpr std::string_view kExec = "--exec";
constexpr std::uint64_t kMiB = 1U << 20U;

struct Options {
  std::string ifname;
  std::string netns;
  std::string agent;
  std::string controller = "static";
  std::uint64_t seed = 0;
  std::string interval;
  std::uint64_t ticks = 0;
  std::string user = "nobody";
  std::uint32_t processes = 32;
  std::uint64_t memory_mib = 512;
  bool allow_network = false;
  std::vector<std::string> environment;
  std::vector<std::string> command;
  bool dry_run = false;
};

std::string text_of(const char (&name)[ANIC_NAME_LEN]) { return {name, ::strnlen(name, sizeof(name))}; }

/// The agent of this name; without a name, the only one that there is.
Result<std::uint32_t> agent_of(const Options& options, const anic_guarding& guarding) {
  std::vector<std::string> names;
  std::uint32_t only = 0;
  for (std::uint32_t id = 1; id < ANIC_AGENTS_MAX; ++id) {
    const std::string name = text_of(guarding.agents[id].name);
    if (name.empty()) continue;
    if (name == options.agent) return id;
    names.push_back(name);
    only = id;
  }
  if (options.agent.empty() && names.size() == 1) return only;
  const std::string hint = names.empty() ? "name one under \"agents\" in the policy"
                                         : fmt::format("--agent {}", fmt::join(names, " or --agent "));
  if (options.agent.empty())
    return fail(
        Exit::BadInput,
        fmt::format("run an agent on {}: the policy in force has {} agents", options.ifname, names.size()),
        hint);
  return fail(Exit::BadInput,
              fmt::format("the policy in force has no agent {}", policy::json_text(options.agent)), hint);
}

/// Names of what is granted, and of no other.
agent::Names names_of(const policy::Tables& tables, const anic_grants& grants) {
  agent::Names names;
  for (std::uint32_t id = 1; id < tables.tenants.size(); ++id) {
    const std::string name = text_of(tables.tenants[id].name);
    if (!name.empty() && (grants.tenants >> (id - 1) & 1U) != 0) names.tenants[id] = name;
  }
  for (std::uint32_t id = 1; id < tables.services.size(); ++id) {
    const anic_service& service = tables.services[id];
    const std::string name = text_of(service.name);
    if (!name.empty() && (service.tenant == 0 || names.tenants.contains(service.tenant)))
      names.services[id] = name;
  }
  return names;
}

Result<std::vector<std::string>> environment_of(const Options& options) {
  std::vector<std::string> environment = {"PATH=/usr/local/bin:/usr/bin:/bin", "HOME=/", "LANG=C.UTF-8"};
  for (const std::string& name : options.environment) {
    const char* value = std::getenv(name.c_str());
    if (value == nullptr)
      return fail(Exit::BadInput, fmt::format("--env {}: it is not set", policy::json_text(name)));
    environment.push_back(fmt::format("{}={}", name, value));
  }
  return environment;
}

Result<int> run(const Options& options) {
  agent::Settings settings;
  settings.controller = options.controller;
  settings.seed = options.seed;
  if (options.command.empty())
    ANIC_TRY(agent::make_controller(options.controller, options.seed));  // before anything is opened
  settings.command = options.command;
  settings.environment = ANIC_TRY(environment_of(options));
  settings.confinement = ANIC_TRY(agent::confinement_of(options.user));
  settings.confinement.network = options.allow_network;
  settings.processes = options.processes;
  settings.memory_bytes = options.memory_mib * kMiB;
  ANIC_TRY(kern::need_privileges("run an agent"));
  const kern::NetNs netns = ANIC_TRY(kern::NetNs::open_or_current(options.netns));
  const auto status = ANIC_TRY(kern::need_attached(netns, options.ifname, "run an agent on"));
  const kern::Maps maps = ANIC_TRY(kern::Maps::pinned(status.dir));
  const anic_guarding guarding = ANIC_TRY(kern::read_guarding(maps));
  settings.session.agent = ANIC_TRY(agent_of(options, guarding));
  const anic_agent& granted = guarding.agents[settings.session.agent];
  settings.session.asked = granted.grants;
  settings.names = names_of(ANIC_TRY(kern::read_names(maps)), granted.grants);
  settings.loop.ticks = options.ticks;
  settings.loop.interval_ns = options.interval.empty() ? guarding.envelope.tick_ns
                                                       : ANIC_TRY(policy::parse_duration(options.interval));
  settings.hello.ifname = options.ifname;
  settings.hello.agent = text_of(granted.name);
  settings.hello.interval_ns = settings.loop.interval_ns;
  settings.hello.grants = granted.grants;
  if (options.dry_run) {
    std::cout << agent::hello_line(settings.hello, settings.names);
    return 0;
  }
  ANIC_TRY(agent::run(status.dir, maps, std::move(settings)));
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  cli::Program program("agentnic-agent",
                       "Runs a controller as the agent of an interface, confined to its grants.");
  Options options;
  kern::capture_libbpf_log(false);
  // All that comes after it is the command, whatever it looks like.
  for (int i = 1; i < argc; ++i) {
    if (argv[i] != kExec) continue;
    options.command.assign(argv + i + 1, argv + argc);
    argc = i + 1;
  }
  CLI::App& app = program.app();
  bool exec = false;
  app.add_option("IFACE", options.ifname, "interface")->required();
  app.add_option("--netns", options.netns, "look for it in this network namespace (ip netns)");
  app.add_option("--agent", options.agent, "which of the policy's agents; needed when there are several");
  CLI::Option* controller = app.add_option("--controller", options.controller, "a built-in controller")
                                ->check(CLI::IsMember(agent::controller_names()))
                                ->capture_default_str();
  app.add_option("--seed", options.seed, "of a built-in controller")->capture_default_str();
  app.add_flag(std::string(kExec), exec, "run what follows as the controller: a program and its arguments")
      ->excludes(controller);
  app.add_option("--interval", options.interval,
                 "between observations, such as 10ms; else the policy's tick");
  app.add_option("--ticks", options.ticks, "end after so many observations; 0: when asked to")
      ->capture_default_str();
  app.add_option("--user", options.user, "whom it runs as")->capture_default_str();
  app.add_option("--processes", options.processes, "how many it may have")
      ->check(CLI::Range(2, 4096))
      ->capture_default_str();
  app.add_option("--memory", options.memory_mib, "MiB that it may have")
      ->check(CLI::Range(16, 1 << 20))
      ->capture_default_str();
  app.add_flag("--allow-network", options.allow_network, "let the program of --exec use the network");
  app.add_option("--env", options.environment,
                 "pass this variable on to the program of --exec; may be repeated");
  app.add_flag("--dry-run", options.dry_run, "print what the agent would be told first, and run nothing");
  program.only([&]() -> Result<int> {
    if (exec && options.command.empty())
      return fail(Exit::BadInput, "--exec: no program is named", "--exec PROGRAM ARGUMENTS...");
    return run(options);
  });
  return program.main(argc, argv);
}
