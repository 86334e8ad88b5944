// SPDX-License-Identifier: Apache-2.0
#pragma once

/// What must change in a NIC so that some of its receive queues get the packets of some services and nothing
/// else: found from what was read of the NIC, without touching it. docs/decisions/0023-queues-set-aside.md
/// says why it is done in this way, 0027-zero-copy-receive-queues.md what io_uring takes beyond AF_XDP.

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "abi/queues.h"
#include "abi/types.h"
#include "base/result.hpp"
#include "policy/model.hpp"

namespace agentnic::kern {

/// A receive queue for each hash value. Empty: the NIC has none that could be read.
using RssTable = std::vector<std::uint32_t>;

/// Of UDP or TCP packets whose ports are these in the bits of the masks, all go to the queue. Host byte
/// order.
struct FlowRule {
  std::uint8_t version = 4;  ///< of IP: 4 or 6
  std::uint8_t protocol = 0;
  std::uint16_t source_port = 0;
  std::uint16_t source_mask = 0;  ///< 0: any
  std::uint16_t destination_port = 0;
  std::uint16_t destination_mask = 0;
  std::uint32_t queue = 0;

  bool operator==(const FlowRule&) const = default;
  /// The same packets, whatever becomes of them.
  [[nodiscard]] bool matches_same(const FlowRule& other) const;
  /// Some packets are of both.
  [[nodiscard]] bool meets(const FlowRule& other) const;
};

/// A rule that a NIC has, anybody's.
struct RuleThere {
  std::uint32_t location = 0;
  std::vector<std::uint32_t> queues;  ///< that it can send to; several by an RSS context; none: it drops
  std::optional<FlowRule> rule;       ///< nothing: it says more than a FlowRule can
};

struct RuleTable {
  std::uint32_t size = 0;         ///< locations; 0: the driver does not say
  bool chooses_location = false;  ///< the driver, for each new rule
  std::vector<RuleThere> rules;
};

/// Whether a NIC writes headers and data into separate buffers, as it is read; what was stated and what the
/// driver chose look the same. As it is set: Unstated lets the driver choose.
enum class SplitMode : std::uint8_t { Unstated, Off, On };
struct HeaderSplit {
  SplitMode mode = SplitMode::Unstated;  ///< Unstated: the driver has none
  std::optional<std::uint32_t>
      threshold;  ///< bytes of a packet that is not split; nothing: there is no such limit

  bool operator==(const HeaderSplit&) const = default;
};

/// Who takes the buffers of the queues that are set aside.
enum class Purpose : std::uint8_t {
  Xsk,      ///< owners of AF_XDP sockets
  Receive,  ///< rings of io_uring that receive TCP with zero-copy
};

/// What was read of a NIC.
struct NicQueues {
  std::string ifname;
  std::string driver;
  std::uint32_t queues = 1;
  RssTable table;
  bool ntuple_on = false;
  bool ntuple_can_change = false;
  std::optional<RuleTable> rules;  ///< nothing: the driver gave none, which may be because ntuple is off
  HeaderSplit header_split;
  bool has_xdp = false;  ///< a program, in whatever mode
};

/// A service whose packets belong on the queues.
struct QueueService {
  std::string name;
  std::uint8_t protocol = 0;
  std::uint16_t port = 0;
  anic_role role = ANIC_ROLE_SERVER;
};

/// The steps, in this order: header/data split is stated, ntuple is turned on, the table changes, then each
/// rule is added. All is undone in the opposite one.
struct QueuePlan {
  std::string ifname;
  std::string driver;
  Purpose purpose = Purpose::Xsk;
  std::vector<std::uint32_t> queues;  ///< that are set aside, in order
  bool turns_ntuple_on = false;
  RssTable before;
  RssTable after;                ///< the same as before: it does not change
  bool table_is_default = true;  ///< before: by its look, for the kernel does not tell
  std::vector<FlowRule> rules;
  HeaderSplit split_before;  ///< of Purpose::Receive

  /// That a threshold is set, to 0.
  [[nodiscard]] bool sets_threshold() const { return split_before.threshold.value_or(0) != 0; }
};

/// What sets `queues` aside for `services`. Unsupported: the NIC lacks what it takes, which is named; for
/// Purpose::Receive all of it. Bad input: it has it, and not for these queues.
Result<QueuePlan> plan_queues(const NicQueues& nic, const std::vector<std::uint32_t>& queues,
                              const std::vector<QueueService>& services, Purpose purpose = Purpose::Xsk);

/// Whether there is room for the plan's rules, and no rule of somebody else in their way.
Status check_rules(const NicQueues& nic, const QueuePlan& plan);

/// The table without `queues`: what was theirs is spread over the others, by their own shares.
RssTable spread_over_others(const RssTable& table, std::uint32_t queue_count,
                            const std::vector<std::uint32_t>& queues);

/// The table that a driver has when nobody has set one: all queues in turn.
bool is_default_table(const RssTable& table, std::uint32_t queue_count);

/// Each step as a command line of ethtool that comes to the same: shares of the table, not its very entries.
std::vector<std::string> ethtool_lines(const QueuePlan& plan);

}  // namespace agentnic::kern
