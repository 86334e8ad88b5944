// SPDX-License-Identifier: Apache-2.0
#include "kern/stats.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <span>

#include "kern/generation.hpp"

namespace agentnic::kern {
namespace {

// A struct of nothing but 64-bit counters is summed as the array that it is.
static_assert(sizeof(anic_counters) % sizeof(std::uint64_t) == 0);
constexpr std::size_t kWords = sizeof(anic_counters) / sizeof(std::uint64_t);

void add(anic_counters& sum, const anic_counters& part) {
  const std::span to(reinterpret_cast<std::uint64_t*>(&sum), kWords);
  const std::span from(reinterpret_cast<const std::uint64_t*>(&part), kWords);
  for (std::size_t i = 0; i < kWords; ++i) to[i] += from[i];
}

}  // namespace

anic_count Stats::lane(anic_direction direction, std::uint32_t lane) const {
  anic_count sum{};
  for (const anic_count& count : counters().lanes[direction][lane].by_reason) {
    sum.packets += count.packets;
    sum.bytes += count.bytes;
  }
  return sum;
}

const anic_bucket& Stats::bucket(anic_direction direction, std::uint32_t lane) const {
  return buckets[std::size_t{ANIC_LANES_MAX} * direction + lane];
}

ByReason Stats::by_reason(anic_direction direction) const {
  ByReason sums{};
  const auto add_lane = [&](const anic_lane_count& lane) {
    for (std::size_t reason = 0; reason < sums.size(); ++reason) {
      sums[reason].packets += lane.by_reason[reason].packets;
      sums[reason].bytes += lane.by_reason[reason].bytes;
    }
  };
  std::ranges::for_each(counters().lanes[direction], add_lane);
  add_lane(counters().gone[direction]);
  return sums;
}

Histogram answers(const anic_turn_lane& turn) {
  Histogram histogram;
  std::uint64_t begin = 0;
  for (std::uint32_t i = 0; i < ANIC_TURN_BUCKETS; ++i) {
    const std::uint64_t end = ANIC_TURN_BUCKET_END_NS(i);
    histogram.add(begin + (end - begin) / 2, turn.histogram[i]);
    begin = end;
  }
  return histogram;
}

Result<Stats> read_stats(const InstanceStatus& status) {
  if (status.health == Health::OtherAbi || status.health == Health::Incomplete)
    return fail(Exit::Failed, fmt::format("read the counters of {}: {}", status.ifname, status.problem));
  const Maps maps = ANIC_TRY(Maps::pinned(status.dir));
  Stats stats;
  stats.total.resize(1);
  std::vector<anic_counters> one(1);
  for (std::uint32_t cpu = 0; cpu < possible_cpus(); ++cpu) {
    ANIC_TRY(maps.read("anic_counters", cpu, one.front()));
    add(stats.total.front(), one.front());
  }
  for (auto& lanes : stats.total.front().lanes) {
    for (anic_lane_count& lane : lanes) lane.lease = 0;
  }
  ANIC_TRY(maps.read("anic_control", 0, stats.control));
  stats.buckets.resize(ANIC_BUCKETS_MAX);
  for (std::uint32_t i = 0; i < ANIC_BUCKETS_MAX; ++i)
    ANIC_TRY(maps.read("anic_buckets", i, stats.buckets[i]));
  stats.cpus.resize(possible_cpus());
  for (std::uint32_t cpu = 0; cpu < stats.cpus.size(); ++cpu)
    ANIC_TRY(maps.read("anic_cpus", cpu, stats.cpus[cpu]));
  stats.generation = ANIC_TRY(read_in_force(maps)).generation;
  const std::uint32_t first = stats.generation % ANIC_SLOTS * ANIC_PROFILE__MAX * ANIC_LANES_MAX;
  stats.turns.resize(ANIC_LANES_MAX);
  for (std::uint32_t i = 0; i < ANIC_LANES_MAX; ++i) {
    ANIC_TRY(maps.read("anic_turns", i, stats.turns[i]));
    anic_lane lane{};
    ANIC_TRY(maps.read("anic_lanes", first + i, lane));
    stats.slo_ns.push_back(lane.slo_ns);
  }
  const policy::Tables tables = ANIC_TRY(read_names(maps));
  stats.tenants = tables.tenants;
  stats.services = tables.services;
  return stats;
}

Result<std::map<std::uint32_t, anic_owner>> read_owners(const InstanceStatus& status) {
  const UniqueFd pages = ANIC_TRY(open_pin(status.dir, "anic_xsk_pages"));
  std::map<std::uint32_t, anic_owner> owners;
  for (const auto& [queue, page] : open_owner_pages(pages.get()))
    owners.emplace(queue, ANIC_TRY(read_owner_page(page.get())));
  return owners;
}

}  // namespace agentnic::kern
