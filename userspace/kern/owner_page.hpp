// SPDX-License-Identifier: Apache-2.0
#pragma once

/// Pages of owners of AF_XDP sockets: bpf/abi/owner.h.

#include <cstdint>
#include <map>

#include "abi/owner.h"
#include "base/result.hpp"
#include "base/unique_fd.hpp"

namespace agentnic::kern {

/// The pinned maps that whoever will own a queue is entered into.
struct XskSlots {
  UniqueFd sockets;  ///< an XSKMAP
  UniqueFd pages;    ///< of their owners
};

/// A map with one page, for a new owner, who maps it.
Result<UniqueFd> make_owner_page();

/// Puts it where XDP looks for that of this queue. Only when its owner's socket is bound, so that there is no
/// other, and before the socket is in its own map. It stays when its owner is gone, until there is the next.
Status enter_owner_page(int pages_fd, std::uint32_t queue, int page_fd);

/// All that are there, by queue. Takes CAP_SYS_ADMIN.
std::map<std::uint32_t, UniqueFd> open_owner_pages(int pages_fd);

/// As it is now.
Result<anic_owner> read_owner_page(int page_fd);

/// Puts a bound socket into the slot of its queue: from now on it receives.
Status enter_socket(int sockets_fd, std::uint32_t queue, int socket_fd);

/// Both, with a new page, which is for the socket's owner. Until its owner has mapped it, frames take path A.
Result<UniqueFd> enter_owner(const XskSlots& slots, std::uint32_t queue, int socket_fd);

}  // namespace agentnic::kern
