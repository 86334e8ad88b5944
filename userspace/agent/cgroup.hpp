// SPDX-License-Identifier: Apache-2.0
#pragma once

/// The cgroup of an agent: all that it starts is in it, and ends with it.

#include <cstdint>
#include <string>
#include <vector>

#include "base/result.hpp"
#include "base/unique_fd.hpp"

namespace agentnic::agent {

/// Made below the cgroup2 root, or, in a systemd unit with Delegate=, below that of the unit; and where that
/// has not the controllers for processes and memory, below those of version 1, too. Held by a lock: what is
/// in one that nobody holds is killed when the next one is made. Move-only; kills what is in it and removes
/// it when it goes.
class Cgroup final {
 public:
  /// `name`: the first part of its own. Memory includes what is swapped out.
  static Result<Cgroup> make(const std::string& name, std::uint32_t processes, std::uint64_t memory_bytes);
  Cgroup(Cgroup&&) noexcept = default;
  Cgroup& operator=(Cgroup&&) = delete;
  Cgroup(const Cgroup&) = delete;
  Cgroup& operator=(const Cgroup&) = delete;
  ~Cgroup();

  /// For CLONE_INTO_CGROUP; borrowed.
  [[nodiscard]] int fd() const noexcept { return folders_.front().fd.get(); }

  /// Puts the process that calls it in those of version 1.
  [[nodiscard]] Status join() const;

  // In a copy of the process that made it, which does not hold it:

  /// Gives up what it has of the lock.
  void leave_to_holder() const noexcept;
  /// Whether who made it is still there. Asked after prctl(PR_SET_PDEATHSIG): who is not there then is seen
  /// to be gone, or the signal comes.
  [[nodiscard]] bool is_held() const noexcept;

  /// Kills all that is in it, at once.
  void kill() const noexcept;

 private:
  struct Folder {
    std::string path;
    UniqueFd fd;  ///< has its lock
  };

  Cgroup() = default;
  [[nodiscard]] Status hold(std::string path);
  [[nodiscard]] Status limit(const char* controller, const char* file2, const char* file1,
                             const std::string& value);
  [[nodiscard]] Status write_where_there(const char* file, const std::string& value) const;

  std::vector<Folder> folders_;  ///< that of version 2 first
  UniqueFd alive_;               ///< a file in memory, on which who made it has a lock of its own
};

}  // namespace agentnic::agent
