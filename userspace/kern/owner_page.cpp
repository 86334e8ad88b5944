// SPDX-License-Identifier: Apache-2.0
#include "kern/owner_page.hpp"

#include <bpf/bpf.h>
#include <fmt/format.h>

#include <cerrno>

#include "abi/owner.h"

namespace agentnic::kern {
namespace {

/// The page that is there, or nothing. Who holds it until its place has another keeps it for programs that
/// still run on it: Linux before the mend of CVE-2023-52447 does not.
UniqueFd page_of(int pages_fd, std::uint32_t queue) {
  std::uint32_t id = 0;
  if (bpf_map_lookup_elem(pages_fd, &queue, &id) != 0) return {};
  return UniqueFd(bpf_map_get_fd_by_id(id));
}

}  // namespace

Result<UniqueFd> make_owner_page() {
  LIBBPF_OPTS(bpf_map_create_opts, options, .map_flags = BPF_F_MMAPABLE);
  UniqueFd page(bpf_map_create(BPF_MAP_TYPE_ARRAY, "anic_owner", sizeof(std::uint32_t), sizeof(anic_owner), 1,
                               &options));
  if (!page) return fail_errno(errno, "make the page of an owner");
  return page;
}

Status enter_owner_page(int pages_fd, std::uint32_t queue, int page_fd) {
  const UniqueFd before = page_of(pages_fd, queue);
  if (bpf_map_update_elem(pages_fd, &queue, &page_fd, BPF_ANY) != 0)
    return fail_errno(errno, fmt::format("enter the page of the owner of queue {}", queue));
  return {};
}

void leave_owner_page(int pages_fd, std::uint32_t queue) {
  const UniqueFd before = page_of(pages_fd, queue);
  bpf_map_delete_elem(pages_fd, &queue);
}

}  // namespace agentnic::kern
