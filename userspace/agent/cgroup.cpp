// SPDX-License-Identifier: Apache-2.0
#include "agent/cgroup.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <cstdlib>
#include <fstream>
#include <optional>
#include <sstream>
#include <string_view>
#include <thread>
#include <utility>

#include "base/file.hpp"

namespace agentnic::agent {
namespace {

constexpr const char* kParent = "agentnic-agents";
constexpr const char* kSupervisor = "supervisor";
constexpr int kRemoveTries = 200;
constexpr auto kRemoveRetry = std::chrono::milliseconds(10);

/// Where the hierarchy with this file system type and option is mounted.
std::optional<std::string> mount_of(std::string_view wanted_type, std::string_view wanted_option) {
  std::ifstream mounts("/proc/self/mounts");
  std::string line;
  while (std::getline(mounts, line)) {
    std::istringstream words(line);
    std::string what;
    std::string where;
    std::string type;
    std::string options;
    words >> what >> where >> type >> options;
    if (type != wanted_type) continue;
    if (wanted_option.empty() || fmt::format(",{},", options).contains(fmt::format(",{},", wanted_option)))
      return where;
  }
  return std::nullopt;
}

Status write_to(const std::string& path, std::string_view text) {
  const UniqueFd fd(::open(path.c_str(), O_WRONLY | O_CLOEXEC));
  if (!fd || ::write(fd.get(), text.data(), text.size()) < 0)
    return fail_errno(errno, fmt::format("write {} to {}", text, path));
  return {};
}

/// Nobody else opens it, and so locks it.
Status make_folder(const std::string& path) {
  if (::mkdir(path.c_str(), 0700) != 0 && errno != EEXIST) return fail_errno(errno, "make cgroup " + path);
  return {};
}

/// The folder, open and locked until that is closed. `how`: as flock() has it.
Result<UniqueFd> lock_folder(const std::string& path, int how) {
  UniqueFd fd(::open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!fd || ::flock(fd.get(), how) != 0) return fail_errno(errno, "lock cgroup " + path);
  return fd;
}

/// A lock on all of a file that is its process's: copies do not have it. It goes when the process ends,
/// before its children get their death signal.
struct flock process_lock() {
  struct flock lock{};
  lock.l_type = F_WRLCK;
  lock.l_whence = SEEK_SET;
  return lock;
}

/// A new file in memory with such a lock.
Result<UniqueFd> lock_memory() {
  UniqueFd fd(::memfd_create("agentnic-alive", MFD_CLOEXEC));
  const struct flock lock = process_lock();
  if (!fd || ::fcntl(fd.get(), F_SETLK, &lock) != 0) return fail_errno(errno, "lock a file in memory");
  return fd;
}

/// Whether systemd has left it to us what is below this cgroup: a unit with Delegate=.
bool is_delegated(const std::string& path) {
  char value = 0;
  return ::getxattr(path.c_str(), "trusted.delegate", &value, 1) == 1 && value == '1';
}

/// This process's cgroup of version 2, below the root.
std::string own_cgroup() {
  std::ifstream groups("/proc/self/cgroup");
  std::string line;
  while (std::getline(groups, line)) {
    if (line.starts_with("0::/")) return line.substr(3);
  }
  return "/";
}

/// The folder of cgroup2 that agents go below: in our own, if it was delegated, else at the top. A cgroup
/// that passes controllers on has no processes of its own: this one moves.
Result<std::string> make_parent(const std::string& root) {
  std::vector<std::string> above = {root};
  const std::string own = root + own_cgroup();
  if (is_delegated(own)) {
    const std::string supervisor = fmt::format("{}/{}", own, kSupervisor);
    ANIC_TRY(make_folder(supervisor));
    ANIC_TRY(write_to(supervisor + "/cgroup.procs", "0"));
    above.push_back(own);
  }
  std::string parent = fmt::format("{}/{}", above.back(), kParent);
  ANIC_TRY(make_folder(parent));
  above.push_back(parent);
  // What cannot be had here is looked for in version 1.
  for (const std::string& folder : above)
    static_cast<void>(write_to(folder + "/cgroup.subtree_control", "+pids +memory").has_value());
  return parent;
}

void kill_all(int folder_fd) {
  const UniqueFd fd(::openat(folder_fd, "cgroup.kill", O_WRONLY | O_CLOEXEC));
  if (fd) static_cast<void>(::write(fd.get(), "1", 1) < 0);
}

/// What was killed in it takes a while to go.
void remove_folder(const std::string& path) {
  for (int i = 0; i < kRemoveTries && ::rmdir(path.c_str()) != 0 && errno == EBUSY; ++i)
    std::this_thread::sleep_for(kRemoveRetry);
}

/// Those below it that nobody holds any more, with what is still in them: their supervisor was killed.
void remove_stale(const std::string& parent) {
  for (const std::string& name : list_folder(parent)) {
    const std::string folder = fmt::format("{}/{}", parent, name);
    const auto locked = lock_folder(folder, LOCK_EX | LOCK_NB);
    if (!locked) continue;
    kill_all(locked->get());
    remove_folder(folder);
  }
}

}  // namespace

Result<Cgroup> Cgroup::make(const std::string& name, std::uint32_t processes, std::uint64_t memory_bytes) {
  const auto root = mount_of("cgroup2", "");
  if (!root)
    return fail(Exit::Unsupported, "make a cgroup: no cgroup2 file system is mounted",
                "mount -t cgroup2 none /sys/fs/cgroup");
  Cgroup cgroup;
  cgroup.alive_ = ANIC_TRY(lock_memory());
  const std::string parent = ANIC_TRY(make_parent(*root));
  // Two that start at once must not take each other's for left over, before they hold them.
  const UniqueFd lock = ANIC_TRY(lock_folder(parent, LOCK_EX));
  remove_stale(parent);
  std::string folder = fmt::format("{}/{}.XXXXXX", parent, name);
  if (::mkdtemp(folder.data()) == nullptr) return fail_errno(errno, "make cgroup " + folder);
  ANIC_TRY(cgroup.hold(folder));
  ANIC_TRY(cgroup.limit("pids", "pids.max", "pids.max", std::to_string(processes)));
  const std::string bytes = std::to_string(memory_bytes);
  ANIC_TRY(cgroup.limit("memory", "memory.max", "memory.limit_in_bytes", bytes));
  ANIC_TRY(cgroup.write_where_there("memory.swap.max", "0"));
  ANIC_TRY(cgroup.write_where_there("memory.memsw.limit_in_bytes", bytes));
  return cgroup;
}

Status Cgroup::hold(std::string path) {
  UniqueFd fd = ANIC_TRY(lock_folder(path, LOCK_EX | LOCK_NB));
  folders_.push_back({.path = std::move(path), .fd = std::move(fd)});
  return {};
}

Status Cgroup::limit(const char* controller, const char* file2, const char* file1, const std::string& value) {
  const std::string here = fmt::format("{}/{}", folders_.front().path, file2);
  if (::access(here.c_str(), F_OK) == 0) return write_to(here, value);
  const auto root = mount_of("cgroup", controller);
  if (!root)
    return fail(Exit::Unsupported,
                fmt::format("limit an agent: no cgroup has the controller {}", controller));
  const std::string parent = fmt::format("{}/{}", *root, kParent);
  ANIC_TRY(make_folder(parent));
  const UniqueFd lock = ANIC_TRY(lock_folder(parent, LOCK_EX));
  remove_stale(parent);
  const std::string& first = folders_.front().path;
  const std::string folder = parent + first.substr(first.rfind('/'));
  ANIC_TRY(make_folder(folder));
  ANIC_TRY(hold(folder));
  return write_to(fmt::format("{}/{}", folder, file1), value);
}

/// Which of two files there is depends on the version, and whether there is one on the kernel's options.
Status Cgroup::write_where_there(const char* file, const std::string& value) const {
  for (const Folder& folder : folders_) {
    const std::string path = fmt::format("{}/{}", folder.path, file);
    if (::access(path.c_str(), F_OK) == 0) ANIC_TRY(write_to(path, value));
  }
  return {};
}

Status Cgroup::join() const {
  for (std::size_t i = 1; i < folders_.size(); ++i)
    ANIC_TRY(write_to(folders_[i].path + "/cgroup.procs", "0"));
  return {};
}

void Cgroup::leave_to_holder() const noexcept {
  for (const Folder& folder : folders_) ::close(folder.fd.get());
}

bool Cgroup::is_held() const noexcept {
  struct flock lock = process_lock();
  return ::fcntl(alive_.get(), F_GETLK, &lock) == 0 && lock.l_type != F_UNLCK;
}

void Cgroup::kill() const noexcept { kill_all(fd()); }

Cgroup::~Cgroup() {
  if (folders_.empty()) return;
  kill();
  for (const Folder& folder : folders_) remove_folder(folder.path);
}

}  // namespace agentnic::agent
