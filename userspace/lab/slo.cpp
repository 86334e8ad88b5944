// SPDX-License-Identifier: Apache-2.0
#include "lab/slo.hpp"

#include <fmt/format.h>
#include <sys/prctl.h>
#include <sys/socket.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cerrno>
#include <chrono>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "base/clock.hpp"
#include "base/unique_fd.hpp"
#include "kern/audit_ring.hpp"
#include "lab/environment.hpp"
#include "lab/load.hpp"
#include "lab/pairs.hpp"
#include "path/sockets/udp.hpp"
#include "policy/parse.hpp"

namespace agentnic::lab {
namespace {

constexpr double kTarget = 95;
constexpr int kRepeats = 3;
constexpr int kUnloadedRuns = 5;
constexpr double kUnloadedSeconds = 0.5;
constexpr std::uint64_t kSloAtMostNs = 25'000'000;  // half of what the bottleneck's queue makes others wait
constexpr double kSettleSeconds = 3;
constexpr double kSeconds = 3;
constexpr double kLeastPeer = 0.1;  // percent: what the ratio is against where the peer keeps nothing

constexpr double kBottleneckMbit = 100;
constexpr double kFloodMbit = 200;
constexpr double kFloodAtLeastMbit = 150;  // else the generator was the limit
constexpr int kMark = 7;
constexpr std::uint16_t kFloodPort = 9100;
constexpr std::size_t kFloodBytes = 1200;
constexpr int kFloodBufferBytes = 8 << 20;            // more than the bottleneck's queue holds
constexpr std::size_t kWireExtra = 14 + 20 + 8 + 24;  // Ethernet, IPv4, UDP, and what a frame costs on a wire
constexpr auto kPause = std::chrono::milliseconds(1);

/// The link is stated at ten times what the bottleneck carries, so that quotas bind nobody.
Result<policy::Policy> policy_of(std::uint64_t slo_ns, bool protects) {
  return policy::parse(fmt::format(R"({{"version": 1, "name": "slo", "link_rate": "1Gbit",
    "classes": {{"rpc": {{"slo": "{}ns"}}}},
    "tenants": [{{"name": "asks", "prefixes": ["198.18.0.0/24"]}},
                {{"name": "floods", "marks": [{}], "default_class": "bulk"}}],
    "services": [{{"name": "api", "protocol": "udp", "port": {}, "role": "client", "class": "rpc",
                   "path": "kernel"}}],
    "guardian": {{"slo": {{"interval": "100ms", "samples": 5, "over": 5, "protect": {}}}}}}})",
                                   slo_ns, kMark, kKernelPort, protects),
                       "bench policy");
}

/// Runs tc on the client's interface.
Result<std::string> tc(const Host& host, Argv words) {
  words.insert(words.begin(), {"ip", "netns", "exec", host.netns, "tc"});
  return run_program(words);
}

Status add_bottleneck(const Host& host) {
  ANIC_TRY(tc(host, {"qdisc", "replace", "dev", host.ifname, "root", "tbf", "rate",
                     fmt::format("{:.0f}mbit", kBottleneckMbit), "burst", "32kb", "latency", "50ms"}));
  return {};
}

/// Bytes that have passed it.
Result<double> carried_bytes(const Host& host) {
  const Json said = Json::parse(ANIC_TRY(tc(host, {"-s", "-j", "qdisc", "show", "dev", host.ifname, "root"})),
                                nullptr, false);
  const Json::json_pointer bytes("/0/bytes");
  if (said.is_discarded() || !said.contains(bytes)) return fail(Exit::Failed, "tc says nothing of its tbf");
  return said.at(bytes).get<double>();
}

Result<UniqueFd> marked_socket(const path::Address& to) {
  UniqueFd fd(::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (!fd) return fail_errno(errno, "open a UDP socket");
  if (::setsockopt(fd.get(), SOL_SOCKET, SO_MARK, &kMark, sizeof(kMark)) != 0 ||
      ::setsockopt(fd.get(), SOL_SOCKET, SO_SNDBUFFORCE, &kFloodBufferBytes, sizeof(kFloodBufferBytes)) != 0)
    return fail_errno(errno, "mark a socket");
  if (::connect(fd.get(), to.get(), to.length) != 0) return fail_errno(errno, "connect a UDP socket");
  return fd;
}

/// Sends datagrams at kFloodMbit, some each millisecond, on a thread and a CPU of its own, until it goes.
class Flood final {
 public:
  Flood(UniqueFd socket, int cpu)
      : socket_(std::move(socket)),
        begun_ns_(monotonic_ns()),
        thread_([this, cpu](const std::stop_token& stop) { run(stop, cpu); }) {}

  /// What it has sent so far, on average.
  [[nodiscard]] double mbit() const {
    return static_cast<double>(sent_ * kBits) * 1e3 / static_cast<double>(monotonic_ns() - begun_ns_);
  }

 private:
  static constexpr std::size_t kBits = (kFloodBytes + kWireExtra) * 8;

  void run(const std::stop_token& stop, int cpu) noexcept {
    (void)pin_to_cpu(cpu);
    ::prctl(PR_SET_TIMERSLACK, 1UL);
    const std::array<std::byte, kFloodBytes> datagram{};
    while (!stop.stop_requested()) {
      const auto due = static_cast<std::uint64_t>(static_cast<double>(monotonic_ns() - begun_ns_) * 1e-3 *
                                                  kFloodMbit / kBits);
      // What the queue or a limit drops was sent, as far as the sender knows.
      for (; sent_ < due; ++sent_) (void)::send(socket_.get(), datagram.data(), datagram.size(), 0);
      std::this_thread::sleep_for(kPause);
    }
  }

  UniqueFd socket_;
  std::uint64_t begun_ns_;
  std::atomic<std::uint64_t> sent_ = 0;
  std::jthread thread_;
};

/// What the client of one run has of its answers.
Result<Histogram> ask(const Bench& bench, double warmup_s, double duration_s) {
  const Json done = ANIC_TRY(measure(bench, {.transport = "udp",
                                             .wait = path::Wait::Block,
                                             .size = 64,
                                             .duration_s = duration_s,
                                             .warmup_s = warmup_s}));
  return histogram_from_json(done.at("run").at("histogram_ns"));
}

/// Twice the p99 of a client that has the bottleneck to itself; the median of several short runs.
Result<std::uint64_t> find_slo_ns(const Bench& bench) {
  std::vector<double> values;
  for (int i = 0; i < kUnloadedRuns; ++i) {
    const Histogram answers = ANIC_TRY(ask(bench, 0.1, kUnloadedSeconds));
    const auto p99 = answers.percentile(0.99);
    if (!p99) return fail(Exit::Failed, fmt::format("{} answers are too few for a p99", answers.count()));
    values.push_back(static_cast<double>(*p99));
  }
  return static_cast<std::uint64_t>(2 * spread(values).median);
}

/// The share of answers within the SLO, and of the time that the client waited for answers.
struct Kept {
  double answers_pct = 0;
  double time_pct = 0;
};

Kept kept_of(const Histogram& answers, std::uint64_t slo_ns) {
  double within = 0, all = 0, within_ns = 0, all_ns = 0;
  for (const auto& [value, count] : answers.buckets()) {
    const auto times = static_cast<double>(count);
    const double ns = times * static_cast<double>(value);
    all += times;
    all_ns += ns;
    if (value > slo_ns) continue;
    within += times;
    within_ns += ns;
  }
  return {.answers_pct = all > 0 ? within / all * 100 : 0,
          .time_pct = all > 0 ? within_ns / all_ns * 100 : 0};
}

struct Arm {
  Kept kept;
  double flood_mbit = 0;    // sent
  double carried_mbit = 0;  // by the bottleneck
  std::ptrdiff_t protects = 0;
};

/// How often the guardian set a limit.
Result<std::ptrdiff_t> count_protects(const Host& host) {
  const kern::NetNs netns = ANIC_TRY(kern::NetNs::open(host.netns));
  const kern::Maps maps = ANIC_TRY(kern::Maps::pinned({netns.inode(), host.ifname}));
  const kern::AuditRing ring = ANIC_TRY(kern::AuditRing::open(maps, false));
  const kern::RecordsRead read = ANIC_TRY(ring.peek());
  return std::ranges::count(read.records, ANIC_RECORD_PROTECT, &anic_record::kind);
}

Result<Arm> run(const Bench& bench, std::uint64_t slo_ns, bool protects) {
  Bench other = bench;  // whose server is the client
  std::swap(other.lab.server, other.lab.client);
  const Host& host = bench.lab.client;
  const policy::Policy policy = ANIC_TRY(policy_of(slo_ns, protects));
  Attached attached = ANIC_TRY(Attached::open(other, policy));
  ANIC_TRY(attached.set(true));

  const path::Address address = ANIC_TRY(path::Address::parse(bench.lab.server.ipv4, kFloodPort));
  const kern::NetNs server_ns = ANIC_TRY(kern::NetNs::open(bench.lab.server.netns));
  const kern::NetNs client_ns = ANIC_TRY(kern::NetNs::open(host.netns));
  const path::UdpSocket sink = ANIC_TRY(server_ns.run([&] { return path::UdpSocket::bind(address); }));
  UniqueFd socket = ANIC_TRY(client_ns.run([&] { return marked_socket(address); }));
  Arm arm;
  {
    const double carried = ANIC_TRY(carried_bytes(host));
    const std::uint64_t begun = monotonic_ns();
    const Flood flood(std::move(socket), bench.server_cpu);
    arm.kept = kept_of(ANIC_TRY(ask(bench, kSettleSeconds, kSeconds)), slo_ns);
    arm.flood_mbit = flood.mbit();
    arm.carried_mbit =
        (ANIC_TRY(carried_bytes(host)) - carried) * 8e3 / static_cast<double>(monotonic_ns() - begun);
  }
  arm.protects = ANIC_TRY(count_protects(host));
  ANIC_TRY(attached.set(false));
  return arm;
}

std::string problem_of(const Arm& arm, bool protects) {
  if (arm.flood_mbit < kFloodAtLeastMbit)
    return fmt::format("the generator was the limit: it sent {:.0f} Mbit/s", arm.flood_mbit);
  if (protects && arm.protects == 0) return "the guardian set no limit";
  if (!protects && arm.protects != 0) return "a limit was set where protection is off";
  return "";
}

/// By what an arm has of it; median.
template <typename Member>
double median_of(const std::vector<Arm>& arms, const Member& member) {
  std::vector<double> values;
  for (const Arm& arm : arms) values.push_back(static_cast<double>(member(arm)));
  return spread(values).median;
}

std::string note_of(std::uint64_t slo_ns, const std::vector<Arm>& with, const std::vector<Arm>& without) {
  const auto time = [](const Arm& arm) { return arm.kept.time_pct; };
  const auto sent = [](const Arm& arm) { return arm.flood_mbit; };
  const auto carried = [](const Arm& arm) { return arm.carried_mbit; };
  const auto protects = [](const Arm& arm) { return arm.protects; };
  return fmt::format(
      "answers within the SLO of {:.0f} us (twice the p99 of who is alone), closed loop, blocking, behind a "
      "tbf of {:.0f} Mbit/s that another tenant floods with {:.0f} Mbit/s ({:.0f} without protection); of "
      "the "
      "time that the client waits {:.1f} % ({:.1f}) is for these; the bottleneck carries {:.0f} Mbit/s "
      "({:.0f}); {:.0f} PROTECT records a run",
      static_cast<double>(slo_ns) * 1e-3, kBottleneckMbit, median_of(with, sent), median_of(without, sent),
      median_of(with, time), median_of(without, time), median_of(with, carried), median_of(without, carried),
      median_of(with, protects));
}

}  // namespace

Result<Json> slo_kept(const Bench& bench) {
  ANIC_TRY(add_bottleneck(bench.lab.client));
  const std::uint64_t slo_ns = ANIC_TRY(find_slo_ns(bench));
  std::vector<Arm> with;
  std::vector<Arm> without;
  const auto one = [&](Pairs& pairs, bool protects) -> Result<double> {
    const Arm arm = ANIC_TRY(run(bench, slo_ns, protects));
    if (const std::string problem = problem_of(arm, protects); !problem.empty()) pairs.problem = problem;
    (protects ? with : without).push_back(arm);
    return arm.kept.answers_pct;
  };
  Pairs pairs = ANIC_TRY(alternate(
      "slo_kept", [&](Pairs& into) { return one(into, true); }, [&](Pairs& into) { return one(into, false); },
      kRepeats));
  ANIC_TRY(tc(bench.lab.client, {"qdisc", "del", "dev", bench.lab.client.ifname, "root"}));
  if (bench.client_cpu == bench.server_cpu) pairs.problem = "client and server shared one CPU";
  if (slo_ns > kSloAtMostNs) pairs.problem = "this machine is too busy: the full queue nearly keeps the SLO";
  std::vector<double> ratios;
  for (std::size_t i = 0; i < pairs.ours.size(); ++i)
    ratios.push_back(pairs.ours[i] / std::max(pairs.peers[i], kLeastPeer));
  return bench_row(
      {.id = "slo_kept", .unit = "%", .peer = "without protection", .note = note_of(slo_ns, with, without)},
      pairs.ours, ratios, spread(pairs.peers).median, kTarget, Bound::AtLeast, pairs.problem);
}

}  // namespace agentnic::lab
