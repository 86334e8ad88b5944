// SPDX-License-Identifier: Apache-2.0
#include "lab/bulk_paths.hpp"

#include <fmt/format.h>
#include <sys/resource.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cmath>
#include <filesystem>
#include <optional>
#include <sstream>
#include <utility>
#include <vector>

#include "base/clock.hpp"
#include "base/hypervisor.hpp"
#include "base/process.hpp"
#include "base/stop.hpp"
#include "kern/netns.hpp"
#include "lab/bulk_files.hpp"
#include "lab/compare.hpp"
#include "lab/environment.hpp"
#include "lab/measure.hpp"
#include "lab/pairs.hpp"
#include "lab/round_trip.hpp"
#include "lab/topology.hpp"
#include "path/rdma/device.hpp"
#include "path/rdma/memory.hpp"
#include "path/rdma/queue_pair.hpp"

namespace agentnic::lab {
namespace {

constexpr std::uint16_t kPort = 9100;
constexpr std::uint16_t kPerftestPort = 18515;
constexpr int kStartMs = 60'000;  // under emulation a program takes its time to start
constexpr int kSessionMs = 600'000;
constexpr std::array kSizesKib = {64U, 256U, 1024U, 4096U};
constexpr std::array kPaths = {"tcp", "uring", "rdma"};
constexpr const char* kServerDevice = "anic_rxe_s";
constexpr const char* kClientDevice = "anic_rxe_c";
constexpr std::uint32_t kWriteBytes = 64 << 10;
constexpr std::uint32_t kWritesUnderWay = 64;
constexpr int kWriteSeconds = 3;

/// Soft-RoCE at both ends of the lab, which goes with its owner.
class SoftRoce {
 public:
  static Result<SoftRoce> add(const Lab& lab) {
    SoftRoce made;
    for (const auto& [host, device] :
         {std::pair(&lab.server, kServerDevice), std::pair(&lab.client, kClientDevice)}) {
      if (const auto added = run_program({"ip", "netns", "exec", host->netns, "rdma", "link", "add", device,
                                          "type", "rxe", "netdev", host->ifname});
          !added)
        return fail(Exit::Unsupported, "soft-RoCE at both ends of a lab: " + added.error().text(),
                    "it takes Linux 7.3 with rdma_rxe; vmtest/run --bulk has both in a guest");
    }
    return made;
  }
  SoftRoce(SoftRoce&& other) noexcept : owns_(std::exchange(other.owns_, false)) {}
  SoftRoce& operator=(SoftRoce&&) = delete;
  SoftRoce(const SoftRoce&) = delete;
  SoftRoce& operator=(const SoftRoce&) = delete;
  ~SoftRoce() {
    if (!owns_) return;
    for (const char* device : {kServerDevice, kClientDevice})
      static_cast<void>(run_program({"rdma", "link", "delete", device}));  // the lab's end takes it, too
  }

 private:
  SoftRoce() = default;
  bool owns_ = true;
};

double busy_s() {
  double busy = 0;
  for (const int cpu : usable_cpus()) busy += cpu_busy_s(cpu);
  return busy;
}

Argv in_host(const Host& host, std::initializer_list<std::string> words) {
  Argv argv = {"ip", "netns", "exec", host.netns};
  argv.insert(argv.end(), words.begin(), words.end());
  return argv;
}

struct Cell {
  std::vector<double> gbps;
  std::vector<double> cpu_s_per_gb;
  std::vector<double> registration_us;
};

/// A server of one path and size, and one session of it.
Status measure_cell(const Lab& lab, const std::string& program, const BulkFiles& files,
                    const std::string& path, unsigned kib, std::uint64_t bytes, Cell& cell) {
  const std::string address = fmt::format("{}:{}", lab.server.ipv4, kPort);
  const std::string slot = std::to_string(kib);
  const std::string slots = std::to_string(std::clamp(16384U / kib, 4U, 64U));
  Child server = ANIC_TRY(Child::start(in_host(
      lab.server, {program, "serve", "--root", files.to(), "--listen", address, "--secret", files.secret(),
                   "--transport", path, "--slots", slots, "--slot-kib", slot, "--json"})));
  ANIC_TRY(server.read_line(kStartMs));
  ANIC_TRY(files.empty_to());
  const double before_s = busy_s();
  const std::string said = ANIC_TRY(run_program(
      in_host(lab.client,
              {program, "push", address, files.folder(), "--secret", files.secret(), "--transport", path,
               "--slots", slots, "--slot-kib", slot, "--digest", "none", "--no-sync", "--json"}),
      kSessionMs));
  const double cpu_s = busy_s() - before_s;
  const Json end = last_line(said);
  if (end.is_discarded() || end.value("moved_bytes", std::uint64_t{0}) != bytes ||
      !end["fallback"].is_null() || end.value("obtained", std::string()) != path)
    return fail(Exit::Failed, fmt::format("agentnic-bulk did not move the files by {}: {}", path, said));
  cell.gbps.push_back(end.at("gbps").get<double>());
  cell.cpu_s_per_gb.push_back(cpu_s / (static_cast<double>(bytes) * 1e-9));
  cell.registration_us.push_back(end.at("registration_us").get<double>());
  server.ask_to_stop();
  ANIC_TRY(server.wait(kStartMs));
  return {};
}

Result<Json> measure_paths(const Lab& lab, const std::string& program, const BulkPathsOptions& options) {
  Json rows = Json::array();
  Progress progress(kSizesKib.size() * kPaths.size() * static_cast<std::size_t>(options.repeats));
  for (const unsigned kib : kSizesKib) {
    const std::uint64_t each = std::uint64_t{kib} << 10U;
    const std::uint64_t count = std::max<std::uint64_t>((options.mib << 20U) / each, 1);
    const BulkFiles files = ANIC_TRY(BulkFiles::make(each, count));
    std::array<Cell, kPaths.size()> cells;
    for (int i = 0; i < options.repeats; ++i) {
      for (std::size_t path = 0; path < kPaths.size(); ++path) {
        if (stop_requested()) return fail(Exit::Failed, "stopped");
        progress.step(fmt::format("{} at {} KiB", kPaths[path], kib));
        ANIC_TRY(measure_cell(lab, program, files, kPaths[path], kib, each * count, cells[path]));
      }
    }
    for (std::size_t path = 0; path < kPaths.size(); ++path) {
      rows.push_back({{"size_bytes", each},
                      {"files", count},
                      {"path", kPaths[path]},
                      {"gbps", to_json(spread(cells[path].gbps))},
                      {"cpu_s_per_gb", to_json(spread(cells[path].cpu_s_per_gb))},
                      {"registration_us", to_json(spread(cells[path].registration_us))}});
    }
  }
  return rows;
}

/// One end of a plain loop of writes.
struct End {
  std::optional<path::RdmaDevice> device;
  std::optional<path::RdmaMemory> memory;
  std::optional<path::QueuePair> pair;
};

/// Of a host: devices and addresses are looked for in its network namespace, and work in it from then on.
Status open_end(const Host& host, const char* name, End& end) {
  const auto netns = ANIC_TRY(kern::NetNs::open(host.netns));
  return netns.run([&]() -> Status {
    end.device.emplace(ANIC_TRY(path::RdmaDevice::open(ANIC_TRY(path::Address::parse(host.ipv4, 0)), name)));
    constexpr unsigned kAccess = IBV_ACCESS_LOCAL_WRITE | IBV_ACCESS_REMOTE_WRITE;
    end.memory.emplace(ANIC_TRY(path::RdmaMemory::open(*end.device, kWriteBytes, kAccess)));
    end.pair.emplace(
        ANIC_TRY(path::QueuePair::open(*end.device, IBV_ACCESS_REMOTE_WRITE, {.sends = kWritesUnderWay})));
    return {};
  });
}

/// Writes from one to the other for a while, as many under way as may be; Gbit/s.
Result<double> write_loop(End& from, const End& to) {
  const path::LocalRange here{
      .at = from.memory->bytes().data(), .bytes = kWriteBytes, .key = from.memory->local_key()};
  const path::RemoteRange there{.address = to.memory->address(), .key = to.memory->remote_key()};
  std::uint64_t done = 0;
  std::uint32_t under_way = 0;
  const std::uint64_t begin_ns = monotonic_ns();
  std::uint64_t last_ns = begin_ns;
  constexpr std::uint64_t kNs = kWriteSeconds * 1'000'000'000ULL;
  while (last_ns - begin_ns < kNs || under_way > 0) {
    if (stop_requested()) return fail(Exit::Failed, "stopped");
    for (; under_way < kWritesUnderWay && last_ns - begin_ns < kNs; ++under_way)
      ANIC_TRY(from.pair->write(0, here, there));
    for (const path::Completion& one : ANIC_TRY(from.pair->poll())) {
      if (one.status != IBV_WC_SUCCESS) return fail(Exit::Failed, path::completion_text(one));
      --under_way;
      ++done;
    }
    last_ns = monotonic_ns();
  }
  return static_cast<double>(done * kWriteBytes) * 8 / static_cast<double>(last_ns - begin_ns);
}

Result<double> our_write_gbps(const Lab& lab) {
  End server;
  End client;
  ANIC_TRY(open_end(lab.server, kServerDevice, server));
  ANIC_TRY(open_end(lab.client, kClientDevice, client));
  ANIC_TRY(server.pair->connect(client.pair->endpoint()));
  ANIC_TRY(client.pair->connect(server.pair->endpoint()));
  return write_loop(client, server);
}

/// The figure of perftest; nothing when it is none that can be believed.
Result<std::optional<double>> ib_write_bw_gbps(const Lab& lab, double ours) {
  const auto command = [](const Host& host, const char* device, std::initializer_list<std::string> more) {
    Argv argv = in_host(host, {"ib_write_bw", "-F", "-d", device, "-s", std::to_string(kWriteBytes), "-t",
                               std::to_string(kWritesUnderWay), "-D", std::to_string(kWriteSeconds),
                               "--report_gbits", "-p", std::to_string(kPerftestPort)});
    argv.insert(argv.end(), more.begin(), more.end());
    return argv;
  };
  Child server = ANIC_TRY(Child::start(command(lab.server, kServerDevice, {})));
  ANIC_TRY(wait_for_port(lab.server.netns, kPerftestPort, "-Hltn"));
  std::istringstream said(
      ANIC_TRY(run_program(command(lab.client, kClientDevice, {lab.server.ipv4}), kSessionMs)));
  ANIC_TRY(server.wait(kStartMs));
  for (std::string line; std::getline(said, line);) {
    std::istringstream words(line);  // "#bytes #iterations BW peak[Gb/sec] BW average[Gb/sec] MsgRate[Mpps]"
    double bytes = 0;
    double iterations = 0;
    double peak = 0;
    double average = 0;
    if (words >> bytes >> iterations >> peak >> average && bytes == kWriteBytes) {
      if (std::isfinite(average) && average > ours / 100 && average < ours * 100) return average;
    }
  }
  return std::nullopt;
}

Result<Json> measure_writes(const Lab& lab, int repeats) {
  std::vector<double> ours;
  std::vector<double> peers;
  for (int i = 0; i < repeats; ++i) {
    ours.push_back(ANIC_TRY(our_write_gbps(lab)));
    if (const auto peer = ANIC_TRY(ib_write_bw_gbps(lab, ours.back()))) peers.push_back(*peer);
  }
  const bool believed = peers.size() == ours.size();
  const Pairs pairs{.ours = ours,
                    .peers = believed ? peers : ours,
                    .problem = believed ? "" : "perftest printed no figure that can be believed"};
  const std::vector<double> ratios = ours_over_peers(pairs);
  return bench_row(
      {.id = "rdma_vs_ib_write_bw",
       .unit = "x",
       .peer = "ib_write_bw (Gbit/s)",
       .note = fmt::format("RDMA WRITE of {} KiB, {} under way, for {} s over soft-RoCE: {:.3f} Gbit/s. "
                           "No figure of an RDMA device",
                           kWriteBytes >> 10U, kWritesUnderWay, kWriteSeconds, spread(ours).median)},
      ratios, ratios, spread(pairs.peers).median, 0.9, Bound::AtLeast, pairs.problem);
}

Result<Json> measure(const Lab& lab, const BulkPathsOptions& options) {
  const rlimit all{RLIM_INFINITY, RLIM_INFINITY};  // for the server, which gives its capabilities up
  if (::setrlimit(RLIMIT_MEMLOCK, &all) != 0) return fail_errno(errno, "lift the limit of locked memory");
  ANIC_TRY(lab_aggregate(lab));
  const SoftRoce devices = ANIC_TRY(SoftRoce::add(lab));
  const std::string program =
      std::filesystem::path(make_bench(lab).program).replace_filename("agentnic-bulk");
  Json result = {{"schema", "agentnic.bulk-paths/1"}, {"emulated", emulated()}, {"soft_roce", true},
                 {"host", describe_host()},           {"mib", options.mib},     {"repeats", options.repeats}};
  result["write"] = ANIC_TRY(measure_writes(lab, options.repeats));
  result["rows"] = ANIC_TRY(measure_paths(lab, program, options));
  return result;
}

}  // namespace

Result<Json> run_bulk_paths(const BulkPathsOptions& options) {
  ANIC_TRY(private_mounts());
  catch_stop_signals();
  const Lab lab(kDefaultLab);
  ANIC_TRY(lab_up(lab));
  auto result = measure(lab, options);
  const auto down = lab_down(lab);
  if (result && !down) return fail(down.error());
  return result;
}

std::string bulk_paths_table(const Json& result) {
  std::string text = fmt::format(
      "soft-RoCE{}: no figure of an RDMA device, and none of performance\n"
      "agentnic-bulk, {} MiB in files of each size, no digest; CPU of both ends and of the kernel\n"
      "{:>8} {:<6} {:>8} {:>18} {:>13} {:>16}\n",
      result.at("emulated").get<bool>() ? " in an emulated guest" : "", result.at("mib").get<std::uint64_t>(),
      "KiB", "path", "Gbit/s", "low to high", "CPU s per GB", "registration us");
  for (const Json& row : result.at("rows")) {
    const Json& gbps = row.at("gbps");
    const double registration = row.at("registration_us").at("median").get<double>();
    text += fmt::format(
        "{:>8} {:<6} {:>8.3f} {:>18} {:>13.2f} {:>16}\n", row.at("size_bytes").get<std::uint64_t>() >> 10U,
        row.at("path").get<std::string>(), gbps.at("median").get<double>(),
        fmt::format("{:.3f} to {:.3f}", gbps.at("low").get<double>(), gbps.at("high").get<double>()),
        row.at("cpu_s_per_gb").at("median").get<double>(),
        registration > 0 ? fmt::format("{:.0f}", registration) : "-");
  }
  return text + "\n" + benchmark_table(Json::array({result.at("write")}));
}

}  // namespace agentnic::lab
