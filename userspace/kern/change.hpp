// SPDX-License-Identifier: Apache-2.0
#pragma once

/// What changes under a running instance: its policy (update), its programs (upgrade). Both leave what was in
/// force in force, unless they succeed; counters and flows stay.

#include <cstdint>
#include <string>
#include <vector>

#include "base/result.hpp"
#include "kern/instance.hpp"

namespace agentnic::kern {

struct UpdateReport {
  bool already = false;  ///< this policy is in force; nothing changed
  std::uint32_t before = 0;
  std::uint32_t generation = 0;          ///< that is in force now, or would be
  std::vector<std::string> differences;  ///< one a line
  std::vector<std::string> notes;
};

/// Puts another policy in force, for all packets at once. `dry_run`: only says what would change.
Result<UpdateReport> update_instance(const NetNs& netns, const std::string& ifname,
                                     const policy::Policy& policy, bool dry_run);

struct UpgradeReport {
  std::uint32_t old_prog_id = 0;  ///< of the ingress program
  std::uint32_t prog_id = 0;
  std::vector<std::string> notes;
};

/// Puts this build's programs in the place of those that run, each at once. Unsupported, and the old ones
/// run on, if they do not fit the pinned maps.
Result<UpgradeReport> upgrade_instance(const NetNs& netns, const std::string& ifname);

}  // namespace agentnic::kern
