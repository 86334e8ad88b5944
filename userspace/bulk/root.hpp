// SPDX-License-Identifier: Apache-2.0
#pragma once

/// The folder that a session works in, and never leaves: every name is resolved below it by the kernel
/// (openat2(2), RESOLVE_BENEATH and RESOLVE_NO_SYMLINKS). Paths passed check_path(), or are empty: the folder
/// itself.

#include <sys/types.h>

#include <cstdint>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "base/result.hpp"
#include "base/unique_fd.hpp"
#include "bulk/wire.hpp"

namespace agentnic::bulk {

/// What is sent, or is to be received.
struct Source {
  UniqueFd fd = {};
  Offer offer = {};  ///< without its path
};

/// What an open file is at this moment, without its path.
std::optional<Offer> look_at(int fd);

class Root final {
 public:
  /// Bad input when it is no folder.
  static Result<Root> open(const std::string& folder);
  /// A folder in it; `make`: with the folders on the way, when they are not there.
  [[nodiscard]] Result<Root> below(const std::string& path, bool make) const;

  /// A regular file, for reading.
  [[nodiscard]] Result<Source> open_file(const std::string& path) const;
  /// What there is of these names, folders before what is in them, in the order of names. Other things than
  /// files and folders are left out, and so are parts: `left_out` gets their paths.
  [[nodiscard]] Result<std::vector<Offer>> list(const std::vector<std::string>& names,
                                                std::vector<std::string>& left_out) const;

 private:
  friend class Part;
  friend class Leftovers;
  explicit Root(UniqueFd fd) noexcept : fd_(std::move(fd)) {}
  [[nodiscard]] Result<UniqueFd> open_below(const std::string& path, int flags) const;
  Status walk(const std::string& path, unsigned depth, std::vector<Offer>& found,
              std::vector<std::string>& left_out) const;
  UniqueFd fd_;
};

/// A file on its way: it stands beside where it will be, under a name of its own that says which version of
/// what it is a part of, so that a later session finds it; the last step is its rename. Other versions' parts
/// are removed when it is.
class Part final {
 public:
  /// Takes up what is there. Failed when somebody else receives it at this moment.
  static Result<Part> open(const Root& root, const Offer& offer);
  /// Whether the file is in its place already: same size, same time of change.
  static bool is_whole(const Root& root, const Offer& offer);

  [[nodiscard]] int fd() const noexcept { return fd_.get(); }
  /// Bytes that are there.
  [[nodiscard]] std::uint64_t size() const noexcept { return size_; }
  /// So many bytes were written at its end.
  void grown(std::uint64_t bytes) noexcept { size_ += bytes; }
  /// Forgets what is there from here on.
  Status cut(std::uint64_t size);
  /// Sets aside room for all of it; failed when there is not enough.
  Status reserve() const;
  /// Puts it in its place. `sync`: on the disk.
  Status finish(bool sync);

 private:
  Part() = default;
  UniqueFd folder_;
  UniqueFd fd_;
  Offer offer_;
  std::string part_;
  std::string base_;
  std::uint64_t size_ = 0;
};

/// Parts of other versions of files that are in their place now.
class Leftovers final {
 public:
  void finished(const std::string& path);
  /// Removes them, but for those that somebody receives at this moment.
  void remove(const Root& root) const;

 private:
  std::map<std::string, std::set<std::string>> prefixes_;  ///< by folder
};

/// A folder that was offered.
Status make_folder(const Root& root, const Offer& offer);

}  // namespace agentnic::bulk
