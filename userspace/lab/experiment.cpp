// SPDX-License-Identifier: Apache-2.0
#include "lab/experiment.hpp"

#include <fmt/chrono.h>
#include <fmt/format.h>
#include <sys/stat.h>

#include <array>
#include <cerrno>
#include <ctime>
#include <vector>

#include "base/file.hpp"
#include "base/hypervisor.hpp"
#include "base/stop.hpp"
#include "lab/environment.hpp"
#include "lab/measure.hpp"
#include "policy/parse.hpp"

namespace agentnic::lab {
namespace {

constexpr std::size_t kSizes[] = {64, 128, 256, 512};
constexpr path::Wait kWaits[] = {path::Wait::Spin, path::Wait::Block};

/// What is compared: the kernel with nothing attached as the control, and agentnic's two paths.
enum class Way { Bare, Kernel, Xsk };
constexpr Way kWays[] = {Way::Bare, Way::Kernel, Way::Xsk};
constexpr std::array<const char*, std::size(kWays)> kWayNames = {"no agentnic", "A kernel", "B xsk"};

/// The runs of one row: one way, one size, one manner of waiting.
struct Row {
  Way way;
  RunSpec spec;
  std::vector<Json> runs;

  [[nodiscard]] const char* name() const { return kWayNames[static_cast<std::size_t>(way)]; }
};

/// A date that sorts; ':' or, for file names, '-' between the parts of the time.
std::string now_text(char separator) {
  std::string text = fmt::format("{:%Y-%m-%dT%H:%M:%SZ}", fmt::gmtime(std::time(nullptr)));
  std::ranges::replace(text, ':', separator);
  return text;
}

std::vector<double> pick(const Row& row, const char* key) {
  std::vector<double> values;
  for (const Json& run : row.runs) {
    if (!run.at("run").at(key).is_null()) values.push_back(run.at("run").at(key).get<double>());
  }
  return values;
}

std::uint64_t sum(const Row& row, const char* key) {
  std::uint64_t total = 0;
  for (const Json& run : row.runs) total += run.at("run").at(key).get<std::uint64_t>();
  return total;
}

Json spread_or_null(const std::vector<double>& values) {
  return values.empty() ? Json(nullptr) : to_json(spread(values));
}

std::string mode_of(const Row& row, const Attached& attached) {
  auto obtained = row.runs.front().at("server").at("obtained").get<std::string>();
  if (row.way != Way::Xsk) return obtained;
  return fmt::format("{}, {}", kern::mode_name(attached.report().mode), obtained);
}

Json row_json(const Row& row, const Attached& attached, bool one_cpu) {
  Histogram merged;
  Json repeats = Json::array();
  Json problems = Json::array();
  if (one_cpu && row.spec.wait == path::Wait::Spin) problems.push_back("client and server shared one CPU");
  for (Json run : row.runs) {
    merged.merge(histogram_from_json(run.at("run").at("histogram_ns")));
    run.at("run").erase("histogram_ns");  // kept once, merged, below
    if (!run.at("run").at("valid").get<bool>()) problems.push_back(run.at("run").at("invalid_because"));
    repeats.push_back(std::move(run));
  }
  return {{"path", row.name()},
          {"transport", row.spec.transport},
          {"wait", wait_name(row.spec.wait)},
          {"size_bytes", row.spec.size},
          {"mode_obtained", mode_of(row, attached)},
          {"p50_ns", spread_or_null(pick(row, "p50_ns"))},
          {"p99_ns", spread_or_null(pick(row, "p99_ns"))},
          {"achieved_per_s", spread_or_null(pick(row, "achieved_per_s"))},
          {"lost", sum(row, "lost")},
          {"cpu_machine_pct", spread_or_null(pick(row, "cpu_machine_pct"))},
          {"cpu_irq_pct", spread_or_null(pick(row, "cpu_irq_pct"))},
          {"cpu_steal_pct", spread_or_null(pick(row, "cpu_steal_pct"))},
          {"valid", problems.empty()},
          {"invalid_because", problems},
          {"histogram_ns", to_json(merged)},
          {"repeats", repeats}};
}

/// Another row's p50 over AF_XDP's, repeat by repeat: above 1, AF_XDP is faster.
Json ratio_json(const Row& other, const Row& xsk) {
  std::vector<double> ratios;
  for (std::size_t i = 0; i < xsk.runs.size(); ++i) {
    const Json& ours = xsk.runs[i].at("run").at("p50_ns");
    const Json& theirs = other.runs[i].at("run").at("p50_ns");
    if (!ours.is_null() && !theirs.is_null()) ratios.push_back(theirs.get<double>() / ours.get<double>());
  }
  return spread_or_null(ratios);
}

/// The rows of one size and one manner of waiting.
Result<Json> run_group(const Bench& bench, const ExperimentOptions& options, Attached& attached,
                       Progress& progress, const RunSpec& spec) {
  std::vector<Row> group;
  for (const Way way : kWays) {
    group.push_back({.way = way, .spec = spec, .runs = {}});
    group.back().spec.transport = way == Way::Xsk ? "xsk" : "udp";
  }
  for (int repeat = 0; repeat < options.repeats; ++repeat) {
    // By turns, and by turns from either end: what drifts on the machine falls on all alike.
    for (std::size_t i = 0; i < group.size(); ++i) {
      Row& row = group[repeat % 2 == 0 ? i : group.size() - 1 - i];
      progress.step(fmt::format("{}, {} B, {} (repeat {} of {})", row.name(), spec.size, wait_name(spec.wait),
                                repeat + 1, options.repeats));
      ANIC_TRY(attached.set(row.way != Way::Bare));
      row.runs.push_back(ANIC_TRY(measure(bench, row.spec)));
    }
  }
  Json rows = Json::array();
  for (const Row& row : group) rows.push_back(row_json(row, attached, bench.client_cpu == bench.server_cpu));
  rows.back()["p50_ratio_to_kernel"] = ratio_json(group[1], group[2]);
  rows.back()["p50_ratio_to_no_agentnic"] = ratio_json(group[0], group[2]);
  return rows;
}

Result<Json> measure_in(const Bench& bench, const ExperimentOptions& options, const policy::Policy& policy) {
  Attached attached = ANIC_TRY(Attached::open(bench, policy));
  ANIC_TRY(attached.set(true));
  const auto describe = [](const Host& host) { return describe_interface(host.netns, host.ifname); };
  Json result = {
      {"schema", "agentnic.result/1"},
      {"experiment", "first-light"},
      {"created_at", now_text(':')},
      {"argv", options.argv},
      {"host", describe_host()},
      {"interfaces",
       {{"client", ANIC_TRY(describe(bench.lab.client))}, {"server", ANIC_TRY(describe(bench.lab.server))}}},
      {"cpus", {{"client", bench.client_cpu}, {"server", bench.server_cpu}}},
      {"policy",
       {{"name", policy.name}, {"sha256", policy::digest_text(policy.digest.data(), policy.digest.size())}}},
      {"attach",
       {{"hook", kern::hook_name(attached.report().hook)},
        {"mode", kern::mode_name(attached.report().mode)},
        {"notes", attached.report().notes}}},
      {"repeats", options.repeats},
      {"duration_s", options.duration_s},
      {"notes",
       Json::array(
           {"closed loop, one request outstanding; latency from the send; a kernel UDP client in every row",
            "no agentnic: a kernel UDP server with nothing attached to the interface, the control",
            "transmit checksum offload is off on both ends, as on a wire: the kernel computes checksums",
            "low and high: least and greatest of the repeats; CPU %: whole machine, 100 is one CPU"})}};
  const std::size_t groups = std::size(kWaits) * std::size(kSizes);
  Progress progress(groups * std::size(kWays) * static_cast<std::size_t>(options.repeats));
  Json rows = Json::array();
  for (const path::Wait wait : kWaits) {
    for (const std::size_t size : kSizes) {
      const RunSpec spec{.wait = wait, .size = size, .duration_s = options.duration_s};
      Json group = ANIC_TRY(run_group(bench, options, attached, progress, spec));
      for (Json& row : group) rows.push_back(std::move(row));
    }
  }
  result["rows"] = std::move(rows);
  return result;
}

std::string us(const Json& spread, const char* key) {
  return spread.is_null() ? "-" : fmt::format("{:.1f}", spread.at(key).get<double>() / 1000);
}

std::string number(const Json& spread) {
  return spread.is_null() ? "-" : fmt::format("{:.0f}", spread.at("median").get<double>());
}

std::string ratio(const Json& row, const char* key) {
  if (!row.contains(key) || row.at(key).is_null()) return "";
  const Json& spread = row.at(key);
  return fmt::format("{:.2f} ({:.2f} to {:.2f})", spread.at("median").get<double>(),
                     spread.at("low").get<double>(), spread.at("high").get<double>());
}

constexpr const char* kRowFormat = "{:>5} {:<5} {:<11} {:<13} {:>6} {:>14} {:>7} {:>8} {:>5}  {:<20} {}";

std::string row_text(const Json& row, bool emulated) {
  const Json& p50 = row.at("p50_ns");
  std::string text = fmt::format(
      fmt::runtime(kRowFormat), row.at("size_bytes").get<int>(), row.at("wait").get<std::string>(),
      row.at("path").get<std::string>(), row.at("mode_obtained").get<std::string>(), us(p50, "median"),
      p50.is_null() ? "-" : us(p50, "low") + " to " + us(p50, "high"), us(row.at("p99_ns"), "median"),
      number(row.at("achieved_per_s")), number(row.at("cpu_machine_pct")), ratio(row, "p50_ratio_to_kernel"),
      ratio(row, "p50_ratio_to_no_agentnic"));
  text.erase(text.find_last_not_of(' ') + 1);
  const auto lost = row.at("lost").get<std::uint64_t>();
  if (lost != 0) text += fmt::format("  {} lost", lost);
  if (!row.at("valid").get<bool>()) {
    text += "  NOT VALID: " + row.at("invalid_because").at(0).get<std::string>();
  }
  // On each row: rows are copied without what stands above them.
  if (emulated) text += std::string("  ") + kEmulated;
  return text + "\n";
}

}  // namespace

Result<Json> run_first_light(const ExperimentOptions& options) {
  const policy::Policy policy = ANIC_TRY(policy::load(options.policy_file));
  ANIC_TRY(private_mounts());
  catch_stop_signals();
  const Lab lab(kDefaultLab);
  ANIC_TRY(lab_up(lab));
  auto result = measure_in(make_bench(lab), options, policy);
  const auto down = lab_down(lab);
  if (result && !down) return fail(down.error());
  return result;
}

bool is_valid(const Json& result) {
  return std::ranges::all_of(result.at("rows"), [](const Json& row) { return row.at("valid").get<bool>(); });
}

Result<std::string> report(const Json& result) {
  try {
    if (result.at("schema") != "agentnic.result/1") {
      return fail(Exit::BadInput, "report: the file is not an agentnic.result/1");
    }
    const Json& host = result.at("host");
    std::string text =
        fmt::format("{}, {}, {} CPUs, {}, revision {}\n", result.at("experiment").get<std::string>(),
                    host.at("kernel").get<std::string>(), host.at("cpus_online").get<int>(),
                    result.at("interfaces").at("server").at("driver").get<std::string>(),
                    host.at("git_revision").get<std::string>());
    text += fmt::format(fmt::runtime(kRowFormat), "bytes", "wait", "path", "mode", "p50 us", "low to high",
                        "p99 us", "trips/s", "CPU %", "p50 of A over B", "no agentnic over B\n");
    const bool emulated = host.value("emulated", false);
    for (const Json& row : result.at("rows")) text += row_text(row, emulated);
    if (emulated) text += fmt::format("  {}\n", kEmulatedMeans);
    for (const Json& note : result.at("notes")) text += fmt::format("  {}\n", note.get<std::string>());
    return text;
  } catch (const Json::exception& error) {
    return fail(Exit::BadInput,
                fmt::format("report: the file is not an agentnic.result/1: {}", error.what()));
  }
}

Status make_result_folder(const std::string& directory) {
  if (::mkdir(directory.c_str(), 0755) != 0 && errno != EEXIST) return fail_errno(errno, "make " + directory);
  return {};
}

Result<std::string> save_result(const Json& result, const std::string& directory) {
  const std::string text = result.dump(1) + "\n";
  std::string path = fmt::format("{}/local-{}.json", directory, now_text('-'));
  ANIC_TRY(write_file(path, text));
  ANIC_TRY(write_file(directory + "/latest.json", text));
  return path;
}

}  // namespace agentnic::lab
