// SPDX-License-Identifier: Apache-2.0
#include "lab/measure.hpp"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <iostream>
#include <system_error>

#include "base/stop.hpp"
#include "lab/environment.hpp"
#include "policy/parse.hpp"

namespace agentnic::lab {
namespace {

/// The JSON that a program printed; a run that is not valid says so in it and exits with 1. Whoever printed
/// none failed.
Result<Json> json_of(const Argv& argv, const Child::Outcome& outcome) {
  Json json = Json::parse(outcome.output, nullptr, false);
  if (json.is_discarded()) return fail(program_error(argv, outcome));
  return json;
}

}  // namespace

Bench make_bench(const Lab& lab) {
  const auto cpus = usable_cpus();
  std::error_code ignored;
  Bench bench{.lab = lab, .program = std::filesystem::read_symlink("/proc/self/exe", ignored)};
  if (!cpus.empty()) bench.client_cpu = bench.server_cpu = cpus[0];
  if (cpus.size() > 1) bench.server_cpu = cpus[1];
  return bench;
}

Result<Json> measure(const Bench& bench, const RunSpec& spec) {
  const std::string port = std::to_string(spec.transport == "xsk" ? kXskPort : kKernelPort);
  const std::string wait = wait_name(spec.wait);
  Argv serve = {
      bench.program, "serve", "--netns", bench.lab.server.netns,           "--transport", spec.transport,
      "--wait",      wait,    "--cpu",   std::to_string(bench.server_cpu), "--json"};
  if (spec.transport == "xsk") {
    serve.insert(serve.end(), {"--iface", bench.lab.server.ifname});
  } else {
    serve.insert(serve.end(), {"--address", bench.lab.server.ipv4, "--port", port});
    if (spec.batch != 1) serve.insert(serve.end(), {"--batch", std::to_string(spec.batch)});
  }
  Argv run = {bench.program,   "run",
              "--netns",       bench.lab.client.netns,
              "--server",      bench.lab.server.ipv4,
              "--port",        port,
              "--size",        std::to_string(spec.size),
              "--wait",        wait_name(spec.client_wait.value_or(spec.wait)),
              "--warmup",      fmt::format("{}", spec.warmup_s),
              "--duration",    fmt::format("{}", spec.duration_s),
              "--outstanding", std::to_string(spec.outstanding),
              "--cpu",         std::to_string(bench.client_cpu),
              "--json"};
  if (spec.rate_per_s > 0)
    run.insert(run.end(), {"--loop", "open", "--rate", fmt::format("{}", spec.rate_per_s)});
  for (Argv* argv : {&serve, &run}) {
    if (spec.busy_poll_us != 0) argv->insert(argv->end(), {"--busy-poll", std::to_string(spec.busy_poll_us)});
  }
  if (spec.client == "tcp")
    run.insert(run.end(), {"--transport", "tcp", "--connections", std::to_string(spec.connections)});
  if (spec.client == "xsk") run.insert(run.end(), {"--transport", "xsk", "--iface", bench.lab.client.ifname});
  Child server = ANIC_TRY(Child::start(serve));
  ANIC_TRY(server.read_line(kAnswerMs));  // it is ready
  Child client = ANIC_TRY(Child::start(run));
  const auto asked =
      ANIC_TRY(client.wait(kAnswerMs + static_cast<int>((spec.duration_s + spec.warmup_s) * 1000)));
  server.ask_to_stop();
  const auto served = ANIC_TRY(server.wait(kAnswerMs));
  if (stop_requested()) return fail(Exit::Failed, "stopped");
  return Json{{"server", ANIC_TRY(json_of(serve, served))}, {"run", ANIC_TRY(json_of(run, asked))}};
}

Result<policy::Policy> xsk_client_policy() {
  return policy::parse(R"({"version": 1, "name": "bench-client", "services": [
    {"name": "of-kernel", "protocol": "udp", "port": 9000, "role": "client", "class": "rpc", "path": "xsk"},
    {"name": "of-xsk", "protocol": "udp", "port": 9001, "role": "client", "class": "rpc", "path": "xsk"}]})",
                       "bench client policy");
}

Attached::Attached(kern::NetNs netns, std::string ifname, const policy::Policy& policy)
    : netns_(std::move(netns)), ifname_(std::move(ifname)), policy_(policy) {}

Result<Attached> Attached::open(const Bench& bench, const policy::Policy& policy) {
  return open(bench.lab.server, policy);
}

Result<Attached> Attached::open(const Host& host, const policy::Policy& policy) {
  return Attached(ANIC_TRY(kern::NetNs::open(host.netns)), host.ifname, policy);
}

Status Attached::set(bool on) {
  if (on == on_) return {};
  if (on) {
    report_ = ANIC_TRY(kern::attach_instance(netns_, ifname_, policy_, {}));
  } else {
    ANIC_TRY(kern::detach_instance({netns_.inode(), ifname_}));
  }
  on_ = on;
  return {};
}

Spread spread(std::vector<double> values) {
  std::ranges::sort(values);
  const std::size_t half = values.size() / 2;
  const double median = values.size() % 2 == 1 ? values[half] : (values[half - 1] + values[half]) / 2;
  return {median, values.front(), values.back()};
}

Json to_json(const Spread& spread) {
  return {{"median", spread.median}, {"low", spread.low}, {"high", spread.high}};
}

Progress::Progress(std::size_t steps) : steps_(steps), on_terminal_(::isatty(STDERR_FILENO) == 1) {}

Progress::~Progress() {
  if (on_terminal_) std::cerr << "\r\033[K" << std::flush;
}

void Progress::step(const std::string& what) {
  ++done_;
  if (on_terminal_) std::cerr << fmt::format("\r\033[K[{}/{}] {}", done_, steps_, what) << std::flush;
}

}  // namespace agentnic::lab
