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

namespace agentnic::lab {
namespace {

constexpr int kAnswerMs = 10'000;

Result<Json> parse_output(const std::string& text, const std::string& who) {
  Json json = Json::parse(text, nullptr, false);
  if (json.is_discarded()) return fail(Exit::Failed, fmt::format("{}: its output is not JSON", who));
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
  }
  const Argv run = {bench.program, "run",
                    "--netns",     bench.lab.client.netns,
                    "--server",    bench.lab.server.ipv4,
                    "--port",      port,
                    "--size",      std::to_string(spec.size),
                    "--wait",      wait,
                    "--loop",      "closed",
                    "--warmup",    fmt::format("{}", spec.warmup_s),
                    "--duration",  fmt::format("{}", spec.duration_s),
                    "--cpu",       std::to_string(bench.client_cpu),
                    "--json"};
  Child server = ANIC_TRY(Child::start(serve));
  ANIC_TRY(server.read_line(kAnswerMs));  // it is ready
  const std::string client_output =
      ANIC_TRY(run_program(run, kAnswerMs + static_cast<int>((spec.duration_s + spec.warmup_s) * 1000)));
  server.ask_to_stop();
  const auto server_outcome = ANIC_TRY(server.wait(kAnswerMs));
  if (stop_requested()) return fail(Exit::Failed, "stopped");
  return Json{{"server", ANIC_TRY(parse_output(server_outcome.output, serve[0] + " serve"))},
              {"run", ANIC_TRY(parse_output(client_output, run[0] + " run"))}};
}

Result<Json> attach_policy(const Bench& bench, const std::string& policy_file) {
  const std::string load = std::filesystem::path(bench.program).parent_path() / "agentnic-load";
  const std::string output =
      ANIC_TRY(run_program({load, "attach", bench.lab.server.ifname, "--netns", bench.lab.server.netns,
                            "--policy", policy_file, "--json"}));
  return parse_output(output, "agentnic-load attach");
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
