// SPDX-License-Identifier: Apache-2.0
#include "kern/bpffs.hpp"

#include <bpf/bpf.h>
#include <fcntl.h>
#include <fmt/format.h>
#include <linux/magic.h>
#include <sys/file.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

#include <cerrno>
#include <charconv>
#include <filesystem>
#include <system_error>

#include "base/file.hpp"

namespace agentnic::kern {
namespace fs = std::filesystem;
namespace {

Status make_dir(const std::string& path) {
  if (::mkdir(path.c_str(), 0700) != 0 && errno != EEXIST) return fail_errno(errno, "make " + path);
  return {};
}

/// Whether the mounts that this process sees are others than those of the machine's (or container's) first
/// process.
bool in_private_mounts() {
  std::error_code code;
  const auto first = fs::read_symlink("/proc/1/ns/mnt", code);
  return !code && first != fs::read_symlink("/proc/self/ns/mnt", code) && !code;
}

std::string netns_path(std::uint64_t inode) { return fmt::format("{}/{}", kPinRoot, inode); }

}  // namespace

std::string escape_ifname(const std::string& name) {
  std::string escaped;
  for (const char c : name) {
    if (c == '.') {
      escaped += "%2e";
    } else if (c == '%') {
      escaped += "%25";
    } else {
      escaped += c;
    }
  }
  return escaped;
}

std::string unescape_ifname(const std::string& name) {
  std::string plain;
  for (std::size_t i = 0; i < name.size(); ++i) {
    const std::string code = name.substr(i, 3);
    if (code == "%2e" || code == "%25") {
      plain += code == "%2e" ? '.' : '%';
      i += 2;
    } else {
      plain += name[i];
    }
  }
  return plain;
}

std::string PinDir::path() const { return netns_path(netns_inode) + "/" + escape_ifname(ifname); }

Result<UniqueFd> open_pin(const PinDir& dir, const char* name) {
  UniqueFd fd(bpf_obj_get(dir.pin(name).c_str()));
  if (!fd) return fail_errno(errno, "open the pin " + dir.pin(name));
  return fd;
}

Status ensure_bpffs() {
  struct statfs info{};
  if (::statfs(kBpffs, &info) == 0 && info.f_type == BPF_FS_MAGIC) return {};
  if (in_private_mounts()) {
    return fail(
        Exit::Failed,
        fmt::format(
            "mount a bpffs at {}: this process has mounts of its own, and the pins would go with them",
            kBpffs),
        "not inside `ip netns exec`: use --netns NAME");
  }
  if (::mount("bpf", kBpffs, "bpf", MS_NOSUID | MS_NODEV | MS_NOEXEC, "mode=0700") != 0) {
    return fail(Exit::Failed,
                fmt::format("mount a bpffs at {}: {}", kBpffs, std::generic_category().message(errno)),
                fmt::format("as root: mount -t bpf bpf {}", kBpffs));
  }
  return {};
}

Result<UniqueFd> lock_pins() {
  ANIC_TRY(ensure_bpffs());
  for (;;) {
    ANIC_TRY(make_dir(kPinRoot));
    UniqueFd fd(::open(kPinRoot, O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    if (!fd && errno == ENOENT) continue;  // pruned between the two calls
    if (!fd) return fail_errno(errno, fmt::format("open {}", kPinRoot));
    while (::flock(fd.get(), LOCK_EX) != 0) {
      if (errno != EINTR) return fail_errno(errno, fmt::format("lock {}", kPinRoot));
    }
    // Whoever held the lock may have pruned the directory; a lock on a directory without a name holds nobody
    // off.
    struct stat locked{};
    struct stat named{};
    if (::fstat(fd.get(), &locked) == 0 && ::stat(kPinRoot, &named) == 0 && locked.st_ino == named.st_ino)
      return fd;
  }
}

void prune_pins() {
  for (const std::string& netns : list_folder(kPinRoot))
    ::rmdir(fmt::format("{}/{}", kPinRoot, netns).c_str());
  ::rmdir(kPinRoot);
}

Status clean_pins() {
  if (::access(kPinRoot, F_OK) != 0) return {};
  const UniqueFd lock = ANIC_TRY(lock_pins());
  prune_pins();
  return {};
}

Status make_pin_dir(const PinDir& dir) {
  ANIC_TRY(make_dir(netns_path(dir.netns_inode)));
  return make_dir(dir.path());
}

Result<UniqueFd> claim_ring(const PinDir& dir) {
  UniqueFd fd(::open(dir.path().c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!fd) return fail_errno(errno, "open " + dir.path());
  if (::flock(fd.get(), LOCK_EX | LOCK_NB) == 0) return fd;
  if (errno != EWOULDBLOCK) return fail_errno(errno, "lock " + dir.path());
  return fail(Exit::Failed, fmt::format("take records of {}: a recorder takes them", dir.ifname),
              "agentnic-audit tail --log DIR reads what it keeps");
}

bool has_recorder(const PinDir& dir) {
  const UniqueFd fd(::open(dir.path().c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  return fd && ::flock(fd.get(), LOCK_SH | LOCK_NB) != 0 && errno == EWOULDBLOCK;
}

Status remove_pin_dir(const PinDir& dir) {
  std::error_code code;
  fs::remove_all(dir.path(), code);
  if (code) return fail_errno(code.value(), "remove " + dir.path());
  return {};
}

std::vector<PinDir> list_pin_dirs() {
  std::vector<PinDir> dirs;
  for (const std::string& inode_text : list_folder(kPinRoot)) {
    std::uint64_t inode = 0;
    const char* text_end = inode_text.data() + inode_text.size();
    const auto [end, error] = std::from_chars(inode_text.data(), text_end, inode);
    if (error != std::errc() || end != text_end) continue;
    for (const std::string& escaped : list_folder(netns_path(inode)))
      dirs.push_back({inode, unescape_ifname(escaped)});
  }
  return dirs;
}

}  // namespace agentnic::kern
