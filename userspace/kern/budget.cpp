// SPDX-License-Identifier: Apache-2.0
#include "kern/budget.hpp"

#include <fmt/format.h>

#include <cstring>
#include <string_view>
#include <utility>

#include "abi/guardian.h"
#include "abi/lane.h"
#include "kern/generation.hpp"
#include "policy/text.hpp"

namespace agentnic::kern {
namespace {

constexpr const char* kMaps[] = {"anic_state", "anic_lanes", "anic_modes", "anic_wards", "anic_tenants"};

/// The least of limits, of which 0 is none.
std::uint64_t least(std::initializer_list<std::uint64_t> limits) {
  std::uint64_t found = 0;
  for (const std::uint64_t limit : limits) {
    if (limit != 0 && (found == 0 || limit < found)) found = limit;
  }
  return found;
}

}  // namespace

Result<BulkBudget> BulkBudget::open(const PinDir& dir, const std::string& tenant) {
  const policy::Ids ids = ids_of(ANIC_TRY(read_names(ANIC_TRY(Maps::pinned(dir)))));
  const auto found = ids.tenants.find(tenant);
  if (found == ids.tenants.end())
    return fail(Exit::BadInput,
                fmt::format("the policy in force has no tenant {}", policy::json_text(tenant)));
  BulkBudget made(ANIC_TRY(Maps::pinned_to_read(dir, kMaps)), found->second, tenant);
  made.last_bps_ = ANIC_TRY(made.read());
  return made;
}

Result<std::uint64_t> BulkBudget::read() const {
  anic_state state{};
  anic_modes modes{};
  anic_ward ward{};
  ANIC_TRY(maps_.read("anic_state", 0, state));
  ANIC_TRY(maps_.read("anic_modes", 0, modes));
  ANIC_TRY(maps_.read("anic_wards", tenant_, ward));
  const bool failsafe =
      ANIC_MODE_FAILSAFE(modes.words[0]) != 0 || ANIC_MODE_FAILSAFE(modes.words[tenant_]) != 0;
  const std::uint32_t slot = static_cast<std::uint32_t>(state.word) % ANIC_SLOTS;
  anic_tenant named{};
  ANIC_TRY(maps_.read("anic_tenants", slot * ANIC_TENANTS_MAX + tenant_, named));
  if (std::string_view(named.name, ::strnlen(named.name, sizeof(named.name))) != name_)
    return fail(Exit::Failed, "the policy in force has no tenant " + name_);
  const std::uint32_t first =
      (slot * ANIC_PROFILE__MAX + (failsafe ? ANIC_PROFILE_FALLBACK : ANIC_PROFILE_TUNED)) * ANIC_LANES_MAX;
  const auto ceiling = [&](std::uint32_t tenant, std::uint32_t cls) -> Result<std::uint64_t> {
    anic_lane lane{};
    ANIC_TRY(maps_.read("anic_lanes", first + ANIC_LANE(tenant, cls), lane));
    return lane.ceiling_bps;
  };
  return least({ANIC_TRY(ceiling(tenant_, ANIC_CLASS_BULK)), ANIC_TRY(ceiling(tenant_, ANIC_CLASS_NONE)),
                ANIC_TRY(ceiling(0, ANIC_CLASS_NONE)), ward.bulk_bps});
}

std::uint64_t BulkBudget::bps() noexcept {
  if (const auto now = read()) last_bps_ = *now;
  return last_bps_;
}

}  // namespace agentnic::kern
