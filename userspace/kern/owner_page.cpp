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

std::map<std::uint32_t, UniqueFd> open_owner_pages(int pages_fd) {
  std::map<std::uint32_t, UniqueFd> pages;
  bpf_map_info info{};
  std::uint32_t size = sizeof(info);
  if (bpf_map_get_info_by_fd(pages_fd, &info, &size) != 0) return pages;
  for (std::uint32_t queue = 0; queue < info.max_entries; ++queue)
    if (UniqueFd page = page_of(pages_fd, queue)) pages.emplace(queue, std::move(page));
  return pages;
}

Result<anic_owner> read_owner_page(int page_fd) {
  anic_owner page{};
  const std::uint32_t zero = 0;
  if (bpf_map_lookup_elem(page_fd, &zero, &page) != 0) return fail_errno(errno, "read the page of an owner");
  return page;
}

Status enter_socket(int sockets_fd, std::uint32_t queue, int socket_fd) {
  if (bpf_map_update_elem(sockets_fd, &queue, &socket_fd, BPF_ANY) != 0)
    return fail_errno(errno, fmt::format("enter the AF_XDP socket of queue {} into its map", queue));
  return {};
}

Result<UniqueFd> enter_owner(const XskSlots& slots, std::uint32_t queue, int socket_fd) {
  UniqueFd page = ANIC_TRY(make_owner_page());
  ANIC_TRY(enter_owner_page(slots.pages.get(), queue, page.get()));
  ANIC_TRY(enter_socket(slots.sockets.get(), queue, socket_fd));
  return page;
}

}  // namespace agentnic::kern
