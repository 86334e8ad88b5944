// SPDX-License-Identifier: Apache-2.0
#include "bulk/root.hpp"

#include <dirent.h>
#include <fcntl.h>
#include <fmt/format.h>
#include <linux/openat2.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>
#include <xxhash.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <memory>

namespace agentnic::bulk {
namespace {

constexpr unsigned kDepthMost = 128;  // of folders
constexpr mode_t kFolderMode = 0755;
constexpr mode_t kPartMode = 0600;

std::string joined(const std::string& folder, const std::string& name) {
  return folder.empty() ? name : folder + "/" + name;
}

/// Folder and name.
std::pair<std::string, std::string> split(const std::string& path) {
  const std::size_t slash = path.rfind('/');
  if (slash == std::string::npos) return {"", path};
  return {path.substr(0, slash), path.substr(slash + 1)};
}

/// Of times that it cannot be, the beginning of 1970.
std::uint64_t ns_of(const timespec& time) {
  if (time.tv_sec < 0 || time.tv_sec > INT64_MAX / 1'000'000'000 - 1) return 0;
  return static_cast<std::uint64_t>(time.tv_sec) * 1'000'000'000ULL +
         static_cast<std::uint64_t>(time.tv_nsec);
}

Offer offer_of(const struct stat& info) {
  return {.folder = S_ISDIR(info.st_mode),
          .mode = info.st_mode & 0777U,
          .size = S_ISREG(info.st_mode) ? static_cast<std::uint64_t>(info.st_size) : 0,
          .mtime_ns = ns_of(info.st_mtim),
          .path = {}};
}

struct CloseDir {
  void operator()(DIR* dir) const noexcept { ::closedir(dir); }
};

/// The names in a folder, sorted; an errno.
std::expected<std::vector<std::string>, int> names_in(int folder_fd) {
  const int copy = ::openat(folder_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (copy < 0) return std::unexpected(errno);
  const std::unique_ptr<DIR, CloseDir> dir(::fdopendir(copy));
  if (!dir) {
    const int code = errno;
    ::close(copy);
    return std::unexpected(code);
  }
  std::vector<std::string> names;
  errno = 0;
  while (const dirent* entry = ::readdir(dir.get())) {
    const std::string name = entry->d_name;
    if (name != "." && name != "..") names.push_back(name);
  }
  if (errno != 0) return std::unexpected(errno);
  std::ranges::sort(names);
  return names;
}

/// Whether an open file still has this name.
bool is_named(int fd, int folder_fd, const std::string& name) {
  struct stat open{};
  struct stat named{};
  return ::fstat(fd, &open) == 0 && ::fstatat(folder_fd, name.c_str(), &named, AT_SYMLINK_NOFOLLOW) == 0 &&
         open.st_ino == named.st_ino && open.st_dev == named.st_dev;
}

/// What all parts of a file begin with, and the part of this version.
std::string part_prefix(const std::string& base) {
  return fmt::format("{}{:016x}-", kPartPrefix, XXH3_64bits(base.data(), base.size()));
}
std::string part_name(const std::string& base, const Offer& offer) {
  const std::uint64_t version[] = {offer.size, offer.mtime_ns};
  return fmt::format("{}{:016x}", part_prefix(base), XXH3_64bits(version, sizeof(version)));
}

}  // namespace

std::optional<Offer> look_at(int fd) {
  struct stat info{};
  if (::fstat(fd, &info) != 0) return std::nullopt;
  return offer_of(info);
}

Result<Root> Root::open(const std::string& folder) {
  UniqueFd fd(::open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!fd) return fail(Exit::BadInput, Error::from_errno(errno, "open the folder " + folder).what);
  return Root(std::move(fd));
}

Result<UniqueFd> Root::open_below(const std::string& path, int flags) const {
  open_how how{};
  how.flags = static_cast<std::uint64_t>(flags) | O_CLOEXEC;
  how.resolve = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS;
  const std::string what = path.empty() ? "." : path;
  UniqueFd fd(static_cast<int>(::syscall(SYS_openat2, fd_.get(), what.c_str(), &how, sizeof(how))));
  if (fd) return fd;
  if (errno == ELOOP || errno == EXDEV)
    return fail(Exit::Failed, fmt::format("open {}: a symbolic link is on the way", path));
  return fail_errno(errno, "open " + path);
}

Result<Root> Root::below(const std::string& path, bool make) const {
  if (make) {
    for (std::size_t end = 0; end != std::string::npos && !path.empty();) {
      end = path.find('/', end + 1);
      const auto [folder, name] = split(path.substr(0, end));
      const UniqueFd parent = ANIC_TRY(open_below(folder, O_RDONLY | O_DIRECTORY));
      if (::mkdirat(parent.get(), name.c_str(), kFolderMode) != 0 && errno != EEXIST)
        return fail_errno(errno, "make the folder " + path.substr(0, end));
    }
  }
  return Root(ANIC_TRY(open_below(path, O_RDONLY | O_DIRECTORY)));
}

Result<Source> Root::open_file(const std::string& path) const {
  // O_NONBLOCK: opening a FIFO must not wait for a writer.
  Source source{.fd = ANIC_TRY(open_below(path, O_RDONLY | O_NONBLOCK | O_NOCTTY)), .offer = {}};
  struct stat info{};
  if (::fstat(source.fd.get(), &info) != 0) return fail_errno(errno, "look at " + path);
  if (!S_ISREG(info.st_mode) && !S_ISDIR(info.st_mode))
    return fail(Exit::Failed, fmt::format("read {}: neither a file nor a folder", path));
  // Before Linux 6.5, io_uring gives up at once, again and again, where a disk would have to be waited for.
  if (::fcntl(source.fd.get(), F_SETFL, 0) != 0) return fail_errno(errno, "read " + path);
  source.offer = offer_of(info);
  return source;
}

Result<std::vector<Offer>> Root::list(const std::vector<std::string>& names,
                                      std::vector<std::string>& left_out) const {
  std::vector<Offer> found;
  for (const std::string& name : names) ANIC_TRY(walk(name, 0, found, left_out));
  return found;
}

Status Root::walk(const std::string& path, unsigned depth, std::vector<Offer>& found,
                  std::vector<std::string>& left_out) const {
  const auto [folder, name] = split(path);
  const UniqueFd parent = ANIC_TRY(open_below(folder, O_RDONLY | O_DIRECTORY));
  struct stat info{};
  if (::fstatat(parent.get(), name.c_str(), &info, AT_SYMLINK_NOFOLLOW) != 0)
    return fail(Exit::BadInput, Error::from_errno(errno, "look at " + path).what);
  const bool is_folder = S_ISDIR(info.st_mode);
  if ((!is_folder && !S_ISREG(info.st_mode)) || name.starts_with(kPartPrefix) || !check_path(path) ||
      depth > kDepthMost) {
    left_out.push_back(path);
    return {};
  }
  found.push_back(offer_of(info));
  found.back().path = path;
  if (!is_folder) return {};
  const UniqueFd inside = ANIC_TRY(open_below(path, O_RDONLY | O_DIRECTORY));
  const auto entries = names_in(inside.get());
  if (!entries) return fail_errno(entries.error(), "read the folder " + path);
  for (const std::string& entry : *entries) {
    // What goes while this looks is none of a listing's troubles.
    if (const Status done = walk(joined(path, entry), depth + 1, found, left_out);
        !done && ::faccessat(inside.get(), entry.c_str(), F_OK, AT_SYMLINK_NOFOLLOW) == 0)
      return done;
  }
  return {};
}

bool Part::is_whole(const Root& root, const Offer& offer) {
  const auto there = root.open_file(offer.path);
  return there && !there->offer.folder && there->offer.size == offer.size &&
         there->offer.mtime_ns == offer.mtime_ns;
}

Result<Part> Part::open(const Root& root, const Offer& offer) {
  const auto [folder, name] = split(offer.path);
  Part part;
  part.offer_ = offer;
  part.base_ = name;
  if (!folder.empty()) ANIC_TRY(root.below(folder, true));
  part.folder_ = ANIC_TRY(root.open_below(folder, O_RDONLY | O_DIRECTORY));
  part.part_ = part_name(name, offer);
  const auto open_part = [&] {
    part.fd_.reset(::openat(part.folder_.get(), part.part_.c_str(), O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW,
                            kPartMode));
  };
  open_part();
  // A session that was ended in its last step has given it the mode of the file.
  if (!part.fd_ && errno == EACCES && ::fchmodat(part.folder_.get(), part.part_.c_str(), kPartMode, 0) == 0)
    open_part();
  if (!part.fd_) return fail_errno(errno, "make a part of " + offer.path);
  struct stat info{};
  // It may have got to its place between the two.
  if (::flock(part.fd_.get(), LOCK_EX | LOCK_NB) != 0 || ::fstat(part.fd_.get(), &info) != 0 ||
      !is_named(part.fd_.get(), part.folder_.get(), part.part_))
    return fail(Exit::Failed, fmt::format("receive {}: another session does at this moment", offer.path));
  part.size_ = static_cast<std::uint64_t>(info.st_size);
  if (part.size_ > offer.size) ANIC_TRY(part.cut(0));
  return part;
}

Status Part::cut(std::uint64_t size) {
  if (::ftruncate(fd_.get(), static_cast<off_t>(size)) != 0)
    return fail_errno(errno, "cut the part of " + offer_.path);
  size_ = size;
  return {};
}

Status Part::reserve() const {
  // Its size stays what has been received.
  if (offer_.size > size_ &&
      ::fallocate(fd_.get(), FALLOC_FL_KEEP_SIZE, static_cast<off_t>(size_),
                  static_cast<off_t>(offer_.size - size_)) != 0 &&
      (errno == ENOSPC || errno == EDQUOT || errno == EFBIG)) {
    const int code = errno;
    if (size_ == 0) ::unlinkat(folder_.get(), part_.c_str(), 0);
    return fail_errno(code, fmt::format("set aside {} bytes for {}", offer_.size - size_, offer_.path));
  }
  return {};
}

Status Part::finish(bool sync) {
  const timespec times[] = {{.tv_sec = 0, .tv_nsec = UTIME_OMIT},
                            {.tv_sec = static_cast<time_t>(offer_.mtime_ns / 1'000'000'000ULL),
                             .tv_nsec = static_cast<long>(offer_.mtime_ns % 1'000'000'000ULL)}};
  if (::fchmod(fd_.get(), offer_.mode) != 0 || ::futimens(fd_.get(), times) != 0)
    return fail_errno(errno, "set mode and time of " + offer_.path);
  if (sync && ::fsync(fd_.get()) != 0) return fail_errno(errno, "bring to the disk " + offer_.path);
  if (::renameat(folder_.get(), part_.c_str(), folder_.get(), base_.c_str()) != 0)
    return fail_errno(errno, "put in its place " + offer_.path);
  if (sync && ::fsync(folder_.get()) != 0)
    return fail_errno(errno, "bring to the disk the folder of " + offer_.path);
  return {};
}

void Leftovers::finished(const std::string& path) {
  const auto [folder, name] = split(path);
  prefixes_[folder].insert(part_prefix(name));
}

void Leftovers::remove(const Root& root) const {
  for (const auto& [folder, prefixes] : prefixes_) {
    const auto fd = root.open_below(folder, O_RDONLY | O_DIRECTORY);
    if (!fd) continue;
    for (const std::string& name : names_in(fd->get()).value_or(std::vector<std::string>())) {
      if (!prefixes.contains(name.substr(0, part_prefix("").size()))) continue;
      const UniqueFd part(::openat(fd->get(), name.c_str(), O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK));
      if (part && ::flock(part.get(), LOCK_EX | LOCK_NB) == 0 && is_named(part.get(), fd->get(), name))
        ::unlinkat(fd->get(), name.c_str(), 0);
    }
  }
}

Status make_folder(const Root& root, const Offer& offer) {
  ANIC_TRY(root.below(offer.path, true));
  return {};
}

}  // namespace agentnic::bulk
