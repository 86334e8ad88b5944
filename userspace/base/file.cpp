// SPDX-License-Identifier: Apache-2.0
#include "base/file.hpp"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <filesystem>
#include <system_error>

#include "base/unique_fd.hpp"

namespace agentnic {
namespace {

std::unexpected<Error> bad_file(const std::string& path, const std::string& reason) {
  return fail(Exit::BadInput, "read " + path + ": " + reason);
}

/// `open_to`: what the mode may let others do.
Result<std::string> read_regular(const std::string& path, std::size_t limit, mode_t open_to) {
  // O_NONBLOCK: opening a FIFO must not wait for a writer.
  const UniqueFd fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK));
  if (!fd) return bad_file(path, std::generic_category().message(errno));
  struct stat info{};
  if (::fstat(fd.get(), &info) != 0) return bad_file(path, std::generic_category().message(errno));
  if (!S_ISREG(info.st_mode)) return bad_file(path, "not a regular file");
  if ((info.st_mode & (S_IRWXG | S_IRWXO) & ~open_to) != 0)
    return fail(Exit::BadInput, "read " + path + ": it is a secret, and others than its owner may use it",
                "chmod 0400 " + path);
  std::string content;
  char buffer[16384];
  for (;;) {
    const ssize_t got = ::read(fd.get(), buffer, sizeof(buffer));
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return bad_file(path, std::generic_category().message(errno));
    if (got == 0) return content;
    content.append(buffer, static_cast<std::size_t>(got));
    if (content.size() > limit) return bad_file(path, "larger than " + std::to_string(limit) + " bytes");
  }
}

/// Writes a new file, all of it on the disk.
Status make_file(const std::string& path, std::string_view content, mode_t mode) {
  const UniqueFd fd(::open(path.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, mode));
  if (!fd) return fail_errno(errno, "write " + path);
  int code = write_at(fd.get(), std::as_bytes(std::span(content)), 0);
  if (code == 0 && ::fsync(fd.get()) != 0) code = errno;
  if (code == 0) return {};
  ::unlink(path.c_str());
  return fail_errno(code, "write " + path);
}

Status sync_folder_of(const std::string& path) {
  const std::string folder = std::filesystem::path(path).parent_path();
  const UniqueFd fd(::open(folder.empty() ? "." : folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!fd || ::fsync(fd.get()) != 0) return fail_errno(errno, "write the folder of " + path);
  return {};
}

}  // namespace

Result<std::string> read_file(const std::string& path, std::size_t limit) {
  return read_regular(path, limit, S_IRWXG | S_IRWXO);
}

Result<std::string> read_secret_file(const std::string& path, std::size_t limit) {
  return read_regular(path, limit, 0);
}

std::vector<std::string> list_folder(const std::string& path) {
  std::vector<std::string> names;
  std::error_code code;
  for (std::filesystem::directory_iterator entry(path, code), end; !code && entry != end;
       entry.increment(code)) {
    names.push_back(entry->path().filename());
  }
  return names;
}

std::expected<std::size_t, int> read_at(int fd, std::span<std::byte> to, std::uint64_t offset) noexcept {
  std::size_t done = 0;
  while (done < to.size()) {
    const ssize_t got = ::pread(fd, to.data() + done, to.size() - done, static_cast<off_t>(offset + done));
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return std::unexpected(errno);
    if (got == 0) break;
    done += static_cast<std::size_t>(got);
  }
  return done;
}

int write_at(int fd, std::span<const std::byte> from, std::uint64_t offset) noexcept {
  while (!from.empty()) {
    const ssize_t put = ::pwrite(fd, from.data(), from.size(), static_cast<off_t>(offset));
    if (put < 0 && errno == EINTR) continue;
    if (put < 0) return errno;
    if (put == 0) return EIO;
    from = from.subspan(static_cast<std::size_t>(put));
    offset += static_cast<std::uint64_t>(put);
  }
  return 0;
}

Status keep_new_file(const std::string& path, std::string_view content, mode_t mode) {
  ANIC_TRY(make_file(path, content, mode));
  return sync_folder_of(path);
}

Status keep_file(const std::string& path, std::string_view content, mode_t mode) {
  const std::string draft = path + ".new";
  ::unlink(draft.c_str());
  ANIC_TRY(make_file(draft, content, mode));
  if (std::rename(draft.c_str(), path.c_str()) != 0)
    return fail_errno(errno, "rename " + draft + " to " + path);
  return sync_folder_of(path);
}

Status write_file(const std::string& path, std::string_view content) {
  const std::string draft = path + ".new";
  UniqueFd fd(::open(draft.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644));
  if (!fd) return fail_errno(errno, "write " + draft);
  while (!content.empty()) {
    const ssize_t put = ::write(fd.get(), content.data(), content.size());
    if (put < 0 && errno == EINTR) continue;
    if (put < 0) {
      const int code = errno;
      ::unlink(draft.c_str());
      return fail_errno(code, "write " + draft);
    }
    content.remove_prefix(static_cast<std::size_t>(put));
  }
  if (std::rename(draft.c_str(), path.c_str()) != 0)
    return fail_errno(errno, "rename " + draft + " to " + path);
  return {};
}

}  // namespace agentnic
