// SPDX-License-Identifier: Apache-2.0
#include "lab/bulk_files.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <filesystem>
#include <random>
#include <span>
#include <system_error>
#include <vector>

#include "base/file.hpp"
#include "base/unique_fd.hpp"

namespace agentnic::lab {
namespace {

Status write_file(const std::string& path, std::uint64_t bytes, std::mt19937_64& random) {
  const UniqueFd fd(::open(path.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600));
  if (!fd) return fail_errno(errno, "write " + path);
  std::vector<std::uint64_t> words(std::min<std::uint64_t>(1 << 20, bytes) / sizeof(std::uint64_t) + 1);
  for (std::uint64_t at = 0; at < bytes;) {
    std::ranges::generate(words, random);
    const auto piece = std::as_bytes(std::span(words)).first(std::min<std::uint64_t>(1 << 20, bytes - at));
    if (const int code = write_at(fd.get(), piece, at); code != 0) return fail_errno(code, "write " + path);
    at += piece.size();
  }
  return {};
}

Status make_folder(const std::string& path) {
  if (::mkdir(path.c_str(), 0700) != 0) return fail_errno(errno, "make the folder " + path);
  return {};
}

}  // namespace

Result<BulkFiles> BulkFiles::make(std::uint64_t bytes, std::uint64_t files) {
  std::string name = "/dev/shm/agentnic-bench-XXXXXX";
  if (::mkdtemp(name.data()) == nullptr) return fail_errno(errno, "make the folder " + name);
  BulkFiles made(name);
  for (const std::string& folder : {made.folder(), made.to()}) ANIC_TRY(make_folder(folder));
  std::mt19937_64 random(std::random_device{}());
  for (std::uint64_t i = 0; i < files; ++i)
    ANIC_TRY(write_file(fmt::format("{}/{}", made.folder(), i), bytes, random));
  ANIC_TRY(keep_new_file(made.secret(), fmt::format("{:016x}{:016x}", random(), random()), 0400));
  return made;
}

BulkFiles::~BulkFiles() {
  std::error_code ignored;
  if (!name_.empty()) std::filesystem::remove_all(name_, ignored);
}

Status BulkFiles::empty_to() const {
  std::error_code error;
  for (const auto& entry : std::filesystem::directory_iterator(to(), error))
    std::filesystem::remove_all(entry.path(), error);
  if (error) return fail_errno(error.value(), "empty the folder " + to());
  return {};
}

Json last_line(const std::string& said) {
  const std::size_t last = said.rfind('\n', said.size() - 2);
  return Json::parse(said.substr(last == std::string::npos ? 0 : last + 1), nullptr, false);
}

}  // namespace agentnic::lab
