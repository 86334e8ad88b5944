// SPDX-License-Identifier: Apache-2.0
#pragma once

/// What an agent sees, in words and units of its own: names instead of ids, rates instead of counts, and what
/// the envelope leaves room for. Pure.

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "abi/observe.h"

namespace agentnic::agent {

/// The names of what was granted, by id.
struct Names {
  std::map<std::uint32_t, std::string> tenants;
  std::map<std::uint32_t, std::string> services;
};

/// One direction of a lane. Counts are of the time since the last observation.
struct Way {
  std::uint64_t rate_bps = 0;  ///< of frames as the hook sees them
  std::uint64_t packets = 0;
  std::uint64_t dropped_packets = 0;
  std::uint64_t wanted_bps = 0;            ///< what it asked for lately, on the wire
  std::optional<std::uint64_t> given_bps;  ///< what it may have now, on the wire; nothing: no limit
  std::uint64_t occupancy_ns = 0;          ///< for so long what it has taken uses its rate up
};

/// A class of a tenant. Answers are those since the last observation.
struct Lane {
  std::string tenant;
  std::string cls;
  std::uint64_t weight = 0;
  std::uint64_t weight_low = 0;  ///< what one change can make of it: R1, R2
  std::uint64_t weight_high = 0;
  std::string path;
  std::uint64_t guaranteed_bps = 0;
  std::optional<std::uint64_t> ceiling_bps;
  std::uint64_t floor_percent = 0;
  Way in;
  Way out;
  std::optional<std::uint64_t> slo_ns;
  std::uint64_t samples = 0;
  std::uint64_t over_slo = 0;
  std::uint64_t missed = 0;
  std::optional<std::uint64_t> p50_ns;  ///< of the last window of answers
  std::optional<std::uint64_t> p99_ns;  ///< ... if there were a hundred
  std::uint64_t window = 0;             ///< answers in it
};

struct Tenant {
  std::string tenant;
  std::optional<std::string> failsafe;  ///< why proposals are refused
  std::uint64_t guaranteed_bps = 0;
  std::optional<std::uint64_t> ceiling_bps;  ///< with what is borrowed; nothing: the link's rate
  std::uint64_t borrowed_bps = 0;
  std::uint64_t borrow_high_bps = 0;            ///< what one change can make of that: R1, R2
  std::optional<std::uint64_t> bulk_limit_bps;  ///< the guardian's own, for an SLO
  std::uint64_t changes = 0;                    ///< in force
  std::uint64_t changes_high = 0;               ///< R4
  std::uint64_t wait_ns = 0;                    ///< R3: before the next change is let through
};

struct Observation {
  std::uint64_t tick = 0;
  std::uint64_t monotonic_ns = 0;
  std::uint64_t generation = 0;
  std::uint64_t heartbeat_ns = 0;  ///< L1: an answer is expected before that
  std::vector<Tenant> tenants;
  std::vector<Lane> lanes;
};

/// Makes observations of what the kernel wrote.
class Observer final {
 public:
  explicit Observer(Names names) : names_(std::move(names)) {}

  /// What `seen` says, beside what it said before. What has no name is left out. Valid until the next one,
  /// which is made in its place.
  const Observation& observe(const anic_observation& seen);

 private:
  Names names_;
  Observation observation_;
  std::vector<anic_observed_lane> before_ = std::vector<anic_observed_lane>(ANIC_OBSERVED_LANES);
};

}  // namespace agentnic::agent
