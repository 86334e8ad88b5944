// SPDX-License-Identifier: Apache-2.0
#pragma once

/// What traffic control has on an interface: its root qdisc, and the filters of clsact. Those are how
/// programs sit at TC where the kernel has no tcx. They have no link and stay when their maker ends, so they
/// are found again by the map that their program uses. Call inside the interface's network namespace.

#include <cstdint>
#include <string>
#include <vector>

#include "abi/types.h"
#include "base/result.hpp"
#include "kern/interface.hpp"

namespace agentnic::kern {

/// One BPF filter of a clsact qdisc.
struct TcFilter {
  anic_direction direction = ANIC_DIRECTION_IN;
  std::uint32_t handle = 0;
  std::uint32_t priority = 0;
  std::uint32_t prog_id = 0;  ///< 0: not a BPF filter
};

Result<bool> has_clsact(std::uint32_t ifindex);

/// What is at the root of an interface's egress.
struct RootQdisc {
  std::string kind = "noqueue";
  bool keeps_times = false;  ///< fq, or mq with nothing but fq below it: packets wait until they may leave
};
Result<RootQdisc> root_qdisc(std::uint32_t ifindex);

/// All filters there are, of anybody.
Result<std::vector<TcFilter>> clsact_filters(std::uint32_t ifindex);

/// Those whose program uses the map with this id.
Result<std::vector<TcFilter>> clsact_filters_of(std::uint32_t ifindex, std::uint32_t map_id);

/// Makes the qdisc unless it is there, and adds a filter in direct-action mode.
Status clsact_attach(const Interface& interface, anic_direction direction, int prog_fd);

/// Puts another program in the place of a filter's, at once.
Status clsact_replace(std::uint32_t ifindex, const TcFilter& filter, int prog_fd);

Status clsact_detach(std::uint32_t ifindex, const TcFilter& filter);

/// Removes the qdisc if no filter is left in it.
Status clsact_remove_if_empty(std::uint32_t ifindex);

}  // namespace agentnic::kern
