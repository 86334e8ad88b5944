// SPDX-License-Identifier: Apache-2.0
#pragma once

/// What a tenant's class bulk may have at this moment: for programs whose packets no program at TC sees, as
/// those of RDMA devices, so that they keep to it by themselves.

#include <cstdint>
#include <string>
#include <utility>

#include "base/result.hpp"
#include "kern/bpffs.hpp"
#include "kern/maps.hpp"

namespace agentnic::kern {

/// Of an instance that is attached; what it opens is enough to go on without privileges. It goes on with the
/// last budget of an instance that was detached, or of a tenant that is no more. One thread at a time.
class BulkBudget final {
 public:
  /// Bad input when the policy in force has no such tenant.
  static Result<BulkBudget> open(const PinDir& dir, const std::string& tenant);

  /// Bit/s on the wire: the least of the ceilings of class, tenant and link and the guardian's limit, of the
  /// profile in force. 0: none is stated. What cannot be read is none of that: the answer before.
  [[nodiscard]] std::uint64_t bps() noexcept;

 private:
  BulkBudget(Maps maps, std::uint32_t tenant, std::string name)
      : maps_(std::move(maps)), tenant_(tenant), name_(std::move(name)) {}
  Result<std::uint64_t> read() const;
  Maps maps_;
  std::uint32_t tenant_;
  std::string name_;
  std::uint64_t last_bps_ = 0;
};

}  // namespace agentnic::kern
