// SPDX-License-Identifier: Apache-2.0
#pragma once

/// Records, in pinned maps of one entry, of what was changed in a device, so that whoever stops in between
/// leaves what can be undone.

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "base/result.hpp"
#include "base/unique_fd.hpp"
#include "kern/bpffs.hpp"

namespace agentnic::kern {

/// There whole or not at all: its map gets its name when it has its content.
class PinnedRecord final {
 public:
  /// `name`: of the pin and of the map. `what`: in errors, "the record of ...".
  PinnedRecord(const PinDir& dir, const char* name, const char* what)
      : path_(dir.pin(name)), name_(name), what_(what) {}

  template <typename Record>
  Status write(const Record& record) {
    return write(std::as_bytes(std::span(&record, 1)));
  }
  Status write(std::span<const std::byte> record);
  /// One that is not there is none to remove.
  Status clear();

 private:
  std::string path_;
  const char* name_;
  const char* what_;
  UniqueFd map_;
};

/// False: there is none. An error for one of another size.
Result<bool> read_pinned(const std::string& path, std::span<std::byte> record);

/// Nothing: there is none.
template <typename Record>
Result<std::unique_ptr<Record>> read_pinned(const PinDir& dir, const char* name) {
  auto record = std::make_unique<Record>();
  if (!ANIC_TRY(read_pinned(dir.pin(name), std::as_writable_bytes(std::span(record.get(), 1)))))
    return nullptr;
  return record;
}

/// Calls `undo` with the name that the interface of a record has now, inside its namespace; `gone` where
/// either is not there any more. A namespace that lives and has no name here is an error, which begins with
/// `what`.
Result<std::vector<std::string>> undo_inside(
    const PinDir& dir, std::uint64_t netns_cookie, std::uint32_t ifindex, const std::string& what,
    const std::function<Result<std::vector<std::string>>()>& gone,
    const std::function<Result<std::vector<std::string>>(const std::string& ifname)>& undo);

}  // namespace agentnic::kern
