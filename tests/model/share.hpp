// SPDX-License-Identifier: Apache-2.0
#pragma once

/// The reference model of quotas, for one direction of one interface on one CPU: docs/quotas.md, as plainly
/// as it says it.

#include <array>
#include <cstdint>
#include <optional>
#include <span>

#include "abi/lane.h"
#include "policy/compile.hpp"
#include "policy/model.hpp"

namespace agentnic::model {

class Shares final {
 public:
  /// A new policy: rates are shared out, and what is leased is void.
  void install(const policy::Policy& policy, const policy::Ids& ids, std::uint64_t now_ns);

  /// What the tick does.
  void share_out(std::uint64_t now_ns);

  /// Whether a packet of so many wire bytes passes.
  bool police(std::uint32_t lane, std::uint64_t wire, std::uint64_t now_ns);

  /// When a packet may leave, 0: at once, nothing: never.
  std::optional<std::uint64_t> pace(std::uint32_t lane, std::uint64_t wire, std::uint64_t now_ns);

 private:
  struct Bucket {
    std::uint64_t rate = 0;  ///< 0: no limit
    std::int64_t paid = 0;   ///< until when, in 1/64 ns
  };
  struct Lane {
    // of the policy
    std::uint64_t least = 0;
    std::uint64_t most = 0;
    std::uint64_t weight = 0;
    // what it is given
    Bucket bucket;
    // what it asked for
    std::uint64_t bytes = 0;
    std::uint64_t since_ns = 0;
    std::uint64_t wanted = 0;
    bool hungry = false;
    std::uint64_t lease = 0;
  };
  struct Tenant {
    std::uint64_t least = 0;
    std::uint64_t most = 0;
    std::uint64_t weight = 0;
    Bucket bucket;
  };
  struct Claim {
    std::uint64_t least;
    std::uint64_t most;
    std::uint64_t wants;
    std::uint64_t weight;
    std::uint64_t rate;
  };

  static void set_rate(Bucket& bucket, std::uint64_t rate, std::uint64_t now_ns);
  static void share(std::uint64_t total, std::span<Claim> claims);
  static std::optional<std::uint64_t> take(Bucket& bucket, std::uint64_t bytes, std::uint64_t now_ns,
                                           std::uint64_t hold_ns, std::uint64_t patience_ns);
  std::optional<std::uint64_t> take_both(std::uint32_t id, std::uint64_t bytes, std::uint64_t now_ns,
                                         std::uint64_t hold_ns, std::uint64_t patience_ns);

  std::uint64_t link_ = 0;
  std::array<Tenant, ANIC_TENANTS_MAX> tenants_;
  std::array<Lane, ANIC_LANES_MAX> lanes_;
};

}  // namespace agentnic::model
