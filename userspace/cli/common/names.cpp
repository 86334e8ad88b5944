// SPDX-License-Identifier: Apache-2.0
#include "cli/common/names.hpp"

#include <cstring>
#include <string>
#include <utility>
#include <vector>

#include "base/clock.hpp"
#include "kern/generation.hpp"
#include "kern/guardian.hpp"

namespace agentnic::cli {
namespace {

using Lookup = std::function<std::string(std::uint32_t)>;

/// The names of rows, by their place.
template <typename Rows>
Lookup by_place(const Rows& rows) {
  std::vector<std::string> names;
  for (const auto& row : rows) names.emplace_back(row.name, ::strnlen(row.name, sizeof(row.name)));
  return [names = std::move(names)](std::uint32_t id) { return id < names.size() ? names[id] : ""; };
}

}  // namespace

Result<audit::Names> read_audit_names(const kern::Maps& maps) {
  const policy::Tables tables = ANIC_TRY(kern::read_names(maps));
  const anic_guarding guarding = ANIC_TRY(kern::read_guarding(maps));
  return audit::Names{.tenant = by_place(tables.tenants),
                      .service = by_place(tables.services),
                      .agent = by_place(guarding.agents),
                      .wall_ahead_ns = static_cast<std::int64_t>(wall_ns() - monotonic_ns())};
}

}  // namespace agentnic::cli
