// SPDX-License-Identifier: Apache-2.0
#include "agent/observation.hpp"

#include <algorithm>

#include "audit/words.hpp"
#include "policy/model.hpp"

namespace agentnic::agent {
namespace {

constexpr std::uint64_t kP99Answers = 100;
constexpr double kBitsTimesNs = 8e9;

std::optional<std::uint64_t> if_any(std::uint64_t value) {
  return value == 0 ? std::nullopt : std::optional(value);
}

Way way(const anic_observed_way& now, const anic_observed_way& before, std::uint64_t ns) {
  const auto bits_ns = static_cast<double>(now.bytes - before.bytes) * kBitsTimesNs;
  return {.rate_bps = ns == 0 ? 0 : static_cast<std::uint64_t>(bits_ns / static_cast<double>(ns)),
          .packets = now.packets - before.packets,
          .dropped_packets = now.dropped_packets - before.dropped_packets,
          .wanted_bps = now.wanted_bps,
          .given_bps = if_any(now.given_bps),
          .occupancy_ns = now.ahead_ns};
}

void make_tenant(Tenant& tenant, const std::string& name, const anic_observed_tenant& row,
                 const anic_observation& seen) {
  const anic_envelope& envelope = seen.envelope;
  const std::uint64_t borrowed =
      row.ceiling_bps > row.stated_bps && row.stated_bps != 0 ? row.ceiling_bps - row.stated_bps : 0;
  tenant.tenant = name;
  tenant.failsafe.reset();
  if (row.failsafe != 0) tenant.failsafe = audit::failsafe_name(row.failsafe);
  tenant.guaranteed_bps = row.rate_bps;
  tenant.ceiling_bps = if_any(row.ceiling_bps);
  tenant.borrowed_bps = borrowed;
  tenant.borrow_high_bps = std::min(envelope.borrow_max_bps, borrowed + envelope.borrow_step_bps);
  tenant.bulk_limit_bps = if_any(row.bulk_bps);
  tenant.changes = row.in_force;
  tenant.changes_high = envelope.actions;
  tenant.wait_ns = row.free_ns > seen.at_ns ? row.free_ns - seen.at_ns : 0;
}

void make_lane(Lane& lane, const std::string& name, const anic_observed_lane& row,
               const anic_observed_lane& before, const anic_envelope& envelope) {
  const std::uint64_t weight = row.weight;
  const std::uint64_t step = envelope.weight_step;
  const std::uint64_t ns = row.at_ns - before.at_ns;
  lane.tenant = name;
  lane.cls = policy::class_name(row.cls);
  lane.weight = weight;
  lane.weight_low = std::max<std::uint64_t>(envelope.weight_min, weight > step ? weight - step : 0);
  lane.weight_high = std::min<std::uint64_t>(envelope.weight_max, weight + step);
  lane.path = policy::path_name(row.path);
  lane.guaranteed_bps = row.rate_bps;
  lane.ceiling_bps = if_any(row.ceiling_bps);
  lane.floor_percent = row.floor_percent;
  lane.in = way(row.ways[ANIC_DIRECTION_IN], before.ways[ANIC_DIRECTION_IN], ns);
  lane.out = way(row.ways[ANIC_DIRECTION_OUT], before.ways[ANIC_DIRECTION_OUT], ns);
  lane.slo_ns = if_any(row.slo_ns);
  lane.samples = row.samples - before.samples;
  lane.over_slo = row.over_slo - before.over_slo;
  lane.missed = row.missed - before.missed;
  lane.p50_ns = row.window != 0 ? std::optional(row.p50_ns) : std::nullopt;
  lane.p99_ns = row.window >= kP99Answers ? std::optional(row.p99_ns) : std::nullopt;
  lane.window = row.window;
}

/// The next row of a list whose rows are used again.
template <typename Row>
Row& next_of(std::vector<Row>& rows, std::size_t& used) {
  if (used == rows.size()) rows.emplace_back();
  return rows[used++];
}

}  // namespace

const Observation& Observer::observe(const anic_observation& seen) {
  observation_.tick = seen.number;
  observation_.monotonic_ns = seen.at_ns;
  observation_.generation = seen.generation;
  observation_.heartbeat_ns = seen.envelope.heartbeat_ns;
  std::size_t tenants = 0;
  std::size_t lanes = 0;
  for (const auto& [id, name] : names_.tenants) {
    const anic_observed_tenant& whole = seen.tenants[id - 1];
    if (whole.tenant == id) make_tenant(next_of(observation_.tenants, tenants), name, whole, seen);
    for (std::size_t i = (id - 1) * ANIC_OBSERVED_CLASSES; i < id * ANIC_OBSERVED_CLASSES; ++i) {
      const anic_observed_lane& row = seen.lanes[i];
      // The first look at a lane has nothing to be compared with.
      const bool known = before_[i].tenant == row.tenant;
      if (row.tenant == id)
        make_lane(next_of(observation_.lanes, lanes), name, row, known ? before_[i] : row, seen.envelope);
      before_[i] = row;
    }
  }
  observation_.tenants.resize(tenants);
  observation_.lanes.resize(lanes);
  return observation_;
}

}  // namespace agentnic::agent
