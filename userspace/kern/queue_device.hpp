// SPDX-License-Identifier: Apache-2.0
#pragma once

/// The receive queues of a NIC as its driver lets them be read and set: features and header/data split over
/// netlink, the RSS table and flow rules by ioctl, which is all that every kernel since 6.1 has for them
/// (docs/decisions/0023-queues-set-aside.md).

#include <cstdint>
#include <memory>
#include <optional>
#include <string>

#include "base/result.hpp"
#include "kern/queue_plan.hpp"

namespace agentnic::kern {

/// What can be done to a NIC, one step each. Tests have one that fails and dies where they want.
class QueueDevice {
 public:
  QueueDevice() = default;
  QueueDevice(const QueueDevice&) = delete;
  QueueDevice& operator=(const QueueDevice&) = delete;
  virtual ~QueueDevice() = default;

  /// Needs no privileges.
  virtual Result<NicQueues> read() = 0;
  virtual Status set_ntuple(bool on) = 0;
  virtual Status set_table(const RssTable& table) = 0;
  virtual Status set_default_table() = 0;
  /// At a location, or ANIC_LOCATION_NONE where the driver chooses it; the one that it has then.
  virtual Result<std::uint32_t> add_rule(const FlowRule& rule, std::uint32_t location) = 0;
  /// One that is not there is none to remove.
  virtual Status remove_rule(std::uint32_t location) = 0;
  /// Of all queues. A threshold that is absent stays as it is.
  virtual Status set_header_split(SplitMode mode, std::optional<std::uint32_t> threshold) = 0;
};

/// The real one, in the calling thread's namespace, in which it must be used. Holds one socket.
Result<std::unique_ptr<QueueDevice>> open_queue_device(const std::string& ifname);

}  // namespace agentnic::kern
