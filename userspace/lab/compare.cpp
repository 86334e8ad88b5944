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
#include "lab/guardian.hpp"
#include "lab/measure.hpp"
#include "lab/owner.hpp"
#include "lab/packet_path.hpp"
#include "lab/pairs.hpp"
#include "lab/quota.hpp"
#include "lab/round_trip.hpp"
#include "lab/slo.hpp"
#include "lab/turnaround.hpp"
#include "policy/parse.hpp"

namespace agentnic::lab {
namespace {

constexpr std::uint16_t kIperfPort = 5201;
constexpr const char* kIperfSeconds = "2";

// The policy of every benchmark: path A on one port, path B on the next.
constexpr const char* kPolicy = R"({"version": 1, "name": "bench", "services": [
  {"name": "kernel", "protocol": "udp", "port": 9000, "class": "rpc", "path": "kernel"},
  {"name": "xsk", "protocol": "udp", "port": 9001, "class": "rpc", "path": "xsk"}]})";

// Of the stream: nothing needs AF_XDP, and its quota does not bind.
constexpr const char* kBulkPolicy = R"({"version": 1, "name": "bulk", "link_rate": "100Gbit", "services": [
  {"name": "stream", "protocol": "tcp", "port": 5201, "class": "bulk", "path": "kernel"}]})";

/// Bits a second of one iperf3 stream to the server, as its receiver counts them.
Result<double> stream_gbps(const Bench& bench) {
  const auto command = [&](const Host& host, int cpu, std::initializer_list<const char*> words) {
    Argv argv = {"ip", "netns", "exec", host.netns, "taskset", "-c", std::to_string(cpu), "iperf3"};
    argv.insert(argv.end(), words.begin(), words.end());
    return argv;
  };
  const Child server = ANIC_TRY(Child::start(command(bench.lab.server, bench.server_cpu, {"-s", "-1"})));
  ANIC_TRY(wait_for_port(bench.lab.server.netns, kIperfPort, "-Hltn"));
  Argv client = command(bench.lab.client, bench.client_cpu, {"-J", "-t", kIperfSeconds, "-c"});
  client.push_back(bench.lab.server.ipv4);
  const Json said = Json::parse(ANIC_TRY(run_program(client)), nullptr, false);
  const Json::json_pointer rate("/end/sum_received/bits_per_second");
  if (said.is_discarded() || !said.contains(rate)) return fail(Exit::Failed, "iperf3 printed no rate");
  return said.at(rate).get<double>() * 1e-9;
}

Result<Json> tc_bulk_ratio(const Bench& bench) {
  // As a veth is made: with segmentation and checksums left to whoever takes the aggregate.
  for (const Host* host : {&bench.lab.client, &bench.lab.server})
    ANIC_TRY(run_program({"ip", "netns", "exec", host->netns, "ethtool", "-K", host->ifname, "tx", "on",
                          "tso", "on", "gso", "on", "gro", "on"}));
  const policy::Policy policy = ANIC_TRY(policy::parse(kBulkPolicy, "bench policy"));
  Attached attached = ANIC_TRY(Attached::open(bench, policy));
  const auto rate = [&](bool on) -> Result<double> {
    ANIC_TRY(attached.set(on));
    return stream_gbps(bench);
  };
  const Pairs pairs = ANIC_TRY(
      alternate("tc_bulk_ratio", [&](Pairs&) { return rate(true); }, [&](Pairs&) { return rate(false); }));
  ANIC_TRY(attached.set(false));
  std::vector<double> ratios;
  for (std::size_t i = 0; i < pairs.ours.size(); ++i) ratios.push_back(pairs.ours[i] / pairs.peers[i]);
  return bench_row({.id = "tc_bulk_ratio",
                    .unit = "x",
                    .peer = "nothing attached (Gbit/s)",
                    .note = fmt::format("one iperf3 TCP stream over veth in mode {} ({:.2f} Gbit/s) over the "
                                        "same with nothing attached; lower bound 0.9",
                                        kern::mode_name(attached.report().mode), spread(pairs.ours).median)},
                   ratios, ratios, spread(pairs.peers).median, 0.95, Bound::AtLeast, pairs.problem);
}

/// A benchmark and how it is run; the lab is up and the policy attached.
struct Benchmark {
  BenchmarkInfo info;
  std::function<Result<Json>(const Bench&, Attached&)> run;
};

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
      {{"tc_bulk_ratio", "one TCP stream with agentnic at TC, over the same without"},
       [](const Bench& bench, Attached& attached) -> Result<Json> {
         ANIC_TRY(attached.set(false));
         return tc_bulk_ratio(bench);
       }},
      {{"xdp_hot_ns", "a hot IPv4 flow at full scale, over a no-op program"},
       [](const Bench&, Attached&) { return xdp_hot_ns(); }},
      {{"xdp_hot_v6_ns", "a hot IPv6 flow at full scale, over a no-op program"},
       [](const Bench&, Attached&) { return xdp_hot_v6_ns(); }},
      {{"xdp_flows_ns", "10,000 flows in turn at full scale, over a no-op program"},
       [](const Bench&, Attached&) { return xdp_flows_ns(); }},
      {{"xdp_scale_ratio", "a hot flow at full scale, over 10 prefixes and 10 services"},
       [](const Bench&, Attached&) { return xdp_scale_ratio(); }},
      {{"xdp_new_flow_ns", "each packet a new flow of a known peer at full scale, over a no-op program"},
       [](const Bench&, Attached&) { return xdp_new_flow_ns(); }},
      {{"xdp_new_source_ns", "each packet from a random source at full scale, over a no-op program"},
       [](const Bench&, Attached&) { return xdp_new_source_ns(); }},
      {{"xdp_flood_ratio", "hot flows after a flood of random sources, over the same without"},
       [](const Bench&, Attached&) { return xdp_flood_ratio(); }},
      {{"xdp_two_cpu_ratio", "a hot flow with two CPUs on one tenant, over the same with one"},
       [](const Bench&, Attached&) { return xdp_two_cpu_ratio(); }},
      {{"quota_error_pct", "how far a rate is from the configured one, at worst"},
       [](const Bench&, Attached&) { return quota_error_pct(); }},
      {{"turnaround_error_pct", "how far turnaround is from what a client measures, at worst"},
       [](const Bench& bench, Attached& attached) -> Result<Json> {
         ANIC_TRY(attached.set(false));
         return turnaround_error_pct(bench);
       }},
      {{"propose_p50_us", "a proposal to its recorded decision, median"},
       [](const Bench& bench, Attached& attached) -> Result<Json> {
         ANIC_TRY(attached.set(false));
         return propose_p50_us(bench);
       }},
      {{"propose_p99_us", "a proposal to its recorded decision, p99"},
       [](const Bench& bench, Attached& attached) -> Result<Json> {
         ANIC_TRY(attached.set(false));
         return propose_p99_us(bench);
       }},
      {{"decisions_per_s", "decisions in batches into an empty ring"},
       [](const Bench& bench, Attached& attached) -> Result<Json> {
         ANIC_TRY(attached.set(false));
         return decisions_per_s(bench);
       }},
      {{"chain_ns", "a record into the chain"}, [](const Bench&, Attached&) { return chain_ns(); }},
      {{"failsafe_ms", "an agent's last sign to fail-safe"},
       [](const Bench& bench, Attached& attached) -> Result<Json> {
         ANIC_TRY(attached.set(false));
         return failsafe_ms(bench);
       }},
      {{"tick_us", "a tick at 64 tenants and 128 possible CPUs"},
       [](const Bench&, Attached&) { return tick_us(); }},
      {{"slo_kept", "answers within the SLO beside a flood, with the guardian's protection"},
       [](const Bench& bench, Attached& attached) -> Result<Json> {
         ANIC_TRY(attached.set(false));
         return slo_kept(bench);
       }},
      {{"agent_loop_us", "a program's way from what it sees to the decision"},
       [](const Bench& bench, Attached& attached) -> Result<Json> {
         ANIC_TRY(attached.set(false));
         return agent_loop_us(bench);
       }},
      {{"agent_idle_percent", "CPU of an agent with nothing to do, at 64 lanes"},
       [](const Bench& bench, Attached& attached) -> Result<Json> {
         ANIC_TRY(attached.set(false));
         return agent_idle_percent(bench);
       }},
      {{"record_per_s", "records kept by a recorder, of decisions as fast as the ring takes them"},
       [](const Bench& bench, Attached& attached) -> Result<Json> {
         ANIC_TRY(attached.set(false));
         return record_per_s(bench);
       }},
      {{"verify_per_s", "public verification of a log of a million records"},
       [](const Bench&, Attached&) { return verify_per_s(); }},
      {{"export_s", "a tenant's records, one in a hundred of a million, with proofs"},
       [](const Bench&, Attached&) { return export_s(); }},
  };
  return all;
}

Result<Json> run_in_lab(const Bench& bench, const std::vector<std::string>& ids) {
  const auto policy = ANIC_TRY(policy::parse(kPolicy, "bench policy"));
  Attached attached = ANIC_TRY(Attached::open(bench, policy));
  Json list = Json::array();
  for (const Benchmark& benchmark : table()) {
    if (!ids.empty() && std::ranges::find(ids, benchmark.info.id) == ids.end()) continue;
    ANIC_TRY(attached.set(true));
    list.push_back(ANIC_TRY(benchmark.run(bench, attached)));
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
  ANIC_TRY(lab_up(lab));
  auto list = run_in_lab(make_bench(lab), ids);
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
