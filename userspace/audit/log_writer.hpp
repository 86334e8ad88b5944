// SPDX-License-Identifier: Apache-2.0
#pragma once

/// The one writer of a log: appends records, makes them durable, seals them with checkpoints.

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "abi/audit.h"
#include "audit/log.hpp"
#include "audit/note.hpp"
#include "base/result.hpp"
#include "base/unique_fd.hpp"

namespace agentnic::audit {

/// Move-only. Not for two threads. What fails for want of room leaves the log as it was, and can be tried
/// again.
class LogWriter final {
 public:
  /// Makes the folder what it has to be, and takes its lock; or goes on with the log that is there. What a
  /// crash left half-written is cut off, if nobody signed it; a log that is not the one that its last
  /// checkpoint was signed for is refused, and nothing is signed any more.
  static Result<LogWriter> open(const std::string& dir, SigningKey key);

  /// Adds records; they are not durable yet.
  Status append(std::span<const anic_record> records);
  /// What was appended is on the disk.
  Status sync();
  /// Signs what there is; the note, or nothing: there is nothing new. Syncs first.
  Result<std::optional<std::string>> seal();

  [[nodiscard]] std::uint64_t size() const { return tree_.size(); }  ///< records
  [[nodiscard]] std::uint64_t sealed() const { return sealed_; }
  /// What open() had to mend, for people.
  [[nodiscard]] const std::vector<std::string>& notes() const { return notes_; }
  [[nodiscard]] const std::string& dir() const { return dir_; }

 private:
  /// One of the two files of a segment.
  struct Part {
    std::string path;
    UniqueFd fd;
    std::uint64_t bytes = 0;  ///< that are good
    bool dirty = false;
  };

  LogWriter(std::string dir, SigningKey key) : dir_(std::move(dir)), key_(std::move(key)) {}
  Status take_lock();
  Status recover_notes();
  Status recover_segments();
  Status recover_segment(std::uint64_t segment);
  Status cut(Part& part, std::uint64_t bytes);
  Status open_segment(std::uint64_t segment);
  Status finish_segment();
  Status append_here(std::span<const anic_record> records);
  static Status put(Part& part, std::span<const std::byte> bytes);
  static Status sync(Part& part);

  std::string dir_;
  SigningKey key_;
  UniqueFd lock_;
  Part records_;
  Part hashes_;
  Part checkpoints_;
  Frontier tree_;
  Frontier segment_;  ///< the part of it in the segment that is open
  std::uint64_t sealed_ = 0;
  Hash sealed_root_{};
  std::optional<Hash> last_note_;
  std::vector<std::string> notes_;
};

}  // namespace agentnic::audit
