// SPDX-License-Identifier: Apache-2.0
#include "kern/owner_page.hpp"

#include <bpf/bpf.h>
#include <fmt/format.h>

#include <cerrno>

#include "abi/owner.h"

namespace agentnic::kern {

Result<UniqueFd> make_owner_page() {
  LIBBPF_OPTS(bpf_map_create_opts, options, .map_flags = BPF_F_MMAPABLE);
  UniqueFd page(bpf_map_create(BPF_MAP_TYPE_ARRAY, "anic_owner", sizeof(std::uint32_t), sizeof(anic_owner), 1,
                               &options));
  if (!page) return fail_errno(errno, "make the page of an owner");
  return page;
}

Status enter_owner_page(int pages_fd, std::uint32_t queue, int page_fd) {
  if (bpf_map_update_elem(pages_fd, &queue, &page_fd, BPF_ANY) != 0)
    return fail_errno(errno, fmt::format("enter the page of the owner of queue {}", queue));
  return {};
}

}  // namespace agentnic::kern
