// SPDX-License-Identifier: Apache-2.0
#include "kern/pinned_record.hpp"

#include <bpf/bpf.h>
#include <fmt/format.h>
#include <net/if.h>
#include <unistd.h>

#include <cerrno>

#include "kern/netns.hpp"

namespace agentnic::kern {
namespace {

constexpr std::uint32_t kOnly = 0;  // the entry

}  // namespace

Status PinnedRecord::write(std::span<const std::byte> record) {
  if (!map_) map_.reset(bpf_obj_get(path_.c_str()));
  const bool is_new = !map_;
  if (is_new) {
    map_.reset(bpf_map_create(BPF_MAP_TYPE_ARRAY, name_, sizeof(kOnly),
                              static_cast<std::uint32_t>(record.size()), 1, nullptr));
  }
  if (!map_ || bpf_map_update_elem(map_.get(), &kOnly, record.data(), BPF_ANY) != 0)
    return fail_errno(errno, fmt::format("write {}", what_));
  if (is_new && bpf_obj_pin(map_.get(), path_.c_str()) != 0) return fail_errno(errno, "pin " + path_);
  return {};
}

Status PinnedRecord::clear() {
  map_.reset();
  if (::unlink(path_.c_str()) != 0 && errno != ENOENT) return fail_errno(errno, "remove " + path_);
  return {};
}

Result<bool> read_pinned(const std::string& path, std::span<std::byte> record) {
  const UniqueFd fd(bpf_obj_get(path.c_str()));
  if (!fd && errno == ENOENT) return false;
  bpf_map_info info{};
  std::uint32_t size = sizeof(info);
  if (!fd || bpf_map_get_info_by_fd(fd.get(), &info, &size) != 0) return fail_errno(errno, "open " + path);
  if (info.value_size != record.size())
    return fail(Exit::Failed,
                fmt::format("read {}: it has {} bytes, not {}", path, info.value_size, record.size()));
  if (bpf_map_lookup_elem(fd.get(), &kOnly, record.data()) != 0) return fail_errno(errno, "read " + path);
  return true;
}

Result<std::vector<std::string>> undo_inside(
    const PinDir& dir, std::uint64_t netns_cookie, std::uint32_t ifindex, const std::string& what,
    const std::function<Result<std::vector<std::string>>()>& gone,
    const std::function<Result<std::vector<std::string>>(const std::string& ifname)>& undo) {
  const auto netns = NetNs::find(dir.netns_inode, netns_cookie);
  if (!netns && NetNs::has_processes(dir.netns_inode)) {
    return fail(Exit::Failed,
                fmt::format("{}: its network namespace (inode {}) has no name here", what, dir.netns_inode),
                "run it inside that namespace: nsenter --net=/proc/PID/ns/net");
  }
  if (!netns) return gone();
  return netns->run([&]() -> Result<std::vector<std::string>> {
    char name[IF_NAMESIZE] = {};
    return ::if_indextoname(ifindex, name) == nullptr ? gone() : undo(name);
  });
}

}  // namespace agentnic::kern
