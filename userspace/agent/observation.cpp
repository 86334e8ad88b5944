// SPDX-License-Identifier: Apache-2.0
#include "agent/observation.hpp"

#include <algorithm>

#include "audit/words.hpp"
#include "policy/model.hpp"

namespace agentnic::agent {
namespace {

constexpr std::uint64_t kP99Answers = 100;
constexpr double kBitsTimesNs = 8e9;
constexpr double kPercent = 100;

std::optional<std::uint64_t> if_any(std::uint64_t value) {
  return value == 0 ? std::nullopt : std::optional(value);
}

/// `rate_bps`: of the last time that it was looked at; then of this time.
Way way(const anic_observed_way& now, const anic_observed_way& before, std::uint64_t ns,
        std::uint64_t& rate_bps) {
  const auto bits_ns = static_cast<double>(now.bytes - before.bytes) * kBitsTimesNs;
  if (ns != 0) rate_bps = static_cast<std::uint64_t>(bits_ns / static_cast<double>(ns));
  return {.rate_bps = rate_bps,
          .packets = now.packets - before.packets,
          .dropped_packets = now.dropped_packets - before.dropped_packets,
          .wanted_bps = now.wanted_bps,
          .given_bps = if_any(now.given_bps),
          .occupancy_ns = now.ahead_ns};
}

/// What one change can make of the ceiling of its bulk.
void make_bulk(Tenant& tenant, const anic_observed_tenant& row, const anic_envelope& envelope) {
  tenant.bulk_low_bps.reset();
  tenant.bulk_high_bps.reset();
  if (row.bulk_stated_bps == 0) return;
  const std::uint64_t now = row.bulk_now_bps;
  const std::uint64_t step = now / 100 * envelope.throttle_percent;
  tenant.bulk_low_bps = std::max<std::uint64_t>(now - std::min(now, step), row.bulk_least_bps);
  tenant.bulk_high_bps =
      std::max<std::uint64_t>(std::min<std::uint64_t>(now + step, row.bulk_stated_bps), row.bulk_least_bps);
}

void make_lane(Lane& lane, const std::string& name, const anic_observed_lane& row,
               const anic_observed_lane& before, std::array<std::uint64_t, ANIC_DIRECTION__MAX>& rates_bps,
               const anic_observation& seen) {
  const anic_envelope& envelope = seen.envelope;
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
  lane.age_ns = seen.at_ns - row.at_ns;
  lane.in =
      way(row.ways[ANIC_DIRECTION_IN], before.ways[ANIC_DIRECTION_IN], ns, rates_bps[ANIC_DIRECTION_IN]);
  lane.out =
      way(row.ways[ANIC_DIRECTION_OUT], before.ways[ANIC_DIRECTION_OUT], ns, rates_bps[ANIC_DIRECTION_OUT]);
  lane.slo_ns = if_any(row.slo_ns);
  lane.samples = row.samples - before.samples;
  lane.over_slo = row.over_slo - before.over_slo;
  lane.over_slo_percent.reset();
  if (lane.samples != 0)
    lane.over_slo_percent = kPercent * static_cast<double>(lane.over_slo) / static_cast<double>(lane.samples);
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

void Observer::make_tenant(Tenant& tenant, const std::string& name, const anic_observed_tenant& row,
                           const anic_observation& seen) const {
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
  make_bulk(tenant, row, envelope);
  tenant.escalations.clear();
  for (const std::uint32_t word : row.escalated) {
    const auto service = names_.services.find(ANIC_ESCALATED_SERVICE(word));
    if (service != names_.services.end())
      tenant.escalations.push_back(
          {.service = service->second, .cls = std::string(policy::class_name(ANIC_ESCALATED_CLASS(word)))});
  }
  tenant.rebalances.clear();
  for (const std::uint32_t word : row.rebalanced) {
    if (word != 0)
      tenant.rebalances.push_back({.cls = std::string(policy::class_name(ANIC_REBALANCED_CLASS(word))),
                                   .bucket = ANIC_REBALANCED_BUCKET(word),
                                   .cpu = ANIC_REBALANCED_CPU(word)});
  }
  tenant.duration_high_ns = envelope.duration_ns;
  tenant.changes = row.in_force;
  tenant.changes_high = envelope.actions;
  tenant.wait_ns = row.free_ns > seen.at_ns ? row.free_ns - seen.at_ns : 0;
}

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
      Before& before = before_[i];
      // The first look at a lane has nothing to be compared with.
      if (before.row.tenant != row.tenant) before = {.row = row, .rates_bps = {}};
      if (row.tenant == id)
        make_lane(next_of(observation_.lanes, lanes), name, row, before.row, before.rates_bps, seen);
      before.row = row;
    }
  }
  observation_.tenants.resize(tenants);
  observation_.lanes.resize(lanes);
  return observation_;
}

}  // namespace agentnic::agent
