// SPDX-License-Identifier: Apache-2.0
#include "audit/log.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <span>

#include "base/file.hpp"
#include "base/unique_fd.hpp"

namespace agentnic::audit {
namespace {

/// Elements of a file from one on, at most so many, and the bytes that are left over. No file: none.
template <typename Element>
Result<std::vector<Element>> read_elements(const std::string& path, std::uint64_t first, std::uint64_t most,
                                           std::size_t& rest, bool& there) {
  rest = 0;
  const UniqueFd fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK));
  there = static_cast<bool>(fd);
  if (!fd && errno == ENOENT) return std::vector<Element>();
  struct stat info{};
  if (!fd || ::fstat(fd.get(), &info) != 0) return fail_errno(errno, "read " + path);
  if (!S_ISREG(info.st_mode)) return fail(Exit::BadInput, "read " + path + ": not a regular file");
  const std::uint64_t bytes = static_cast<std::uint64_t>(info.st_size);
  const std::uint64_t count = bytes / sizeof(Element);
  std::vector<Element> elements(std::min(most, count - std::min(first, count)));
  const auto got = read_at(fd.get(), std::as_writable_bytes(std::span(elements)), first * sizeof(Element));
  if (!got) return fail_errno(got.error(), "read " + path);
  elements.resize(*got / sizeof(Element));
  rest = bytes % sizeof(Element);
  return elements;
}

std::string numbered(const std::string& dir, const char* part, std::uint64_t segment) {
  return fmt::format("{}/{:08}", part_path(dir, part), segment);
}

}  // namespace

std::string part_path(const std::string& dir, const char* part) {
  return dir.empty() ? std::string(part) : fmt::format("{}/{}", dir, part);
}
std::string records_path(const std::string& dir, std::uint64_t segment) {
  return numbered(dir, kRecordsPart, segment);
}
std::string hashes_path(const std::string& dir, std::uint64_t segment) {
  return numbered(dir, kHashesPart, segment);
}

Result<std::vector<Hash>> read_hashes(const std::string& dir, std::uint64_t segment) {
  std::size_t rest = 0;
  bool there = false;
  return read_elements<Hash>(hashes_path(dir, segment), 0, kSegmentRecords + 2, rest, there);
}

Result<Segment> read_segment(const std::string& dir, std::uint64_t segment) {
  Segment read;
  read.records = ANIC_TRY(
      read_elements<anic_record>(records_path(dir, segment), 0, kSegmentRecords + 1, read.rest, read.there));
  read.hashes = ANIC_TRY(read_hashes(dir, segment));
  return read;
}

Result<std::uint64_t> count_segments(const std::string& dir) {
  std::uint64_t count = 0;
  for (const std::string& name : list_folder(part_path(dir, kRecordsPart))) {
    std::uint64_t number = 0;
    const auto [end, code] = std::from_chars(name.data(), name.data() + name.size(), number);
    if (code != std::errc() || name != fmt::format("{:08}", number))
      return fail(Exit::BadInput,
                  fmt::format("read {}: {} is no segment", part_path(dir, kRecordsPart), name));
    count = std::max(count, number + 1);
  }
  return count;
}

Result<std::vector<anic_record>> read_records(const std::string& dir, std::uint64_t first,
                                              std::uint64_t most) {
  const std::uint64_t in_segment = first % kSegmentRecords;
  std::size_t rest = 0;
  bool there = false;
  return read_elements<anic_record>(records_path(dir, first / kSegmentRecords), in_segment,
                                    std::min(most, kSegmentRecords - in_segment), rest, there);
}

bool is_recorded(const std::string& dir) {
  const UniqueFd fd(::open(part_path(dir, kLockPart).c_str(), O_RDONLY | O_CLOEXEC));
  struct flock lock{};
  lock.l_type = F_WRLCK;
  lock.l_whence = SEEK_SET;
  return fd && ::fcntl(fd.get(), F_OFD_GETLK, &lock) == 0 && lock.l_type != F_UNLCK;
}

Status check_log(const std::string& dir) {
  struct stat info{};
  const std::string records = part_path(dir, kRecordsPart);
  if (::stat(records.c_str(), &info) == 0 && S_ISDIR(info.st_mode)) return {};
  if (errno == EACCES) return fail_errno(errno, "read the log " + dir);
  return fail(Exit::BadInput, fmt::format("read the log {}: it has no folder {}", dir, kRecordsPart),
              "agentnic-audit record IFACE --log DIR makes one");
}

}  // namespace agentnic::audit
