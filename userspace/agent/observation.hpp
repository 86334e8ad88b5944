// SPDX-License-Identifier: Apache-2.0
#pragma once

/// What an agent sees, in words and units of its own: names instead of ids, rates instead of counts, and what
/// the envelope leaves room for. Pure.

#include <array>
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

/// The CPUs that the policy spreads a class over: bucket n goes to number n modulo how many there are.
struct Spread {
  std::string tenant;
  std::string cls;
  std::vector<std::uint64_t> cpus;
};

/// One direction of a lane. Counts are of the time since the last observation; of a lane that was not looked
/// at they are 0, and the rate is that of the last time.
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
  std::optional<std::uint64_t> age_ns;  ///< since it was looked at; nothing: nobody wrote it down
  Way in;
  Way out;
  std::optional<std::uint64_t> slo_ns;
  std::uint64_t samples = 0;
  std::uint64_t over_slo = 0;
  std::optional<double> over_slo_percent;  ///< of samples, if there were any
  std::uint64_t missed = 0;
  std::optional<std::uint64_t> p50_ns;  ///< of the last window of answers
  std::optional<std::uint64_t> p99_ns;  ///< ... if there were a hundred
  std::uint64_t window = 0;             ///< answers in it
};

/// A service that is treated as another class than the policy says.
struct Escalation {
  std::string service;
  std::string cls;
};

/// A bucket of a class that goes to another CPU than the policy says.
struct Rebalance {
  std::string cls;
  std::uint64_t bucket = 0;
  std::uint64_t cpu = 0;
};

struct Tenant {
  std::string tenant;
  std::optional<std::string> failsafe;  ///< why proposals are refused
  std::uint64_t guaranteed_bps = 0;
  std::optional<std::uint64_t> ceiling_bps;  ///< with what is borrowed; nothing: the link's rate
  std::uint64_t borrowed_bps = 0;
  std::uint64_t borrow_high_bps = 0;            ///< what one change can make of that: R1, R2
  std::optional<std::uint64_t> bulk_limit_bps;  ///< the guardian's own, for an SLO
  std::optional<std::uint64_t> bulk_low_bps;   ///< what one change can make of its bulk's ceiling: R1, R2, I2
  std::optional<std::uint64_t> bulk_high_bps;  ///< ... nothing: bulk is not granted, or no rate is stated
  std::vector<Escalation> escalations;         ///< in force
  std::vector<Rebalance> rebalances;           ///< in force
  std::optional<std::uint64_t> duration_high_ns;  ///< R6: for so long borrowing and escalation can be asked
  std::uint64_t changes = 0;                      ///< in force
  std::uint64_t changes_high = 0;                 ///< R4
  std::uint64_t wait_ns = 0;                      ///< R3: before the next change is let through
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
  /// A lane as it was, and the rates that were made of it.
  struct Before {
    anic_observed_lane row{};
    std::array<std::uint64_t, ANIC_DIRECTION__MAX> rates_bps{};
  };
  void make_tenant(Tenant& tenant, const std::string& name, const anic_observed_tenant& row,
                   const anic_observation& seen) const;

  Names names_;
  Observation observation_;
  std::vector<Before> before_ = std::vector<Before>(ANIC_OBSERVED_LANES);
};

}  // namespace agentnic::agent
