// SPDX-License-Identifier: Apache-2.0
#pragma once

/// Receive queues of a NIC set aside for AF_XDP zero-copy or for zero-copy receive of io_uring: out of RSS,
/// and fed by flow rules alone, so that an owner who stalls starves its own services and nothing else. The
/// records of what was changed are pinned maps, written before the first change: whatever stops in between,
/// give_back() undoes.

#include <cstdint>
#include <string>
#include <vector>

#include "abi/header_split.h"
#include "abi/queues.h"
#include "base/result.hpp"
#include "kern/bpffs.hpp"
#include "kern/netns.hpp"
#include "kern/queue_device.hpp"
#include "kern/queue_plan.hpp"

namespace agentnic::kern {

/// Reads the NIC and plans. Needs no privileges and changes nothing: ethtool_lines() of it is a dry run.
Result<QueuePlan> plan_queues(const NetNs& netns, const std::string& ifname,
                              const std::vector<std::uint32_t>& queues,
                              const std::vector<QueueService>& services);

/// The same for zero-copy receive of io_uring, of TCP services. Unsupported names all that is missing, an XDP
/// program on the interface included: agentnic must be attached with --mode tc.
Result<QueuePlan> plan_receive(const NetNs& netns, const std::string& ifname,
                               const std::vector<std::uint32_t>& queues,
                               const std::vector<QueueService>& services);

/// Does what was planned, for the instance that is attached with these pins. On failure the NIC is as before,
/// or the error says what is not. An instance has one plan at a time.
Status set_aside(const NetNs& netns, const QueuePlan& plan, const PinDir& dir);

/// Undoes it, or what an interrupted set_aside() or give_back() left; nothing to do is no error, and neither
/// is an interface that is gone. What somebody has changed since is left as it is: the notes say which. While
/// a ring receives with zero-copy, header/data split cannot be put back: that is an error, and its record
/// stays. detach_instance() does this too.
Result<std::vector<std::string>> give_back(const PinDir& dir);
/// The same for who holds the lock of the pins.
Result<std::vector<std::string>> give_back_locked(const PinDir& dir);

/// Whether zero-copy of this purpose may be had on a queue: all that was planned is in place, and RSS does
/// not send there now either.
bool is_set_aside(const PinDir& dir, std::uint32_t queue, Purpose purpose = Purpose::Xsk);

/// Whether there is a record, be it half done.
bool has_queues_aside(const PinDir& dir);

/// Where the records are kept.
class AsideStore {
 public:
  AsideStore() = default;
  AsideStore(const AsideStore&) = delete;
  AsideStore& operator=(const AsideStore&) = delete;
  virtual ~AsideStore() = default;

  virtual Status write(const anic_aside& record) = 0;
  virtual Status write_split(const anic_split& record) = 0;
  virtual Status clear() = 0;
  virtual Status clear_split() = 0;
};

/// set_aside() and give_back() on any device: where the order of steps is. `record` and `split` come with
/// their namespace and interface; `split` is left alone unless the plan states it. To undo, either may be
/// absent.
Status apply_plan(QueueDevice& device, AsideStore& store, const QueuePlan& plan, anic_aside& record,
                  anic_split& split);
Result<std::vector<std::string>> undo_records(QueueDevice& device, AsideStore& store,
                                              const anic_aside* record, const anic_split* split);

}  // namespace agentnic::kern
