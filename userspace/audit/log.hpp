// SPDX-License-Identifier: Apache-2.0
#pragma once

/// A log on disk: where its parts are, and reading them. docs/audit.md has the formats to the byte.
///
///     DIR/records/00000000   65,536 records of 160 bytes, as the kernel wrote them; the next are in 00000001
///     DIR/hashes/00000000    the leaf hash of each, 32 bytes; a full one ends with the root of its subtree
///     DIR/checkpoints        signed notes, one after the other
///     DIR/key.pub            the key that checks them, for whoever reads the log; who verifies has it from
///     elsewhere DIR/names              JSON lines: what ids are called; for people, not signed DIR/chain
///     which chain of which boot the last records are of DIR/lock, DIR/socket   of the recorder that is at
///     work

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "abi/audit.h"
#include "audit/merkle.hpp"
#include "base/result.hpp"

namespace agentnic::audit {

inline constexpr unsigned kSegmentLevel = 16;
inline constexpr std::uint64_t kSegmentRecords = std::uint64_t{1} << kSegmentLevel;
inline constexpr std::uint64_t kSegmentBytes = kSegmentRecords * sizeof(anic_record);
inline constexpr std::size_t kNotesMost = std::size_t{1} << 30U;  ///< bytes of checkpoints

/// Paths, in a log or relative to one ("").
std::string records_path(const std::string& dir, std::uint64_t segment);
std::string hashes_path(const std::string& dir, std::uint64_t segment);
std::string part_path(const std::string& dir, const char* part);

inline constexpr const char* kRecordsPart = "records";
inline constexpr const char* kHashesPart = "hashes";
inline constexpr const char* kCheckpointsPart = "checkpoints";
inline constexpr const char* kKeyPart = "key.pub";
inline constexpr const char* kNamesPart = "names";
inline constexpr const char* kChainPart = "chain";
inline constexpr const char* kLockPart = "lock";
inline constexpr const char* kSocketPart = "socket";

/// The records of a segment, or the first of them. What follows the last whole record is in `rest` (bytes).
/// No file: none.
struct Segment {
  std::vector<anic_record> records;
  std::vector<Hash> hashes;  ///< as they stand in the log; may be fewer, or one more
  std::size_t rest = 0;      ///< bytes of a record that is not whole
  bool there = false;        ///< it has a file of records
};
Result<Segment> read_segment(const std::string& dir, std::uint64_t segment);
/// The hashes alone.
Result<std::vector<Hash>> read_hashes(const std::string& dir, std::uint64_t segment);

/// How many segments there are files of, from the first to the last number.
Result<std::uint64_t> count_segments(const std::string& dir);

/// Records [first, first + most), or as many as there are, up to the end of the segment.
Result<std::vector<anic_record>> read_records(const std::string& dir, std::uint64_t first,
                                              std::uint64_t most);

/// Whether a recorder is at work on it.
bool is_recorded(const std::string& dir);

/// Bad input unless it looks like a log.
Status check_log(const std::string& dir);

}  // namespace agentnic::audit
