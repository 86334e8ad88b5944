// SPDX-License-Identifier: Apache-2.0
#include "lab/guardian.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cerrno>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "abi/guardian.h"
#include "audit/chain.hpp"
#include "base/clock.hpp"
#include "base/stop.hpp"
#include "kern/audit_ring.hpp"
#include "kern/bench_programs.hpp"
#include "kern/generation.hpp"
#include "kern/object.hpp"
#include "kern/order.hpp"
#include "kern/session.hpp"
#include "lab/environment.hpp"
#include "lab/guarded.hpp"
#include "lab/pairs.hpp"

namespace agentnic::lab {
namespace {

constexpr int kRepeats = 5;
constexpr int kProposals = 20'000;
constexpr int kTakeEvery = 1'000;
constexpr int kBatches = 80;  // of ANIC_DRAIN_MAX: what an empty ring takes of requests
constexpr std::uint32_t kRecords = 4'000;
constexpr int kTicks = 1'000;
constexpr unsigned kManyCpus = 128;
constexpr double kHeartbeatMs = 100;
constexpr double kTickMs = 10;
constexpr std::uint64_t kPatienceNs = 2'000'000'000;

/// One proposal to its answer, which must be an approval that was recorded.
Status propose_one(const kern::Session& session, std::uint64_t number) {
  const anic_proposal proposal = weight_proposal(number);
  ANIC_TRY(session.propose(proposal));
  const auto drained = ANIC_TRY(session.drain());
  const auto answer = session.answer(proposal.cookie);
  if (!drained || !answer || answer->decided != ANIC_DECIDED_APPROVE || answer->seq == 0)
    return fail(Exit::Failed,
                fmt::format("proposal {} was not approved and recorded (decision {}, by {})", number,
                            answer ? answer->decided : 0, answer ? answer->invariant : 0));
  return {};
}

double fraction_us(std::vector<double>& times, double fraction) {
  const auto at = static_cast<std::ptrdiff_t>(fraction * static_cast<double>(times.size() - 1));
  std::ranges::nth_element(times, times.begin() + at);
  return times[static_cast<std::size_t>(at)];
}

/// Times of `run`, in microseconds; the ring is emptied between.
Result<std::vector<double>> times_us(const Guarded& guarded,
                                     const std::function<Status(std::uint64_t)>& run) {
  std::vector<double> times;
  for (std::uint64_t i = 0; i < kProposals; ++i) {
    if (i % kTakeEvery == 0) ANIC_TRY(guarded.take());
    const std::uint64_t begun = monotonic_ns();
    ANIC_TRY(run(i));
    times.push_back(static_cast<double>(monotonic_ns() - begun) * 1e-3);
  }
  return times;
}

Result<Json> propose_us(const Bench& bench, const std::string& id, double fraction, double target) {
  const policy::Policy policy = ANIC_TRY(guarded_policy());
  Guarded guarded = ANIC_TRY(make_guarded(bench, policy));
  const kern::BenchPrograms programs = ANIC_TRY(kern::BenchPrograms::load(guarded.maps));
  const auto at = [&](const std::function<Status(std::uint64_t)>& run) -> Result<double> {
    std::vector<double> times = ANIC_TRY(times_us(guarded, run));
    return fraction_us(times, fraction);
  };
  const Pairs pairs = ANIC_TRY(alternate(
      id, [&](Pairs&) { return at([&](std::uint64_t i) { return propose_one(guarded.session, i); }); },
      [&](Pairs&) {
        return at([&](std::uint64_t) -> Status {
          ANIC_TRY(kern::run_order(programs.nothing_fd(), {}, "run a program that does nothing"));
          return {};
        });
      }));
  ANIC_TRY(guarded.session.close());
  ANIC_TRY(guarded.attached.set(false));
  const std::vector<double> ratios = peers_over_ours(pairs);
  return bench_row(
      {.id = id,
       .unit = "us",
       .peer = "a program that does nothing, by the same call",
       .note = fmt::format("p{:.0f} from writing a proposal to reading its answer, applied and in "
                           "the chain; one at a time, {} of them",
                           fraction * 100, kProposals)},
      pairs.ours, ratios, spread(pairs.peers).median, target, Bound::AtMost, pairs.problem);
}

/// Decisions a second, `batch` a drain, into an empty ring.
Result<double> rate_of(const Guarded& guarded, int batch) {
  const int rounds = kBatches * ANIC_DRAIN_MAX / batch;
  ANIC_TRY(guarded.take());
  std::uint64_t number = 0;
  const std::uint64_t begun = monotonic_ns();
  for (int round = 0; round < rounds; ++round) {
    for (int i = 0; i < batch; ++i) ANIC_TRY(guarded.session.propose(weight_proposal(number++)));
    const auto drained = ANIC_TRY(guarded.session.drain());
    if (!drained || *drained != batch) return fail(Exit::Failed, "a batch was not judged as a whole");
  }
  const std::uint64_t took = monotonic_ns() - begun;
  const auto last = guarded.session.answer(number);
  if (!last || last->decided != ANIC_DECIDED_APPROVE) return fail(Exit::Failed, "the last was not approved");
  return static_cast<double>(number) * 1e9 / static_cast<double>(took);
}

/// An instance that no interface has, sized for `cpus`, with the programs that measure parts of it.
struct Parts {
  kern::Object object;
  kern::BenchPrograms programs;
  kern::Maps maps;
};

Result<Parts> make_parts(const policy::Policy& policy, unsigned cpus) {
  kern::Object object = ANIC_TRY(kern::Object::load(cpus));
  kern::Maps maps = ANIC_TRY(object.maps());
  ANIC_TRY(kern::install(maps, object.commit(), ANIC_TRY(kern::tables_of(policy, {}))));
  kern::BenchPrograms programs = ANIC_TRY(kern::BenchPrograms::load(maps));
  return Parts{std::move(object), std::move(programs), std::move(maps)};
}

Result<double> answer_ns(int prog_fd, std::uint64_t what, std::uint64_t now_ns = 0) {
  anic_order order{};
  order.now_ns = now_ns;
  order.what = what;
  const int ns = ANIC_TRY(kern::run_order(prog_fd, order, "run a benchmark's program"));
  if (ns < 0) return fail_errno(ns, "run a benchmark's program");
  return ns;
}

/// Every tenant with what a tick looks at: SLOs in all classes.
policy::Policy full_policy() {
  policy::Policy made;
  made.name = "bench";
  made.link_rate_bps = 100'000'000'000;
  for (const anic_class cls : policy::kClasses) made.classes[cls].slo_ns = 1'000'000;
  made.classes[ANIC_CLASS_RPC].cpus = {0};
  for (int i = 0; i < ANIC_TENANTS_MAX - 1; ++i) {
    policy::Tenant tenant;
    tenant.name = fmt::format("tenant-{}", i);
    tenant.marks.push_back(static_cast<std::uint32_t>(i) + 1);
    tenant.budget.minimum_bps = 1'000'000'000;
    made.tenants.push_back(tenant);
  }
  return made;
}

/// A record's MAC alone, as libsodium computes it: what the same machine does natively at the same time.
double native_mac_ns() {
  audit::Chain chain;
  anic_record record{};
  const std::uint64_t begun = monotonic_ns();
  for (std::uint32_t i = 0; i < kRecords; ++i) {
    record.seq = i;
    audit::advance(chain, audit::mac_of(chain, record));
  }
  return static_cast<double>(monotonic_ns() - begun) / kRecords;
}

}  // namespace

Result<Json> propose_p50_us(const Bench& bench) { return propose_us(bench, "propose_p50_us", 0.5, 2); }
Result<Json> propose_p99_us(const Bench& bench) { return propose_us(bench, "propose_p99_us", 0.99, 5); }

Result<Json> decisions_per_s(const Bench& bench) {
  const policy::Policy policy = ANIC_TRY(guarded_policy());
  Guarded guarded = ANIC_TRY(make_guarded(bench, policy));
  const Pairs pairs = ANIC_TRY(alternate(
      "decisions_per_s", [&](Pairs&) { return rate_of(guarded, ANIC_DRAIN_MAX); },
      [&](Pairs&) { return rate_of(guarded, 1); }));
  ANIC_TRY(guarded.session.close());
  ANIC_TRY(guarded.attached.set(false));
  const std::vector<double> ratios = ours_over_peers(pairs);
  return bench_row({.id = "decisions_per_s",
                    .unit = "/s",
                    .peer = "one a drain",
                    .note = fmt::format("approved, applied and recorded, {} a drain, {} into an empty ring",
                                        ANIC_DRAIN_MAX, kBatches * ANIC_DRAIN_MAX)},
                   pairs.ours, ratios, spread(pairs.peers).median, 2'000'000, Bound::AtLeast, pairs.problem);
}

Result<Json> chain_ns() {
  const Parts parts = ANIC_TRY(make_parts(full_policy(), kern::possible_cpus()));
  const kern::AuditRing ring = ANIC_TRY(kern::AuditRing::open(parts.maps, true));
  std::vector<double> values;
  std::vector<double> natives;
  std::vector<double> ratios;
  for (int repeat = 0; repeat < kRepeats; ++repeat) {
    std::vector<double> times;
    std::vector<double> native;
    for (int chunk = 0; chunk < kRepeats; ++chunk) {
      ring.take(ANIC_TRY(ring.peek()).position);
      times.push_back(ANIC_TRY(answer_ns(parts.programs.chain_fd(), kRecords)) / kRecords);
      native.push_back(native_mac_ns());
    }
    values.push_back(spread(times).median);
    natives.push_back(spread(native).median);
    ratios.push_back(natives.back() / values.back());
  }
  return bench_row(
      {.id = "chain_ns",
       .unit = "ns",
       .peer = "the MAC alone, by libsodium",
       .note = fmt::format("a record of {} bytes into the chain and the ring: SipHash-2-4-128, copy, "
                           "ratchet every {}; {} in a row",
                           sizeof(anic_record), ANIC_SEGMENT, kRecords)},
      values, ratios, spread(natives).median, 200, Bound::AtMost, "");
}

Result<Json> tick_us() {
  const Parts parts = ANIC_TRY(make_parts(full_policy(), kManyCpus));
  std::vector<double> values;
  double longest = 0;
  std::uint64_t now = monotonic_ns();
  for (int repeat = 0; repeat < kRepeats; ++repeat) {
    double sum = 0;
    for (int i = 0; i < kTicks; ++i) {
      now += static_cast<std::uint64_t>(kTickMs * 1e6);
      ANIC_TRY(answer_ns(parts.programs.fill_fd(), 0, now));
      const double us = ANIC_TRY(answer_ns(parts.programs.tick_fd(), 0, now)) * 1e-3;
      sum += us;
      longest = std::max(longest, us);
    }
    values.push_back(sum / kTicks);
  }
  return bench_row_alone(
      {.id = "tick_us",
       .unit = "us",
       .peer = "",
       .note = fmt::format(
           "mean of {} ticks, 10 ms of the guardian's time apart, with {} tenants, all of whose "
           "classes have an SLO and answers, {} sessions, {} changes in force of each tenant and "
           "{} possible CPUs; the longest took {:.0f} us; 100 us are 1 % of a CPU at a tick of "
           "10 ms",
           kTicks, ANIC_TENANTS_MAX - 1, ANIC_SESSIONS_MAX, ANIC_ACTIONS_MAX, kManyCpus, longest)},
      values, 100, Bound::AtMost, "");
}

Result<Json> failsafe_ms(const Bench& bench) {
  const policy::Policy policy = ANIC_TRY(guarded_policy());
  std::vector<double> values;
  for (int repeat = 0; repeat < kRepeats; ++repeat) {
    Guarded guarded = ANIC_TRY(make_guarded(bench, policy));
    ANIC_TRY(propose_one(guarded.session, 0));
    const std::uint64_t heard = monotonic_ns();
    anic_modes modes{};
    while (ANIC_MODE_FAILSAFE(modes.words[1]) == 0) {
      ANIC_TRY(guarded.maps.read("anic_modes", 0, modes));
      if (monotonic_ns() - heard > kPatienceNs) return fail(Exit::Failed, "no fail-safe came");
    }
    values.push_back(static_cast<double>(monotonic_ns() - heard) * 1e-6);
    ANIC_TRY(guarded.attached.set(false));
    if (stop_requested()) return fail(Exit::Failed, "stopped");
  }
  return bench_row_alone(
      {.id = "failsafe_ms",
       .unit = "ms",
       .peer = "",
       .note = fmt::format("from a session's last drain to fail-safe of its tenant, with a heartbeat "
                           "of {} ms and a tick of {} ms: the deadline plus at most two ticks",
                           kHeartbeatMs, kTickMs)},
      values, kHeartbeatMs + 2 * kTickMs, Bound::AtMost, "");
}

}  // namespace agentnic::lab
