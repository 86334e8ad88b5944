// SPDX-License-Identifier: Apache-2.0
#include "kern/maps.hpp"

#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <span>
#include <utility>

#include "base/file.hpp"

namespace agentnic::kern {
namespace {

constexpr std::size_t kMapIdsMax = 64;

}  // namespace

Result<Maps> Maps::pinned(const PinDir& dir) {
  Maps maps;
  for (const std::string& name : list_folder(dir.path())) {
    if (!name.starts_with("anic_")) continue;  // links and programs have other names
    UniqueFd fd(bpf_obj_get(dir.pin(name.c_str()).c_str()));
    if (!fd) return fail_errno(errno, "open the pin " + dir.pin(name.c_str()));
    maps.add(name, std::move(fd));
  }
  return maps;
}

int Maps::fd(std::string_view name) const {
  const auto found = fds_.find(name);
  return found == fds_.end() ? -1 : found->second.get();
}

Result<Maps> Maps::pinned_to_read(const PinDir& dir, std::span<const char* const> names) {
  LIBBPF_OPTS(bpf_obj_get_opts, options, .file_flags = BPF_F_RDONLY);
  Maps maps;
  for (const char* name : names) {
    UniqueFd fd(bpf_obj_get_opts(dir.pin(name).c_str(), &options));
    if (!fd) return fail_errno(errno, "open the pin " + dir.pin(name));
    maps.add(name, std::move(fd));
  }
  return maps;
}

Status Maps::read_element(std::string_view name, std::uint32_t index, void* value) const {
  if (bpf_map_lookup_elem(fd(name), &index, value) != 0)
    return fail_errno(errno, fmt::format("read entry {} of map {}", index, name));
  return {};
}

Status Maps::write_element(std::string_view name, std::uint32_t index, const void* value) const {
  if (bpf_map_update_elem(fd(name), &index, value, BPF_ANY) != 0)
    return fail_errno(errno, fmt::format("write entry {} of map {}", index, name));
  return {};
}

std::uint32_t map_id(int map_fd) {
  bpf_map_info info{};
  std::uint32_t size = sizeof(info);
  return bpf_map_get_info_by_fd(map_fd, &info, &size) == 0 ? info.id : 0;
}

bool uses_map(int prog_fd, std::uint32_t map_id) {
  std::array<std::uint32_t, kMapIdsMax> ids{};
  bpf_prog_info info{};
  info.nr_map_ids = ids.size();
  info.map_ids = reinterpret_cast<std::uintptr_t>(ids.data());
  std::uint32_t size = sizeof(info);
  if (bpf_prog_get_info_by_fd(prog_fd, &info, &size) != 0) return false;
  const auto used = std::span(ids).first(std::min<std::size_t>(info.nr_map_ids, ids.size()));
  return std::ranges::find(used, map_id) != used.end();
}

unsigned possible_cpus() {
  const int count = libbpf_num_possible_cpus();
  return count > 0 ? static_cast<unsigned>(count) : 1;
}

}  // namespace agentnic::kern
