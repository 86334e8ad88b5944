// SPDX-License-Identifier: Apache-2.0
#include "lab/compare.hpp"

#include <fmt/format.h>
#include <netinet/in.h>

#include <algorithm>
#include <chrono>
#include <functional>
#include <thread>

#include "base/hypervisor.hpp"
#include "base/stop.hpp"
#include "lab/agent.hpp"
#include "lab/audit.hpp"
#include "lab/bulk.hpp"
#include "lab/guardian.hpp"
#include "lab/measure.hpp"
#include "lab/owner.hpp"
#include "lab/packet_path.hpp"
#include "lab/pairs.hpp"
#include "lab/quota.hpp"
#include "lab/round_trip.hpp"
#include "lab/slo.hpp"
#include "lab/tcp_requests.hpp"
#include "lab/turnaround.hpp"
#include "policy/parse.hpp"

namespace agentnic::lab {
namespace {

// The policy of every benchmark: path A on one port, path B on the next.
constexpr const char* kPolicy = R"({"version": 1, "name": "bench", "services": [
  {"name": "kernel", "protocol": "udp", "port": 9000, "class": "rpc", "path": "kernel"},
  {"name": "xsk", "protocol": "udp", "port": 9001, "class": "rpc", "path": "xsk"}]})";

/// A benchmark and how it is run; the lab is up and the policy attached.
struct Benchmark {
  BenchmarkInfo info;
  std::function<Result<Json>(const Bench&, Attached&)> run;
};

/// Without agentnic, or with what it attaches by itself.
auto without(Result<Json> (*run)(const Bench&)) {
  return [run](const Bench& bench, Attached& attached) -> Result<Json> {
    ANIC_TRY(attached.set(false));
    return run(bench);
  };
}

/// Outside of the lab.
auto alone(Result<Json> (*run)()) {
  return [run](const Bench&, Attached&) { return run(); };
}

const std::vector<Benchmark>& table() {
  static const std::vector<Benchmark> all = {
      {{"udp_vs_sockperf_block", "kernel UDP echo against sockperf, blocking"},
       [](const Bench& bench, Attached&) { return udp_vs_sockperf(bench, path::Wait::Block); }},
      {{"udp_vs_sockperf_spin", "kernel UDP echo against sockperf, spinning"},
       [](const Bench& bench, Attached&) { return udp_vs_sockperf(bench, path::Wait::Spin); }},
      {{"xsk_server_p50_ratio", "AF_XDP server against kernel UDP server, spinning"}, xsk_server_p50_ratio},
      {{"xsk_both_p50_ratio", "AF_XDP on both ends against kernel UDP, spinning, median"},
       xsk_both_p50_ratio},
      {{"xsk_both_p99_ratio", "AF_XDP on both ends against kernel UDP, spinning, p99"}, xsk_both_p99_ratio},
      {{"xsk_vs_sockperf_p50_ratio", "AF_XDP on both ends against sockperf, spinning"},
       xsk_vs_sockperf_p50_ratio},
      {{"xsk_block_ratio", "AF_XDP server against kernel UDP server, blocking"}, xsk_block_ratio},
      {{"xsk_rps_ratio", "requests of one server core, AF_XDP against kernel UDP"}, xsk_rps_ratio},
      {{"xsk_failover_ms", "an owner of an AF_XDP socket that stops, to path A"},
       [](const Bench& bench, Attached&) { return xsk_failover_ms(bench); }},
      {{"tcp_vs_iperf3", "one TCP stream of our own sockets against iperf3"}, without(tcp_vs_iperf3)},
      {{"bulk_tcp_vs_iperf3", "agentnic-bulk by TCP, 1 GiB in the page cache, against iperf3"},
       without(bulk_tcp_vs_iperf3)},
      {{"bulk_tcp_digest_vs_iperf3", "the same with its digest, xxh128"}, without(bulk_tcp_digest_vs_iperf3)},
      {{"uring_vs_epoll", "TCP requests of one core on 64 connections, io_uring against epoll"},
       without(uring_vs_epoll)},
      {{"uring_vs_epoll_one", "the same on one connection"}, without(uring_vs_epoll_one)},
      {{"busypoll_p50_ratio", "kernel UDP with busy polling against blocking"}, without(busypoll_p50_ratio)},
      {{"tc_bulk_ratio", "one TCP stream with agentnic at TC, over the same without"},
       without(tc_bulk_ratio)},
      {{"xdp_hot_ns", "a hot IPv4 flow at full scale, over a no-op program"}, alone(xdp_hot_ns)},
      {{"xdp_hot_v6_ns", "a hot IPv6 flow at full scale, over a no-op program"}, alone(xdp_hot_v6_ns)},
      {{"xdp_flows_ns", "10,000 flows in turn at full scale, over a no-op program"}, alone(xdp_flows_ns)},
      {{"xdp_scale_ratio", "a hot flow at full scale, over 10 prefixes and 10 services"},
       alone(xdp_scale_ratio)},
      {{"xdp_new_flow_ns", "each packet a new flow of a known peer at full scale, over a no-op program"},
       alone(xdp_new_flow_ns)},
      {{"xdp_new_source_ns", "each packet from a random source at full scale, over a no-op program"},
       alone(xdp_new_source_ns)},
      {{"xdp_flood_ratio", "hot flows after a flood of random sources, over the same without"},
       alone(xdp_flood_ratio)},
      {{"xdp_two_cpu_ratio", "a hot flow with two CPUs on one tenant, over the same with one"},
       alone(xdp_two_cpu_ratio)},
      {{"quota_error_pct", "how far a rate is from the configured one, at worst"}, alone(quota_error_pct)},
      {{"turnaround_error_pct", "how far turnaround is from what a client measures, at worst"},
       without(turnaround_error_pct)},
      {{"propose_p50_us", "a proposal to its recorded decision, median"}, without(propose_p50_us)},
      {{"propose_p99_us", "a proposal to its recorded decision, p99"}, without(propose_p99_us)},
      {{"decisions_per_s", "decisions in batches into an empty ring"}, without(decisions_per_s)},
      {{"chain_ns", "a record into the chain"}, alone(chain_ns)},
      {{"failsafe_ms", "an agent's last sign to fail-safe"}, without(failsafe_ms)},
      {{"tick_us", "a tick at 64 tenants and 128 possible CPUs"}, alone(tick_us)},
      {{"slo_kept", "answers within the SLO beside a flood, with the guardian's protection"},
       without(slo_kept)},
      {{"agent_loop_us", "a program's way from what it sees to the decision"}, without(agent_loop_us)},
      {{"agent_idle_percent", "CPU of an agent with nothing to do, at 64 lanes"},
       without(agent_idle_percent)},
      {{"record_per_s", "records kept by a recorder, of decisions as fast as the ring takes them"},
       without(record_per_s)},
      {{"verify_per_s", "public verification of a log of a million records"}, alone(verify_per_s)},
      {{"export_s", "a tenant's records, one in a hundred of a million, with proofs"}, alone(export_s)},
  };
  return all;
}

/// Each in a lab of its own: none finds what another has set.
Result<Json> run_each(const Lab& lab, const std::vector<std::string>& ids) {
  const auto policy = ANIC_TRY(policy::parse(kPolicy, "bench policy"));
  const Bench bench = make_bench(lab);
  Json list = Json::array();
  for (const Benchmark& benchmark : table()) {
    if (!ids.empty() && std::ranges::find(ids, benchmark.info.id) == ids.end()) continue;
    ANIC_TRY(lab_up(lab));
    Attached attached = ANIC_TRY(Attached::open(bench, policy));
    ANIC_TRY(attached.set(true));
    list.push_back(ANIC_TRY(benchmark.run(bench, attached)));
    ANIC_TRY(attached.set(false));
    if (emulated()) {
      Json& one = list.back();
      one["valid"] = one["met"] = false;
      one["note"] = fmt::format("{}; {}", kEmulatedMeans, one["note"].get<std::string>());
    }
  }
  return list;
}

}  // namespace

std::vector<BenchmarkInfo> benchmarks() {
  std::vector<BenchmarkInfo> list;
  for (const Benchmark& benchmark : table()) list.push_back(benchmark.info);
  return list;
}

Result<Json> run_benchmarks(const std::vector<std::string>& ids) {
  for (const std::string& id : ids) {
    if (std::ranges::none_of(table(), [&](const Benchmark& one) { return one.info.id == id; })) {
      return fail(Exit::BadInput, fmt::format("compare: there is no benchmark {}", id),
                  "agentnic-bench compare --list");
    }
  }
  ANIC_TRY(private_mounts());
  catch_stop_signals();
  const Lab lab(kDefaultLab);
  auto list = run_each(lab, ids);
  const auto down = lab_down(lab);
  if (list && !down) return fail(down.error());
  return list;
}

std::string benchmark_table(const Json& list) {
  std::string text =
      fmt::format("{:<24} {:>9} {:<4} {:>19} {:>10} {:>7} {:>7} {:<4} {:<6} {}\n", "id", "value", "unit",
                  "low to high", "peer", "ratio", "target", "met", "valid", "peer is");
  for (const Json& one : list) {
    text += fmt::format(
        "{:<24} {:>9.2f} {:<4} {:>19} {:>10.2f} {:>7.3f} {:>7.2f} {:<4} {:<6} {}\n",
        one.at("id").get<std::string>(), one.at("value").get<double>(), one.at("unit").get<std::string>(),
        fmt::format("{:.2f} to {:.2f}", one.at("low").get<double>(), one.at("high").get<double>()),
        one.at("peer").at("value").get<double>(), one.at("ratio").get<double>(),
        one.at("target").get<double>(), one.at("met").get<bool>() ? "yes" : "no",
        one.at("valid").get<bool>() ? "yes" : "no", one.at("peer").at("name").get<std::string>());
  }
  return text;
}

}  // namespace agentnic::lab
