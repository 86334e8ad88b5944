// SPDX-License-Identifier: Apache-2.0
#include "cli/common/names.hpp"

#include <cstring>
#include <string>

#include "base/clock.hpp"
#include "kern/generation.hpp"
#include "kern/guardian.hpp"

namespace agentnic::cli {
namespace {

/// The names of rows, by their place.
template <typename Rows>
std::map<std::uint32_t, std::string> by_place(const Rows& rows) {
  std::map<std::uint32_t, std::string> names;
  std::uint32_t id = 0;
  for (const auto& row : rows) {
    if (row.name[0] != '\0') names[id] = std::string(row.name, ::strnlen(row.name, sizeof(row.name)));
    ++id;
  }
  return names;
}

}  // namespace

Result<audit::NameBook> read_name_book(const kern::Maps& maps) {
  const policy::Tables tables = ANIC_TRY(kern::read_names(maps));
  const anic_guarding guarding = ANIC_TRY(kern::read_guarding(maps));
  return audit::NameBook{.first = 0,
                         .tenants = by_place(tables.tenants),
                         .services = by_place(tables.services),
                         .agents = by_place(guarding.agents)};
}

Result<audit::Names> read_audit_names(const kern::Maps& maps) {
  return audit::names_of(ANIC_TRY(read_name_book(maps)),
                         static_cast<std::int64_t>(wall_ns() - monotonic_ns()));
}

}  // namespace agentnic::cli
