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

}  // namespace

Observation Observer::observe(const anic_observation& seen) {
  Observation observation{.tick = seen.number,
                          .monotonic_ns = seen.at_ns,
                          .generation = seen.generation,
                          .heartbeat_ns = seen.envelope.heartbeat_ns,
                          .tenants = {},
                          .lanes = {}};
  for (const anic_observed_tenant& row : seen.tenants) {
    if (names_.tenants.contains(row.tenant)) observation.tenants.push_back(tenant(row, seen));
  }
  for (std::size_t i = 0; i < before_.size(); ++i) {
    const anic_observed_lane& row = seen.lanes[i];
    // The first look at a lane, or at one that was somebody else's, has nothing to be compared with.
    const bool known = before_[i].tenant == row.tenant && before_[i].at_ns != 0;
    if (names_.tenants.contains(row.tenant))
      observation.lanes.push_back(lane(row, known ? before_[i] : row, seen.envelope));
    before_[i] = row;
  }
  return observation;
}

Tenant Observer::tenant(const anic_observed_tenant& row, const anic_observation& seen) const {
  const anic_envelope& envelope = seen.envelope;
  const std::uint64_t borrowed =
      row.ceiling_bps > row.stated_bps && row.stated_bps != 0 ? row.ceiling_bps - row.stated_bps : 0;
  Tenant tenant{.tenant = names_.tenants.at(row.tenant),
                .failsafe = std::nullopt,
                .guaranteed_bps = row.rate_bps,
                .ceiling_bps = if_any(row.ceiling_bps),
                .borrowed_bps = borrowed,
                .borrow_high_bps = std::min(envelope.borrow_max_bps, borrowed + envelope.borrow_step_bps),
                .bulk_limit_bps = if_any(row.bulk_bps),
                .changes = row.in_force,
                .changes_high = envelope.actions,
                .wait_ns = row.free_ns > seen.at_ns ? row.free_ns - seen.at_ns : 0};
  if (row.failsafe != 0) tenant.failsafe = audit::failsafe_name(row.failsafe);
  return tenant;
}

Lane Observer::lane(const anic_observed_lane& row, const anic_observed_lane& before,
                    const anic_envelope& envelope) const {
  const std::uint64_t weight = row.weight;
  const std::uint64_t step = envelope.weight_step;
  const std::uint64_t ns = row.at_ns - before.at_ns;
  Lane lane{.tenant = names_.tenants.at(row.tenant),
            .cls = std::string(policy::class_name(row.cls)),
            .weight = weight,
            .weight_low = std::max<std::uint64_t>(envelope.weight_min, weight > step ? weight - step : 0),
            .weight_high = std::min<std::uint64_t>(envelope.weight_max, weight + step),
            .path = std::string(policy::path_name(row.path)),
            .guaranteed_bps = row.rate_bps,
            .ceiling_bps = if_any(row.ceiling_bps),
            .floor_percent = row.floor_percent,
            .in = way(row.ways[ANIC_DIRECTION_IN], before.ways[ANIC_DIRECTION_IN], ns),
            .out = way(row.ways[ANIC_DIRECTION_OUT], before.ways[ANIC_DIRECTION_OUT], ns),
            .slo_ns = if_any(row.slo_ns),
            .samples = row.samples - before.samples,
            .over_slo = row.over_slo - before.over_slo,
            .missed = row.missed - before.missed,
            .p50_ns = std::nullopt,
            .p99_ns = std::nullopt,
            .window = row.window};
  if (row.window != 0) lane.p50_ns = row.p50_ns;
  if (row.window >= kP99Answers) lane.p99_ns = row.p99_ns;
  return lane;
}

}  // namespace agentnic::agent
