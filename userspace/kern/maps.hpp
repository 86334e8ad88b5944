// SPDX-License-Identifier: Apache-2.0
#pragma once

/// The maps of one instance, by name: those of an object that was just loaded, or pinned ones.

#include <cstdint>
#include <functional>
#include <map>
#include <span>
#include <string>

#include "base/result.hpp"
#include "base/unique_fd.hpp"
#include "kern/bpffs.hpp"

namespace agentnic::kern {

/// Owns a descriptor for each map.
class Maps final {
 public:
  /// Every map that is pinned in the directory.
  static Result<Maps> pinned(const PinDir& dir);
  /// These alone, and only to be read.
  static Result<Maps> pinned_to_read(const PinDir& dir, std::span<const char* const> names);

  void add(const std::string& name, UniqueFd fd) { fds_[name] = std::move(fd); }

  /// The descriptor, or -1, which every call on a map answers with EBADF.
  [[nodiscard]] int fd(std::string_view name) const;

  /// One element, read into or written from `value`, whose size is the map's.
  template <typename Value>
  [[nodiscard]] Status read(std::string_view name, std::uint32_t index, Value& value) const {
    return read_element(name, index, &value);
  }
  template <typename Value>
  [[nodiscard]] Status write(std::string_view name, std::uint32_t index, const Value& value) const {
    return write_element(name, index, &value);
  }

 private:
  [[nodiscard]] Status read_element(std::string_view name, std::uint32_t index, void* value) const;
  [[nodiscard]] Status write_element(std::string_view name, std::uint32_t index, const void* value) const;

  std::map<std::string, UniqueFd, std::less<>> fds_;
};

/// The id of an open map, or 0.
std::uint32_t map_id(int map_fd);

/// Whether a loaded program uses the map with this id: how our programs are told from others.
bool uses_map(int prog_fd, std::uint32_t map_id);

/// Possible CPUs.
unsigned possible_cpus();

}  // namespace agentnic::kern
