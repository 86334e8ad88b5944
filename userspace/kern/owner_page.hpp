// SPDX-License-Identifier: Apache-2.0
#pragma once

/// Pages of owners of AF_XDP sockets: bpf/abi/owner.h.

#include <cstdint>

#include "base/result.hpp"
#include "base/unique_fd.hpp"

namespace agentnic::kern {

/// A map with one page, for a new owner, who maps it.
Result<UniqueFd> make_owner_page();

/// Puts it where XDP looks for that of this queue. Only when its owner's socket is bound, so that there is no
/// other, and before the socket is in its own map.
Status enter_owner_page(int pages_fd, std::uint32_t queue, int page_fd);

/// Takes it away again, before its owner's socket is closed. A page whose owner was killed stays, and governs
/// what gets into its queue's slot without a page of its own.
void leave_owner_page(int pages_fd, std::uint32_t queue);

}  // namespace agentnic::kern
