// SPDX-License-Identifier: Apache-2.0
#include "lab/agent.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <charconv>
#include <filesystem>
#include <string>
#include <system_error>
#include <vector>

#include "abi/guardian.h"
#include "audit/words.hpp"
#include "base/clock.hpp"
#include "base/process.hpp"
#include "kern/audit_ring.hpp"
#include "kern/maps.hpp"
#include "lab/environment.hpp"
#include "lab/pairs.hpp"
#include "policy/parse.hpp"

namespace agentnic::lab {
namespace {

constexpr int kRounds = 2'000;
constexpr int kRepeats = 5;
constexpr int kIdleTicks = 300;
constexpr double kIdleIntervalMs = 10;
constexpr int kTenants = 16;  // of four classes: 64 lanes
constexpr int kPatienceMs = 60'000;

/// Proposes one change for each observation, whose time it gives as its reason.
constexpr const char* kChild = R"($| = 1; while (<STDIN>) {
  next unless /"observation","tick":(\d+),"monotonic_ns":(\d+)/;
  my $weight = 200 + $1 % 2;
  print qq({"tick":$1,"proposals":[{"kind":"queue_weight_adjust","tenant":"tenant-0","class":"rpc",)
      . qq("value":$weight,"reason":"$2"}]}\n);
})";

Result<policy::Policy> make_policy(int tenants) {
  std::string rows;
  std::string names;
  for (int i = 0; i < tenants; ++i) {
    rows += fmt::format(R"({}{{"name": "tenant-{}", "marks": [{}]}})", i == 0 ? "" : ",", i, i + 1);
    names += fmt::format(R"({}"tenant-{}")", i == 0 ? "" : ",", i);
  }
  return policy::parse(
      fmt::format(R"({{"version": 1, "name": "agent", "link_rate": "10Gbit", "services": [], "tenants": [{}],
        "guardian": {{"heartbeat": "5s", "oscillation": {{"window": "1us", "flips": 1000}},
                     "weight": {{"step": 1000}}, "changes": {{"tenant": 10000000, "total": 10000000}}}},
        "agents": [{{"name": "bench", "tenants": [{}], "kinds": ["queue_weight_adjust"],
                    "classes": ["default", "rpc", "retrieval", "bulk"]}}]}})",
                  rows, names),
      "bench policy");
}

/// agentnic-agent beside this program, on the interface of the bench.
Argv agent_argv(const Bench& bench, std::vector<std::string> options) {
  const auto folder = std::filesystem::read_symlink("/proc/self/exe").parent_path();
  Argv argv = {folder / "agentnic-agent", bench.lab.server.ifname, "--netns", bench.lab.server.netns};
  argv.insert(argv.end(), options.begin(), options.end());
  return argv;
}

double median(std::vector<double> values) {
  const auto middle = values.begin() + static_cast<std::ptrdiff_t>(values.size() / 2);
  std::ranges::nth_element(values, middle);
  return *middle;
}

/// From the time of each observation, as its proposal's reason has it, to that of the decision in the audit.
Result<std::vector<double>> loop_times_us(const std::vector<anic_record>& records) {
  std::vector<double> times;
  for (const anic_record& record : records) {
    if (record.kind != ANIC_RECORD_DECISION) continue;
    const std::string_view reason = audit::text_of(record.reason);
    std::uint64_t seen_ns = 0;
    std::from_chars(reason.data(), reason.data() + reason.size(), seen_ns);
    if (record.decided != ANIC_DECIDED_APPROVE || seen_ns == 0 || seen_ns > record.time_ns)
      return fail(Exit::Failed, "an agent's proposal was not approved, or is of no observation");
    times.push_back(static_cast<double>(record.time_ns - seen_ns) * 1e-3);
  }
  if (times.size() != kRounds)
    return fail(Exit::Failed, fmt::format("{} of {} decisions are in the audit", times.size(), kRounds));
  return times;
}

Result<double> loop_us(const Bench& bench, const kern::AuditRing& ring) {
  ring.take(ANIC_TRY(ring.peek()).position);
  ANIC_TRY(run_program(agent_argv(bench, {"--interval", "1ms", "--ticks", std::to_string(kRounds), "--exec",
                                          "perl", "-e", kChild}),
                       kPatienceMs));
  return median(ANIC_TRY(loop_times_us(ANIC_TRY(ring.peek()).records)));
}

/// A byte to another process and back, each of whom sleeps meanwhile; once a millisecond.
Result<double> round_trip_us() {
  int there[2];
  int back[2];
  if (::pipe2(there, O_CLOEXEC) != 0) return fail_errno(errno, "make a pipe");
  const UniqueFd there_read(there[0]);
  UniqueFd there_write(there[1]);
  if (::pipe2(back, O_CLOEXEC) != 0) return fail_errno(errno, "make a pipe");
  const UniqueFd back_read(back[0]);
  const UniqueFd back_write(back[1]);
  const Child echo = ANIC_TRY(Child::start("echo", [&](int) {
    char byte = 0;
    there_write.reset();
    while (::read(there_read.get(), &byte, 1) == 1 && ::write(back_write.get(), &byte, 1) == 1) {
    }
  }));
  std::vector<double> times;
  for (int i = 0; i < kRounds; ++i) {
    ::usleep(1000);
    char byte = 0;
    const std::uint64_t begun = monotonic_ns();
    if (::write(there_write.get(), &byte, 1) != 1 || ::read(back_read.get(), &byte, 1) != 1)
      return fail_errno(errno, "send a byte to another process and back");
    times.push_back(static_cast<double>(monotonic_ns() - begun) * 1e-3);
  }
  return median(times);
}

double seconds_of(const timeval& time) {
  return static_cast<double>(time.tv_sec) + static_cast<double>(time.tv_usec) * 1e-6;
}

/// CPU time of all that was waited for.
double children_s() {
  rusage usage{};
  ::getrusage(RUSAGE_CHILDREN, &usage);
  return seconds_of(usage.ru_utime) + seconds_of(usage.ru_stime);
}

Result<double> cpu_s(const Bench& bench, int ticks) {
  const double before = children_s();
  ANIC_TRY(run_program(agent_argv(bench, {"--interval", fmt::format("{}ms", kIdleIntervalMs), "--ticks",
                                          std::to_string(ticks)}),
                       kPatienceMs));
  return children_s() - before;
}

double percent(double seconds) { return seconds / ((kIdleTicks - 1) * kIdleIntervalMs * 1e-3) * 100; }

Result<double> sleeper_percent() {
  const double before = children_s();
  Child sleeper = ANIC_TRY(Child::start("sleeper", [](int) {
    for (int i = 1; i < kIdleTicks; ++i) ::usleep(static_cast<useconds_t>(kIdleIntervalMs * 1000));
  }));
  ANIC_TRY(sleeper.wait(kPatienceMs));
  return percent(children_s() - before);
}

}  // namespace

Result<Json> agent_loop_us(const Bench& bench) {
  const policy::Policy policy = ANIC_TRY(make_policy(1));
  Attached attached = ANIC_TRY(Attached::open(bench, policy));
  ANIC_TRY(attached.set(true));
  const kern::NetNs netns = ANIC_TRY(kern::NetNs::open(bench.lab.server.netns));
  const kern::Maps maps = ANIC_TRY(kern::Maps::pinned({netns.inode(), bench.lab.server.ifname}));
  const kern::AuditRing ring = ANIC_TRY(kern::AuditRing::open(maps, true));
  const Pairs pairs = ANIC_TRY(alternate(
      "agent_loop_us", [&](Pairs&) { return loop_us(bench, ring); }, [](Pairs&) { return round_trip_us(); },
      kRepeats));
  ANIC_TRY(attached.set(false));
  const std::vector<double> ratios = peers_over_ours(pairs);
  return bench_row(
      {.id = "agent_loop_us",
       .unit = "us",
       .peer = "a byte to another process and back",
       .note = fmt::format("p50 from an observation to the decision on what a program (perl) proposed "
                           "for it, both by the kernel's clock in the kernel; {} of them, once a "
                           "millisecond",
                           kRounds)},
      pairs.ours, ratios, spread(pairs.peers).median, 200, Bound::AtMost, pairs.problem);
}

Result<Json> agent_idle_percent(const Bench& bench) {
  const policy::Policy policy = ANIC_TRY(make_policy(kTenants));
  Attached attached = ANIC_TRY(Attached::open(bench, policy));
  ANIC_TRY(attached.set(true));
  const auto idle = [&](Pairs&) -> Result<double> {
    const double begin_s = ANIC_TRY(cpu_s(bench, 1));
    return percent(ANIC_TRY(cpu_s(bench, kIdleTicks)) - begin_s);
  };
  const Pairs pairs =
      ANIC_TRY(alternate("agent_idle_percent", idle, [](Pairs&) { return sleeper_percent(); }, kRepeats));
  ANIC_TRY(attached.set(false));
  const std::vector<double> ratios = peers_over_ours(pairs);
  return bench_row(
      {.id = "agent_idle_percent",
       .unit = "%",
       .peer = "a process that sleeps as often, and does nothing else",
       .note = fmt::format("of one CPU, by rusage, of all of agentnic-agent with the static controller "
                           "at {} lanes and an interval of {} ms, less what begin and end take; {} "
                           "observations",
                           kTenants * 4, kIdleIntervalMs, kIdleTicks)},
      pairs.ours, ratios, spread(pairs.peers).median, 1, Bound::AtMost, pairs.problem);
}

}  // namespace agentnic::lab
