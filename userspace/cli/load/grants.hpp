// SPDX-License-Identifier: Apache-2.0
#pragma once

/// Who may own AF_XDP sockets, and making them.

#include <sys/types.h>

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "abi/owner.h"
#include "base/result.hpp"
#include "kern/generation.hpp"
#include "kern/instance.hpp"
#include "kern/owner_page.hpp"
#include "path/xsk/wire.hpp"

namespace agentnic::cli {

/// A queue brings its owner the packets of every xsk service, so that its owner must be that of all of them.
Status may_own(const std::vector<kern::XskService>& services, const std::string& service, uid_t uid);

/// Makes the sockets of one interface, inside whose namespace it works. Keeps no socket; pages it keeps, to
/// read them.
class Grants final {
 public:
  /// Of an attached instance, with all privileges; what comes later takes CAP_NET_RAW, CAP_NET_ADMIN,
  /// CAP_BPF and CAP_IPC_LOCK.
  /// `steered`: queues that RSS does not feed, though it was not us who saw to that.
  static Result<Grants> open(const kern::NetNs& netns, const kern::InstanceStatus& status,
                             std::vector<std::uint32_t> steered, std::uint32_t frames_max);

  [[nodiscard]] Result<std::vector<kern::XskService>> services() const;
  /// Bound and entered: from here on packets come to them, or take path A as long as nobody looks.
  Result<path::XskGrant> make(const path::XskRequest& request, uid_t uid);

  /// The pages of owners by queue, as they are now; owners that are gone are among them.
  [[nodiscard]] std::map<std::uint32_t, anic_owner> pages() const;
  /// Whether it is still there to be served: nothing, or what became of it, and how bad that is.
  [[nodiscard]] std::optional<Error> ended() const;

  [[nodiscard]] const std::string& ifname() const noexcept { return ifname_; }

 private:
  Grants() = default;
  /// Whether zero-copy is for this queue: it takes the buffers of all that comes on it.
  [[nodiscard]] bool is_aside(std::uint32_t queue) const;
  [[nodiscard]] Result<std::vector<std::uint32_t>> candidates(const path::XskRequest& request) const;
  [[nodiscard]] Result<path::XskGrant> bind(const path::XskRequest& request) const;

  kern::PinDir dir_;
  std::string ifname_;
  std::uint32_t ifindex_ = 0;
  std::uint64_t pin_inode_ = 0;
  kern::Maps maps_;  ///< to read which services there are
  kern::XskSlots slots_;
  std::map<std::uint32_t, UniqueFd> pages_;
  std::vector<std::uint32_t> steered_;
  std::uint32_t frames_max_ = 0;
};

}  // namespace agentnic::cli
