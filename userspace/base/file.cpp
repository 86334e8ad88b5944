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

}  // namespace

Result<std::string> read_file(const std::string& path, std::size_t limit) {
  // O_NONBLOCK: opening a FIFO must not wait for a writer.
  const UniqueFd fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK));
  if (!fd) return bad_file(path, std::generic_category().message(errno));
  struct stat info{};
  if (::fstat(fd.get(), &info) != 0) return bad_file(path, std::generic_category().message(errno));
  if (!S_ISREG(info.st_mode)) return bad_file(path, "not a regular file");
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

std::vector<std::string> list_folder(const std::string& path) {
  std::vector<std::string> names;
  std::error_code code;
  for (std::filesystem::directory_iterator entry(path, code), end; !code && entry != end;
       entry.increment(code)) {
    names.push_back(entry->path().filename());
  }
  return names;
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
