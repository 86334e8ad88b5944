// SPDX-License-Identifier: Apache-2.0
#include "lab/quota.hpp"

#include <fmt/format.h>
#include <netinet/in.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <cmath>
#include <memory>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "abi/share.h"
#include "abi/stats.h"
#include "base/clock.hpp"
#include "base/stop.hpp"
#include "kern/generation.hpp"
#include "kern/object.hpp"
#include "kern/test_run.hpp"
#include "lab/beside.hpp"
#include "lab/environment.hpp"
#include "lab/measure.hpp"
#include "lab/packet.hpp"
#include "lab/pairs.hpp"
#include "policy/prefix.hpp"

namespace agentnic::lab {
namespace {

constexpr double kTarget = 2;
constexpr int kRepeats = 5;
constexpr std::size_t kPayload = 400;
constexpr std::uint64_t kLink = 1'000'000'000;
constexpr std::uint64_t kCeiling = 400'000'000;
constexpr std::array kAddresses = {"10.0.1.1", "10.0.2.1"};
constexpr auto kWarmUp = std::chrono::milliseconds(300);
constexpr auto kMeasured = std::chrono::seconds(1);

/// One way to load an instance, and what each tenant is to get of it.
struct Case {
  std::string name;
  bool egress;
  std::vector<std::size_t> tenants;  ///< one for each CPU: whose packets it sends
  std::vector<policy::Budget> budgets;
  std::vector<double> expected_bps;  ///< by tenant
};

std::vector<Case> cases() {
  const policy::Budget ceiling{.ceiling_bps = kCeiling};
  const policy::Budget guaranteed{.minimum_bps = kLink / 2};
  const policy::Budget heavy{.weight = 300};
  const policy::Budget light{.weight = 100};
  std::vector<Case> all;
  for (const bool egress : {false, true}) {
    const std::string where = egress ? "out" : "in";
    all.push_back({where + ", one CPU", egress, {0}, {ceiling}, {kCeiling}});
    all.push_back({where + ", two CPUs", egress, {0, 0}, {ceiling}, {kCeiling}});
    all.push_back({where + ", borrowing", egress, {1}, {guaranteed, light}, {0, kLink}});
    all.push_back({where + ", 3 to 1", egress, {0, 1}, {heavy, light}, {kLink * 0.75, kLink * 0.25}});
  }
  return all;
}

policy::Policy policy_of(const Case& one) {
  policy::Policy made;
  made.name = "quota";
  made.link_rate_bps = kLink;
  for (std::size_t i = 0; i < one.budgets.size(); ++i) {
    policy::Tenant tenant;
    tenant.name = fmt::format("tenant-{}", i);
    tenant.remotes.push_back(policy::parse_prefix(kAddresses.at(i)).value());
    tenant.budget = one.budgets[i];
    made.tenants.push_back(tenant);
  }
  return made;
}

Frame frame_of(const Case& one, std::size_t tenant) {
  PacketBuilder builder;
  builder.eth().ipv4();
  if (one.egress) {
    builder.from("192.0.2.2").to(kAddresses.at(tenant));
  } else {
    builder.from(kAddresses.at(tenant)).to("192.0.2.2");
  }
  return builder.udp(40000, 9000).payload(kPayload).build();
}

/// Wire bytes of each tenant: what passed, and what was offered.
struct Bytes {
  std::vector<std::uint64_t> passed;
  std::uint64_t offered = 0;
  std::uint64_t at_ns = 0;
};

Result<Bytes> read_bytes(const kern::Maps& maps, const Case& one, const policy::Ids& ids) {
  Bytes bytes{
      .passed = std::vector<std::uint64_t>(one.budgets.size()), .offered = 0, .at_ns = monotonic_ns()};
  const auto counters = std::make_unique<anic_counters>();
  for (std::uint32_t cpu = 0; cpu < kern::possible_cpus(); ++cpu) {
    ANIC_TRY(maps.read("anic_counters", cpu, *counters));
    for (std::size_t tenant = 0; tenant < one.budgets.size(); ++tenant) {
      const std::uint32_t id = ids.tenants.at(fmt::format("tenant-{}", tenant));
      const auto& lane =
          counters
              ->lanes[one.egress ? ANIC_DIRECTION_OUT : ANIC_DIRECTION_IN][ANIC_LANE(id, ANIC_CLASS_DEFAULT)];
      for (std::size_t reason = 0; reason < ANIC_REASONS; ++reason) {
        const anic_count& count = lane.by_reason[reason];
        const std::uint64_t wire = count.bytes + count.packets * ANIC_WIRE_EXTRA;
        if (reason != ANIC_REASON_AT(ANIC_REASON_DROP_QUOTA)) bytes.passed[tenant] += wire;
        bytes.offered += wire;
      }
    }
  }
  return bytes;
}

struct Found {
  double error_pct = 0;      ///< of the tenant that is furthest off
  double times_offered = 0;  ///< what was offered, over what was to pass
};

Result<Found> run(const Case& one) {
  const kern::Object object = ANIC_TRY(kern::Object::load());
  const kern::Maps maps = ANIC_TRY(object.maps());
  policy::Tables tables = ANIC_TRY(kern::tables_of(policy_of(one), {}));
  const policy::Ids ids = kern::ids_of(tables);
  ANIC_TRY(kern::install(maps, object.commit(), std::move(tables)));
  ANIC_TRY(object.start());
  std::vector<std::unique_ptr<Beside>> senders;
  for (std::size_t cpu = 0; cpu < one.tenants.size(); ++cpu) {
    senders.push_back(std::make_unique<Beside>(static_cast<int>(cpu),
                                               one.egress ? object.tc_out_fd() : object.xdp_fd(),
                                               frame_of(one, one.tenants[cpu])));
  }
  std::this_thread::sleep_for(kWarmUp);
  const Bytes before = ANIC_TRY(read_bytes(maps, one, ids));
  std::this_thread::sleep_for(kMeasured);
  const Bytes after = ANIC_TRY(read_bytes(maps, one, ids));
  const double seconds = static_cast<double>(after.at_ns - before.at_ns) * 1e-9;
  Found found;
  double expected = 0;
  for (std::size_t tenant = 0; tenant < one.expected_bps.size(); ++tenant) {
    if (one.expected_bps[tenant] == 0) continue;
    expected += one.expected_bps[tenant];
    const double rate = static_cast<double>(after.passed[tenant] - before.passed[tenant]) * 8 / seconds;
    found.error_pct = std::max(found.error_pct, std::abs(rate / one.expected_bps[tenant] - 1) * 100);
  }
  found.times_offered = static_cast<double>(after.offered - before.offered) * 8 / seconds / expected;
  return found;
}

}  // namespace

Result<Json> quota_error_pct() {
  const bool two_cpus = std::thread::hardware_concurrency() > 1;
  std::vector<double> worst;
  std::string worst_case;
  double offered = 0;
  Progress progress(kRepeats);
  for (int repeat = 0; repeat < kRepeats; ++repeat) {
    progress.step(fmt::format("quota_error_pct (repeat {} of {})", repeat + 1, kRepeats));
    worst.push_back(0);
    for (const Case& one : cases()) {
      if (one.tenants.size() > 1 && !two_cpus) continue;
      const Found found = ANIC_TRY(run(one));
      if (found.error_pct > worst.back()) worst_case = one.name;
      worst.back() = std::max(worst.back(), found.error_pct);
      offered = offered == 0 ? found.times_offered : std::min(offered, found.times_offered);
      if (stop_requested()) return fail(Exit::Failed, "stopped");
    }
  }
  const std::string problem = offered < 2 ? "too little was offered to find a limit"
                              : two_cpus  ? ""
                                          : "one CPU: half of the cases were left out";
  return bench_row_alone(
      {.id = "quota_error_pct",
       .unit = "%",
       .peer = "the configured rate",
       .note = fmt::format(
           "the furthest off of 8 cases (in and out; one CPU, two, borrowing, 3 to 1) at 250 Mbit/s to 1 "
           "Gbit/s over one second, wire bytes; last: {}; at least {:.1f} times as much was offered",
           worst_case, offered)},
      worst, kTarget, Bound::AtMost, problem);
}

}  // namespace agentnic::lab
