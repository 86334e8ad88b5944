// SPDX-License-Identifier: Apache-2.0
#include "audit/log_writer.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <utility>

#include "audit/sequence.hpp"
#include "base/file.hpp"

namespace agentnic::audit {
namespace {

constexpr mode_t kFolderMode = 0750;
constexpr mode_t kFileMode = 0640;
constexpr mode_t kFinishedMode = 0440;

Status make_folder(const std::string& path) {
  if (::mkdir(path.c_str(), kFolderMode) != 0 && errno != EEXIST)
    return fail_errno(errno, "make the folder " + path);
  return {};
}

Status sync_folder(const std::string& path) {
  const UniqueFd fd(::open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!fd || ::fsync(fd.get()) != 0) return fail_errno(errno, "write the folder " + path);
  return {};
}

template <typename Element>
std::span<const std::byte> bytes_of(std::span<const Element> elements) {
  return std::as_bytes(elements);
}

std::unexpected<Error> refused(const std::string& dir, const std::string& why) {
  return fail(Exit::Failed, fmt::format("record to {}: {}; nothing more is signed", dir, why),
              "agentnic-audit verify " + dir);
}

}  // namespace

Result<LogWriter> LogWriter::open(const std::string& dir, SigningKey key) {
  ANIC_TRY(make_folder(dir));
  ANIC_TRY(make_folder(part_path(dir, kRecordsPart)));
  ANIC_TRY(make_folder(part_path(dir, kHashesPart)));
  LogWriter writer(dir, std::move(key));
  ANIC_TRY(writer.take_lock());
  ANIC_TRY(writer.recover_notes());
  ANIC_TRY(writer.recover_segments());
  ANIC_TRY(sync_folder(dir));
  return writer;
}

Status LogWriter::take_lock() {
  const std::string path = part_path(dir_, kLockPart);
  lock_ = UniqueFd(::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, kFileMode));
  if (!lock_) return fail_errno(errno, "open " + path);
  struct flock lock{};
  lock.l_type = F_WRLCK;
  lock.l_whence = SEEK_SET;
  if (::fcntl(lock_.get(), F_OFD_SETLK, &lock) == 0) return {};
  if (errno != EAGAIN && errno != EACCES) return fail_errno(errno, "lock " + path);
  return fail(Exit::Failed, fmt::format("record to {}: another recorder is at work on it", dir_));
}

Status LogWriter::cut(Part& part, std::uint64_t bytes) {
  if (::ftruncate(part.fd.get(), static_cast<off_t>(bytes)) != 0)
    return fail_errno(errno, "cut " + part.path);
  part.bytes = bytes;
  part.dirty = true;
  return {};
}

Status LogWriter::put(Part& part, std::span<const std::byte> bytes) {
  const int code = write_at(part.fd.get(), bytes, part.bytes);
  if (code == 0) {
    part.bytes += bytes.size();
    part.dirty = true;
    return {};
  }
  static_cast<void>(::ftruncate(part.fd.get(), static_cast<off_t>(part.bytes)));
  return fail_errno(code, "write " + part.path);
}

Status LogWriter::sync(Part& part) {
  if (!part.dirty) return {};
  if (::fdatasync(part.fd.get()) != 0) return fail_errno(errno, "bring to the disk " + part.path);
  part.dirty = false;
  return {};
}

/// Finds the last checkpoint. What follows it may be the beginning of one that a crash cut short.
Status LogWriter::recover_notes() {
  checkpoints_.path = part_path(dir_, kCheckpointsPart);
  checkpoints_.fd =
      UniqueFd(::open(checkpoints_.path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, kFileMode));
  if (!checkpoints_.fd) return fail_errno(errno, "open " + checkpoints_.path);
  const std::string notes = ANIC_TRY(read_file(checkpoints_.path, kNotesMost));
  std::size_t at = 0;
  while (at < notes.size()) {
    const std::string_view rest = std::string_view(notes).substr(at);
    const auto opened = open_note(rest, key_.verifier());
    if (!opened && opened.error().kind == NoteFault::Kind::Incomplete) break;
    if (!opened)
      return refused(dir_, fmt::format("{} at byte {}: {}", kCheckpointsPart, at + opened.error().byte,
                                       opened.error().what));
    if (opened->checkpoint.previous != last_note_ || opened->checkpoint.size <= sealed_)
      return refused(
          dir_, fmt::format("{} at byte {}: it does not follow on the one before", kCheckpointsPart, at));
    sealed_ = opened->checkpoint.size;
    sealed_root_ = opened->checkpoint.root;
    last_note_ = note_hash(rest.substr(0, opened->length));
    at += opened->length;
  }
  checkpoints_.bytes = at;
  if (at == notes.size()) return {};
  notes_.push_back(
      fmt::format("{} bytes of a checkpoint that was not finished were cut off", notes.size() - at));
  return cut(checkpoints_, at);
}

/// Whole segments that were sealed are taken by the root of their subtree: the checkpoint says whether it is
/// right.
Status LogWriter::recover_segments() {
  const std::uint64_t segments = ANIC_TRY(count_segments(dir_));
  for (std::uint64_t segment = 0; segment < segments; ++segment) {
    if ((segment + 1) * kSegmentRecords < sealed_) {
      const auto hashes = ANIC_TRY(read_hashes(dir_, segment));
      if (hashes.size() > kSegmentRecords) {
        tree_.add_subtree(hashes[kSegmentRecords], kSegmentLevel);
        continue;
      }
    }
    ANIC_TRY(recover_segment(segment));
    if (tree_.size() < (segment + 1) * kSegmentRecords && segment + 1 < segments)
      return refused(dir_, fmt::format("{} has {} records, and is not the last", records_path("", segment),
                                       tree_.size() - segment * kSegmentRecords));
  }
  if (tree_.size() < sealed_)
    return refused(dir_, fmt::format("it has {} records, and {} are signed for", tree_.size(), sealed_));
  if (tree_.size() % kSegmentRecords == 0) ANIC_TRY(open_segment(tree_.size() / kSegmentRecords));
  return {};
}

/// Reads a segment, and leaves its files open if it is not full. Hashes are made again from the records.
Status LogWriter::recover_segment(std::uint64_t segment) {
  const Segment found = ANIC_TRY(read_segment(dir_, segment));
  if (found.records.size() > kSegmentRecords)
    return refused(dir_, records_path("", segment) + " has more records than a segment");
  ANIC_TRY(open_segment(segment));
  std::vector<Hash> hashes;
  hashes.reserve(found.records.size());
  for (const anic_record& record : found.records) {
    hashes.push_back(leaf_hash(record));
    tree_.add(hashes.back());
    segment_.add(hashes.back());
    if (tree_.size() == sealed_ && tree_.root() != sealed_root_)
      return refused(dir_, fmt::format("its first {} records are not those that were signed for", sealed_));
  }
  if (found.rest != 0) {
    notes_.push_back(fmt::format("{} bytes of a record that was not finished were cut off", found.rest));
    ANIC_TRY(cut(records_, found.records.size() * sizeof(anic_record)));
  }
  if (!std::ranges::equal(hashes,
                          std::span(found.hashes).first(std::min(found.hashes.size(), hashes.size()))) ||
      found.hashes.size() < hashes.size() || hashes_.bytes % sizeof(Hash) != 0) {
    ANIC_TRY(cut(hashes_, 0));
    ANIC_TRY(put(hashes_, bytes_of(std::span<const Hash>(hashes))));
  } else if (found.hashes.size() > hashes.size() && hashes.size() < kSegmentRecords) {
    ANIC_TRY(cut(hashes_, hashes.size() * sizeof(Hash)));
  }
  records_.dirty = true;  // whoever wrote them may not have come to it
  if (hashes.size() == kSegmentRecords) ANIC_TRY(finish_segment());
  return {};
}

Status LogWriter::open_segment(std::uint64_t segment) {
  const auto open_part = [](Part& part, std::string path) -> Status {
    part.path = std::move(path);
    part.fd = UniqueFd(::open(part.path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, kFileMode));
    if (!part.fd && errno == EACCES) {  // it is finished
      static_cast<void>(::chmod(part.path.c_str(), kFileMode));
      part.fd = UniqueFd(::open(part.path.c_str(), O_RDWR | O_CLOEXEC | O_NOFOLLOW));
    }
    struct stat info{};
    if (!part.fd || ::fstat(part.fd.get(), &info) != 0) return fail_errno(errno, "open " + part.path);
    part.bytes = static_cast<std::uint64_t>(info.st_size);
    part.dirty = false;
    return {};
  };
  ANIC_TRY(open_part(records_, records_path(dir_, segment)));
  ANIC_TRY(open_part(hashes_, hashes_path(dir_, segment)));
  segment_ = {};
  ANIC_TRY(sync_folder(part_path(dir_, kRecordsPart)));
  return sync_folder(part_path(dir_, kHashesPart));
}

/// The segment is full: its subtree's root ends its hashes, and nobody writes to it again.
Status LogWriter::finish_segment() {
  const Hash root = segment_.root();
  if (hashes_.bytes == kSegmentRecords * sizeof(Hash)) ANIC_TRY(put(hashes_, std::as_bytes(std::span(root))));
  ANIC_TRY(sync(records_));
  ANIC_TRY(sync(hashes_));
  for (const Part* part : {&records_, &hashes_}) {
    if (::fchmod(part->fd.get(), kFinishedMode) != 0) return fail_errno(errno, "close " + part->path);
  }
  return {};
}

/// Records that fit the open segment: all of them, or none.
Status LogWriter::append_here(std::span<const anic_record> records) {
  std::vector<Hash> hashes;
  hashes.reserve(records.size());
  for (const anic_record& record : records) hashes.push_back(leaf_hash(record));
  ANIC_TRY(put(records_, bytes_of(records)));
  if (Status written = put(hashes_, bytes_of(std::span<const Hash>(hashes))); !written) {
    ANIC_TRY(cut(records_, records_.bytes - records.size_bytes()));
    return written;
  }
  for (const Hash& hash : hashes) {
    tree_.add(hash);
    segment_.add(hash);
  }
  return {};
}

Status LogWriter::append(std::span<const anic_record> records) {
  while (!records.empty()) {
    if (segment_.size() == kSegmentRecords) {
      ANIC_TRY(finish_segment());
      ANIC_TRY(open_segment(tree_.size() / kSegmentRecords));
    }
    const auto here = records.first(std::min<std::size_t>(records.size(), kSegmentRecords - segment_.size()));
    ANIC_TRY(append_here(here));
    records = records.subspan(here.size());
  }
  return {};
}

Status LogWriter::sync() { return sync(records_); }

Result<std::optional<std::string>> LogWriter::seal() {
  if (size() == sealed_) return std::nullopt;
  ANIC_TRY(sync(records_));
  ANIC_TRY(sync(hashes_));
  const Checkpoint checkpoint{.size = size(), .root = tree_.root(), .previous = last_note_};
  std::string note = sign_checkpoint(checkpoint, key_);
  ANIC_TRY(put(checkpoints_, std::as_bytes(std::span(note))));
  if (Status done = sync(checkpoints_); !done) {
    ANIC_TRY(cut(checkpoints_, checkpoints_.bytes - note.size()));
    return fail(std::move(done.error()));
  }
  sealed_ = checkpoint.size;
  sealed_root_ = checkpoint.root;
  last_note_ = note_hash(note);
  return note;
}

}  // namespace agentnic::audit
