// SPDX-License-Identifier: Apache-2.0
#include "agent/cgroup.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <fstream>
#include <optional>
#include <sstream>
#include <string_view>
#include <thread>

#include "base/file.hpp"

namespace agentnic::agent {
namespace {

constexpr const char* kParent = "agentnic";
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

Status make_folder(const std::string& path) {
  if (::mkdir(path.c_str(), 0755) != 0 && errno != EEXIST) return fail_errno(errno, "make cgroup " + path);
  return {};
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

/// Below which folder of cgroup2 agents go: our own, if it was delegated, else one at the top. A cgroup that
/// passes controllers on has no processes of its own: this one moves.
Result<std::string> make_parent(const std::string& root) {
  std::string own = root + own_cgroup();
  if (is_delegated(own)) {
    const std::string supervisor = fmt::format("{}/{}", own, kSupervisor);
    ANIC_TRY(make_folder(supervisor));
    ANIC_TRY(write_to(supervisor + "/cgroup.procs", "0"));
    return own;
  }
  std::string parent = fmt::format("{}/{}", root, kParent);
  ANIC_TRY(make_folder(parent));
  return parent;
}

/// What agents left that were killed with their supervisor: those that are empty.
void remove_stale(const std::string& parent) {
  for (const std::string& name : list_folder(parent)) {
    if (name != kSupervisor) ::rmdir(fmt::format("{}/{}", parent, name).c_str());
  }
}

}  // namespace

Result<Cgroup> Cgroup::make(const std::string& name, std::uint32_t processes, std::uint64_t memory_bytes) {
  const auto root = mount_of("cgroup2", "");
  if (!root)
    return fail(Exit::Unsupported, "make a cgroup: no cgroup2 file system is mounted",
                "mount -t cgroup2 none /sys/fs/cgroup");
  Cgroup cgroup;
  const std::string parent = ANIC_TRY(make_parent(*root));
  remove_stale(parent);
  // What cannot be had here is looked for in version 1.
  for (const std::string& folder : {*root, parent})
    static_cast<void>(write_to(folder + "/cgroup.subtree_control", "+pids +memory").has_value());
  const std::string folder = fmt::format("{}/{}", parent, name);
  if (::mkdir(folder.c_str(), 0755) != 0) return fail_errno(errno, "make cgroup " + folder);
  cgroup.folders_.push_back(folder);
  cgroup.fd_.reset(::open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!cgroup.fd_) return fail_errno(errno, "open cgroup " + folder);
  ANIC_TRY(cgroup.limit(name, "pids", "pids.max", "pids.max", std::to_string(processes)));
  ANIC_TRY(cgroup.limit(name, "memory", "memory.max", "memory.limit_in_bytes", std::to_string(memory_bytes)));
  return cgroup;
}

Status Cgroup::limit(const std::string& name, const char* controller, const char* file2, const char* file1,
                     const std::string& value) {
  const std::string here = fmt::format("{}/{}", folders_.front(), file2);
  if (::access(here.c_str(), F_OK) == 0) return write_to(here, value);
  const auto root = mount_of("cgroup", controller);
  if (!root)
    return fail(Exit::Unsupported,
                fmt::format("limit an agent: no cgroup has the controller {}", controller));
  const std::string parent = fmt::format("{}/{}", *root, kParent);
  ANIC_TRY(make_folder(parent));
  remove_stale(parent);
  folders_.push_back(fmt::format("{}/{}", parent, name));
  ANIC_TRY(make_folder(folders_.back()));
  return write_to(fmt::format("{}/{}", folders_.back(), file1), value);
}

Status Cgroup::join() const {
  for (std::size_t i = 1; i < folders_.size(); ++i) ANIC_TRY(write_to(folders_[i] + "/cgroup.procs", "0"));
  return {};
}

void Cgroup::kill() const noexcept {
  const UniqueFd fd(::openat(fd_.get(), "cgroup.kill", O_WRONLY | O_CLOEXEC));
  if (fd) static_cast<void>(::write(fd.get(), "1", 1) < 0);
}

Cgroup::~Cgroup() {
  if (!fd_) return;
  kill();
  for (const std::string& folder : folders_) {
    for (int i = 0; i < kRemoveTries && ::rmdir(folder.c_str()) != 0 && errno == EBUSY; ++i)
      std::this_thread::sleep_for(kRemoveRetry);
  }
}

}  // namespace agentnic::agent
