// SPDX-License-Identifier: Apache-2.0
#pragma once

/// Random work for the guardian: policies with envelopes of all sizes, proposals near each of their bounds,
/// malformed ones, and times at which something ends.

#include <cstddef>
#include <cstdint>
#include <random>

#include "guardian.hpp"
#include "policy/model.hpp"

namespace agentnic::model {

/// Everything follows from the seed.
class GuardianRandom final {
 public:
  explicit GuardianRandom(std::uint32_t seed) : engine_(seed) {}

  /// Less than `end`.
  std::uint64_t below(std::uint64_t end) { return engine_() % end; }
  bool one_in(std::uint64_t n) { return below(n) == 0; }

  /// Valid, of few names.
  policy::Policy policy();

  /// Some CPUs of lanes that are spread: none instead.
  void unspread(policy::Tables& tables);

  /// Mostly a proposal, which mostly makes sense.
  Sample sample(const Guardian& model, std::uint64_t cookie);

  /// Tenants mostly of the policy; what is asked for mostly everything.
  anic_order opening(const Guardian& model);

  /// The next time: often one at which something ends, or just before or after it.
  std::uint64_t later(const Guardian& model, std::uint64_t now_ns);

  /// The id of a tenant of the policy, or 0: of none.
  std::uint32_t tenant(const Guardian& model);

 private:
  template <typename T>
  T any_of(std::initializer_list<T> values) {
    return values.begin()[below(values.size())];
  }
  std::uint64_t about(std::uint64_t value) { return value + any_of<std::uint64_t>({~0ULL, 0, 0, 1}); }

  anic_envelope envelope(std::uint64_t link_bps);
  void add_tenants(policy::Policy& policy);
  void add_services(policy::Policy& policy);
  void add_cpus(policy::Policy& policy);
  void add_agents(policy::Policy& policy);
  anic_proposal proposal(const Guardian& model);
  void set_scope(anic_proposal& proposal);
  bool turn_back(const Guardian& model, anic_proposal& proposal);
  std::uint64_t value(const Guardian& model, const anic_proposal& proposal);
  std::uint64_t weight(const Guardian& model, const anic_proposal& proposal);
  std::uint64_t throttle(const Guardian& model, const anic_proposal& proposal);
  std::uint64_t borrow(const Guardian& model, const anic_proposal& proposal);
  void break_something(anic_proposal& proposal);

  std::mt19937_64 engine_;
};

}  // namespace agentnic::model
