// SPDX-License-Identifier: Apache-2.0
#pragma once

/// Which records somebody wants to see. Pure.

#include <cstdint>
#include <optional>
#include <string>

#include "abi/audit.h"
#include "audit/sentence.hpp"
#include "base/result.hpp"

namespace agentnic::audit {

struct Filter {
  std::string tenant;          ///< name, or empty: all
  std::uint8_t kind = 0;       ///< enum anic_record_kind, or 0
  std::uint8_t invariant = 0;  ///< enum anic_invariant that decided, or rewrote; or 0
  std::uint64_t since_ns = 0;  ///< wall clock
  std::uint64_t until_ns = UINT64_MAX;

  [[nodiscard]] bool lets(const anic_record& record, const Names& names) const;
};

/// The words of the command line; empty ones ask for nothing. Times are `2026-11-26T10:00:00Z`, or `10m`: so
/// long before `now_ns`.
struct FilterWords {
  std::string tenant;
  std::string kind;
  std::string invariant;
  std::string since;
  std::string until;

  [[nodiscard]] bool nothing() const {
    return tenant.empty() && kind.empty() && invariant.empty() && since.empty() && until.empty();
  }
};
Result<Filter> parse_filter(const FilterWords& words, std::uint64_t now_ns);

}  // namespace agentnic::audit
