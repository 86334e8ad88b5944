// SPDX-License-Identifier: Apache-2.0
#include "lab/experiment.hpp"

#include <fmt/chrono.h>
#include <fmt/format.h>
#include <sys/stat.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <ctime>
#include <vector>

#include "base/file.hpp"
#include "base/hex.hpp"
#include "base/hypervisor.hpp"
#include "base/stop.hpp"
#include "lab/environment.hpp"
#include "lab/measure.hpp"
#include "policy/parse.hpp"

namespace agentnic::lab {
namespace {

/// What is compared: the kernel with nothing attached as the control, and agentnic's two paths.
enum class Way { Bare, Kernel, Xsk };
constexpr unsigned kBatch = 32;  // of a kernel server that is asked for several at a time
constexpr std::array kWayNames = {"no agentnic", "A kernel", "B xsk"};

struct Plan {
  const char* name;
  const char* about;
  std::vector<Way> ways;  ///< AF_XDP is the last
  std::vector<path::Wait> waits;
  std::vector<std::size_t> sizes;
  std::vector<unsigned> outstanding;
  const char* client;  ///< of all rows: udp or xsk
  std::vector<const char*> notes;
};

const std::vector<Plan>& plans() {
  using enum path::Wait;
  static const std::vector<Plan> all = {
      {.name = "first-light",
       .about = "a kernel UDP server without agentnic, with it, and an AF_XDP server",
       .ways = {Way::Bare, Way::Kernel, Way::Xsk},
       .waits = {Spin, Block},
       .sizes = {64, 128, 256, 512},
       .outstanding = {1},
       .client = "udp",
       .notes =
           {"closed loop, one request outstanding; latency from the send; a kernel UDP client in every row",
            "no agentnic: a kernel UDP server with nothing attached to the interface, the control"}},
      {.name = "concurrency",
       .about = "servers of both paths, asked for more and more at a time by an AF_XDP client",
       .ways = {Way::Kernel, Way::Xsk},
       .waits = {Spin, Block},
       .sizes = {64, 256, 512},
       .outstanding = {1, 4, 16, 64},
       .client = "xsk",
       .notes =
           {"closed loop, xN: N requests outstanding; latency from the send; an AF_XDP client in every row",
            "A kernel, from x4 on: up to 32 datagrams in one call (recvmmsg, sendmmsg), joined ones too",
            "verdict of B: win if it was faster by 5 % than the A beside it in each repeat, lose if slower "
            "by as much in each"}},
  };
  return all;
}

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
          {"outstanding", row.spec.outstanding},
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

constexpr double kClear = 1.05;  // a lead that is one

/// Of AF_XDP against the kernel; null when there is nothing to compare.
Json verdict(const Json& ratio) {
  if (ratio.is_null()) return nullptr;
  if (ratio.at("low").get<double>() > kClear) return "win";
  return ratio.at("high").get<double>() < 1 / kClear ? "lose" : "tie";
}

/// How both ends wait, and for how many requests.
std::string wait_text(const Json& row) {
  auto text = row.at("wait").get<std::string>();
  if (const int count = row.value("outstanding", 1); count > 1) text += fmt::format(" x{}", count);
  return text;
}

/// The rows of one size, one manner of waiting and one number of requests.
Result<Json> run_group(const Bench& bench, const ExperimentOptions& options, const Plan& plan,
                       Attached& attached, Progress& progress, const RunSpec& spec) {
  std::vector<Row> group;
  for (const Way way : plan.ways) {
    group.push_back({.way = way, .spec = spec, .runs = {}});
    group.back().spec.transport = way == Way::Xsk ? "xsk" : "udp";
  }
  for (int repeat = 0; repeat < options.repeats; ++repeat) {
    // By turns, and by turns from either end: what drifts on the machine falls on all alike.
    for (std::size_t i = 0; i < group.size(); ++i) {
      Row& row = group[repeat % 2 == 0 ? i : group.size() - 1 - i];
      progress.step(fmt::format("{}, {} B, {} x{} (repeat {} of {})", row.name(), spec.size,
                                wait_name(spec.wait), spec.outstanding, repeat + 1, options.repeats));
      ANIC_TRY(attached.set(row.way != Way::Bare));
      row.runs.push_back(ANIC_TRY(measure(bench, row.spec)));
    }
  }
  Json rows = Json::array();
  for (const Row& row : group) rows.push_back(row_json(row, attached, bench.client_cpu == bench.server_cpu));
  for (const Row& row : group) {
    if (row.way == Way::Bare) rows.back()["p50_ratio_to_no_agentnic"] = ratio_json(row, group.back());
    if (row.way == Way::Kernel) rows.back()["p50_ratio_to_kernel"] = ratio_json(row, group.back());
  }
  rows.back()["verdict"] = verdict(rows.back().at("p50_ratio_to_kernel"));
  return rows;
}

Result<Json> measure_in(const Bench& bench, const ExperimentOptions& options, const Plan& plan,
                        const policy::Policy& policy) {
  Attached attached = ANIC_TRY(Attached::open(bench, policy));
  ANIC_TRY(attached.set(true));
  const policy::Policy client_policy = ANIC_TRY(xsk_client_policy());
  Attached client = ANIC_TRY(Attached::open(bench.lab.client, client_policy));
  ANIC_TRY(client.set(std::string_view(plan.client) == "xsk"));
  const auto describe = [](const Host& host) { return describe_interface(host.netns, host.ifname); };
  Json result = {
      {"schema", "agentnic.result/1"},
      {"experiment", plan.name},
      {"created_at", now_text(':')},
      {"argv", options.argv},
      {"host", describe_host()},
      {"interfaces",
       {{"client", ANIC_TRY(describe(bench.lab.client))}, {"server", ANIC_TRY(describe(bench.lab.server))}}},
      {"cpus", {{"client", bench.client_cpu}, {"server", bench.server_cpu}}},
      {"policy", {{"name", policy.name}, {"sha256", hex(policy.digest)}}},
      {"attach",
       {{"hook", kern::hook_name(attached.report().hook)},
        {"mode", kern::mode_name(attached.report().mode)},
        {"notes", attached.report().notes}}},
      {"repeats", options.repeats},
      {"duration_s", options.duration_s},
      {"notes", plan.notes}};
  for (const char* note :
       {"transmit checksum offload is off on both ends, as on a wire: the kernel computes checksums",
        "low and high: least and greatest of the repeats; CPU %: whole machine, 100 is one CPU"})
    result["notes"].push_back(note);
  const std::size_t groups = plan.waits.size() * plan.outstanding.size() * plan.sizes.size();
  Progress progress(groups * plan.ways.size() * static_cast<std::size_t>(options.repeats));
  Json rows = Json::array();
  for (const path::Wait wait : plan.waits) {
    for (const unsigned outstanding : plan.outstanding) {
      for (const std::size_t size : plan.sizes) {
        const RunSpec spec{.client = plan.client,
                           .wait = wait,
                           .size = size,
                           .duration_s = options.duration_s,
                           .outstanding = outstanding,
                           .batch = outstanding > 1 ? kBatch : 1};
        Json group = ANIC_TRY(run_group(bench, options, plan, attached, progress, spec));
        for (Json& row : group) rows.push_back(std::move(row));
      }
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

/// Where nothing was measured without agentnic, it stands in that column.
std::string verdict_text(const Json& row) {
  return row.contains("verdict") && !row.at("verdict").is_null() ? row.at("verdict").get<std::string>() : "";
}

// The second column is as wide as it has to be.
constexpr const char* kRowFormat = "{:>5} {:<{}} {:<11} {:<13} {:>6} {:>14} {:>7} {:>8} {:>5}  {:<20} {}";

std::string row_text(const Json& row, std::size_t wait_width, bool emulated) {
  const Json& p50 = row.at("p50_ns");
  std::string text = fmt::format(
      fmt::runtime(kRowFormat), row.at("size_bytes").get<int>(), wait_text(row), wait_width,
      row.at("path").get<std::string>(), row.at("mode_obtained").get<std::string>(), us(p50, "median"),
      p50.is_null() ? "-" : us(p50, "low") + " to " + us(p50, "high"), us(row.at("p99_ns"), "median"),
      number(row.at("achieved_per_s")), number(row.at("cpu_machine_pct")), ratio(row, "p50_ratio_to_kernel"),
      row.contains("p50_ratio_to_no_agentnic") ? ratio(row, "p50_ratio_to_no_agentnic") : verdict_text(row));
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

std::vector<std::pair<std::string, std::string>> experiments() {
  std::vector<std::pair<std::string, std::string>> list;
  for (const Plan& plan : plans()) list.emplace_back(plan.name, plan.about);
  return list;
}

Result<Json> run_experiment(const std::string& name, const ExperimentOptions& options) {
  const auto plan = std::ranges::find(plans(), name, &Plan::name);
  if (plan == plans().end()) return fail(Exit::BadInput, fmt::format("there is no experiment {}", name));
  const policy::Policy policy = ANIC_TRY(policy::load(options.policy_file));
  ANIC_TRY(private_mounts());
  catch_stop_signals();
  const Lab lab(kDefaultLab);
  ANIC_TRY(lab_up(lab));
  auto result = measure_in(make_bench(lab), options, *plan, policy);
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
    std::size_t wait_width = std::string_view("block").size();
    bool control = false;
    for (const Json& row : result.at("rows")) control = control || row.contains("p50_ratio_to_no_agentnic");
    for (const Json& row : result.at("rows")) wait_width = std::max(wait_width, wait_text(row).size());
    text += fmt::format(fmt::runtime(kRowFormat), "bytes", "wait", wait_width, "path", "mode", "p50 us",
                        "low to high", "p99 us", "trips/s", "CPU %", "p50 of A over B",
                        control ? "no agentnic over B\n" : "verdict of B\n");
    const bool emulated = host.value("emulated", false);
    for (const Json& row : result.at("rows")) text += row_text(row, wait_width, emulated);
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
