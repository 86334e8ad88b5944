// SPDX-License-Identifier: Apache-2.0
#include "lab/experiment.hpp"

#include <fmt/chrono.h>
#include <fmt/format.h>
#include <sys/stat.h>

#include <cerrno>
#include <ctime>
#include <map>
#include <vector>

#include "base/file.hpp"
#include "base/stop.hpp"
#include "lab/environment.hpp"
#include "lab/measure.hpp"

namespace agentnic::lab {
namespace {

constexpr std::size_t kSizes[] = {64, 128, 256, 512};
constexpr path::Wait kWaits[] = {path::Wait::Spin, path::Wait::Block};

std::string now_text(const char* separator) {
  return fmt::format(fmt::runtime(fmt::format("{{:%Y-%m-%dT%H{0}%M{0}%SZ}}", separator)),
                     fmt::gmtime(std::time(nullptr)));
}

/// The runs of one row: one transport, one way to wait, one size.
struct Row {
  RunSpec spec;
  std::vector<Json> runs;
};

std::vector<double> pick(const Row& row, const char* key) {
  std::vector<double> values;
  for (const Json& run : row.runs) {
    if (!run.at("run").at(key).is_null()) values.push_back(run.at("run").at(key).get<double>());
  }
  return values;
}

Json spread_or_null(const std::vector<double>& values) {
  return values.empty() ? Json(nullptr) : to_json(spread(values));
}

std::string mode_of(const Row& row, const Json& attach) {
  if (row.spec.transport != "xsk") return "kernel socket";
  return fmt::format("{}, {}", attach.at("mode").get<std::string>(),
                     row.runs.front().at("server").at("obtained").get<std::string>());
}

Json row_json(const Row& row, const Json& attach) {
  Histogram merged;
  Json repeats = Json::array();
  Json problems = Json::array();
  for (Json run : row.runs) {
    merged.merge(histogram_from_json(run.at("run").at("histogram_ns")));
    run.at("run").erase("histogram_ns");  // kept once, merged, below
    if (!run.at("run").at("valid").get<bool>()) problems.push_back(run.at("run").at("invalid_because"));
    repeats.push_back(std::move(run));
  }
  return {{"path", row.spec.transport == "xsk" ? "B xsk" : "A kernel"},
          {"transport", row.spec.transport},
          {"wait", wait_name(row.spec.wait)},
          {"size_bytes", row.spec.size},
          {"mode_obtained", mode_of(row, attach)},
          {"p50_ns", spread_or_null(pick(row, "p50_ns"))},
          {"p99_ns", spread_or_null(pick(row, "p99_ns"))},
          {"achieved_per_s", spread_or_null(pick(row, "achieved_per_s"))},
          {"cpu_machine_pct", spread_or_null(pick(row, "cpu_machine_pct"))},
          {"cpu_softirq_pct", spread_or_null(pick(row, "cpu_softirq_pct"))},
          {"valid", problems.empty()},
          {"invalid_because", problems},
          {"histogram_ns", to_json(merged)},
          {"repeats", repeats}};
}

/// The kernel's p50 over AF_XDP's, repeat by repeat: above 1, AF_XDP is faster.
Json ratio_json(const Row& kernel, const Row& xsk) {
  const auto ours = pick(xsk, "p50_ns");
  const auto peers = pick(kernel, "p50_ns");
  std::vector<double> ratios;
  for (std::size_t i = 0; i < std::min(ours.size(), peers.size()); ++i) ratios.push_back(peers[i] / ours[i]);
  return spread_or_null(ratios);
}

Result<Json> run_rows(const Bench& bench, const ExperimentOptions& options, const Json& attach) {
  Progress progress(std::size(kWaits) * std::size(kSizes) * 2 * static_cast<std::size_t>(options.repeats));
  Json rows = Json::array();
  for (const path::Wait wait : kWaits) {
    for (const std::size_t size : kSizes) {
      Row kernel{.spec = {.transport = "udp", .wait = wait, .size = size, .duration_s = options.duration_s},
                 .runs = {}};
      Row xsk{.spec = {.transport = "xsk", .wait = wait, .size = size, .duration_s = options.duration_s},
              .runs = {}};
      for (int repeat = 0; repeat < options.repeats; ++repeat) {
        // Alternating which goes first: what drifts on the machine falls on both alike.
        Row* order[] = {&kernel, &xsk};
        if (repeat % 2 == 1) std::swap(order[0], order[1]);
        for (Row* row : order) {
          progress.step(fmt::format("{} {} B {} (repeat {} of {})", row->spec.transport, size,
                                    wait_name(wait), repeat + 1, options.repeats));
          row->runs.push_back(ANIC_TRY(measure(bench, row->spec)));
        }
      }
      rows.push_back(row_json(kernel, attach));
      Json ours = row_json(xsk, attach);
      ours["p50_ratio_to_kernel"] = ratio_json(kernel, xsk);
      rows.push_back(std::move(ours));
    }
  }
  return rows;
}

Result<Json> measure_in(const Bench& bench, const ExperimentOptions& options) {
  const Json attach = ANIC_TRY(attach_policy(bench, options.policy_file));
  Json result = {
      {"schema", "agentnic.result/1"},
      {"experiment", "first-light"},
      {"created_at", now_text(":")},
      {"argv", options.argv},
      {"host", describe_host()},
      {"interfaces",
       {{"client", ANIC_TRY(describe_interface(bench.lab.client.netns, bench.lab.client.ifname))},
        {"server", ANIC_TRY(describe_interface(bench.lab.server.netns, bench.lab.server.ifname))}}},
      {"cpus", {{"client", bench.client_cpu}, {"server", bench.server_cpu}}},
      {"attach", attach},
      {"repeats", options.repeats},
      {"duration_s", options.duration_s},
      {"notes", Json::array({"closed loop, one request outstanding; latency from the send",
                             "low and high: least and greatest of the repeats",
                             "cpu_machine_pct: all CPUs, 100 is one CPU; softirq included"})}};
  if (bench.client_cpu == bench.server_cpu)
    result["notes"].push_back("client and server shared one CPU: spinning rows mean nothing");
  result["rows"] = ANIC_TRY(run_rows(bench, options, attach));
  return result;
}

std::string us(const Json& spread, const char* key) {
  return spread.is_null() ? "-" : fmt::format("{:.1f}", spread.at(key).get<double>() / 1000);
}

std::string number(const Json& spread, const char* format) {
  return spread.is_null() ? "-" : fmt::format(fmt::runtime(format), spread.at("median").get<double>());
}

std::string row_text(const Json& row) {
  const Json& p50 = row.at("p50_ns");
  std::string ratio;
  if (row.contains("p50_ratio_to_kernel") && !row.at("p50_ratio_to_kernel").is_null()) {
    const Json& spread = row.at("p50_ratio_to_kernel");
    ratio = fmt::format("{:.2f} ({:.2f} to {:.2f})", spread.at("median").get<double>(),
                        spread.at("low").get<double>(), spread.at("high").get<double>());
  }
  return fmt::format(
      "{:>5} {:<6} {:<9} {:<14} {:>7} {:>17} {:>9} {:>10} {:>6}  {}{}\n", row.at("size_bytes").get<int>(),
      row.at("wait").get<std::string>(), row.at("path").get<std::string>(),
      row.at("mode_obtained").get<std::string>(), us(p50, "median"),
      p50.is_null() ? "-" : us(p50, "low") + " to " + us(p50, "high"), us(row.at("p99_ns"), "median"),
      number(row.at("achieved_per_s"), "{:.0f}"), number(row.at("cpu_machine_pct"), "{:.0f}"), ratio,
      row.at("valid").get<bool>() ? ""
                                  : "  NOT VALID: " + row.at("invalid_because").at(0).get<std::string>());
}

}  // namespace

Result<Json> run_first_light(const ExperimentOptions& options) {
  ANIC_TRY(private_mounts());
  catch_stop_signals();
  const Lab lab(kDefaultLab);
  ANIC_TRY(lab_up(lab));
  const Bench bench = make_bench(lab);
  auto result = measure_in(bench, options);
  const auto down = lab_down(lab);
  if (result && !down) return fail(down.error());
  return result;
}

Result<std::string> report(const Json& result) {
  try {
    if (result.at("schema") != "agentnic.result/1")
      return fail(Exit::BadInput, "report: the file is not an agentnic.result/1");
    const Json& host = result.at("host");
    std::string text =
        fmt::format("{}, {}, {} CPUs, {}, revision {}\n", result.at("experiment").get<std::string>(),
                    host.at("kernel").get<std::string>(), host.at("cpus_online").get<int>(),
                    result.at("interfaces").at("server").at("driver").get<std::string>(),
                    host.at("git_revision").get<std::string>());
    text +=
        fmt::format("{:>5} {:<6} {:<9} {:<14} {:>7} {:>17} {:>9} {:>10} {:>6}  {}\n", "bytes", "wait", "path",
                    "mode", "p50 us", "low to high", "p99 us", "trips/s", "CPU %", "kernel p50 / xsk p50");
    for (const Json& row : result.at("rows")) text += row_text(row);
    for (const Json& note : result.at("notes")) text += fmt::format("  {}\n", note.get<std::string>());
    return text;
  } catch (const Json::exception& error) {
    return fail(Exit::BadInput,
                fmt::format("report: the file is not an agentnic.result/1: {}", error.what()));
  }
}

Result<std::string> save_result(const Json& result, const std::string& directory) {
  if (::mkdir(directory.c_str(), 0755) != 0 && errno != EEXIST) return fail_errno(errno, "make " + directory);
  const std::string text = result.dump(1) + "\n";
  std::string path = fmt::format("{}/local-{}.json", directory, now_text("-"));
  ANIC_TRY(write_file(path, text));
  ANIC_TRY(write_file(directory + "/latest.json", text));
  return path;
}

}  // namespace agentnic::lab
