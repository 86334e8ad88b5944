// SPDX-License-Identifier: Apache-2.0
#pragma once

/// The counters of an instance, summed over CPUs.

#include <array>
#include <cstdint>
#include <map>
#include <vector>

#include "abi/owner.h"
#include "abi/policy.h"
#include "abi/share.h"
#include "abi/stats.h"
#include "abi/steer.h"
#include "abi/turn.h"
#include "base/histogram.hpp"
#include "base/result.hpp"
#include "kern/instance.hpp"

namespace agentnic::kern {

/// Indexed by anic_reason.
using ByReason = std::array<anic_count, ANIC_REASONS>;

/// The counters of all CPUs together, and the names for their ids.
struct Stats {
  std::vector<anic_counters> total;  ///< one element; on the heap, because it is large
  anic_control control{};
  std::vector<anic_bucket> buckets;    ///< by direction * ANIC_LANES_MAX + lane
  std::vector<anic_cpu> cpus;          ///< possible ones, that lanes can be spread over
  std::vector<anic_turn_lane> turns;   ///< by lane
  std::vector<std::uint64_t> slo_ns;   ///< by lane, in force; 0: none is stated
  std::uint32_t generation = 0;        ///< in force when they were read
  std::vector<anic_service> services;  ///< by id; an id without a name is not in use
  std::vector<anic_tenant> tenants;    ///< likewise

  [[nodiscard]] const anic_counters& counters() const { return total.front(); }

  /// Of a lane, summed by reason.
  [[nodiscard]] anic_count lane(anic_direction direction, std::uint32_t lane) const;
  /// The rate of a lane and what it asks for; rate 0: it has no limit.
  [[nodiscard]] const anic_bucket& bucket(anic_direction direction, std::uint32_t lane) const;
  /// Summed over all lanes, those of tenants that are gone included.
  [[nodiscard]] ByReason by_reason(anic_direction direction) const;
};

/// What the kernel keeps of a lane's answers, in nanoseconds: each counts as the middle of its bucket.
Histogram answers(const anic_turn_lane& turn);

Result<Stats> read_stats(const InstanceStatus& status);

/// The pages of owners of AF_XDP sockets, by queue. That of one that is gone stays until there is the next.
Result<std::map<std::uint32_t, anic_owner>> read_owners(const InstanceStatus& status);

}  // namespace agentnic::kern
