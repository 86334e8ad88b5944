// SPDX-License-Identifier: Apache-2.0
#include "kern/bpffs.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <linux/magic.h>
#include <sys/file.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/vfs.h>

#include <cerrno>
#include <charconv>
#include <filesystem>
#include <system_error>

namespace agentnic::kern {
namespace fs = std::filesystem;
namespace {

Status make_dir(const std::string& path) {
  if (::mkdir(path.c_str(), 0700) != 0 && errno != EEXIST) return fail_errno(errno, "make " + path);
  return {};
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

Status ensure_bpffs() {
  struct statfs info{};
  if (::statfs(kBpffs, &info) == 0 && info.f_type == BPF_FS_MAGIC) return {};
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

void prune_pins() { ::rmdir(kPinRoot); }

Status make_pin_dir(const PinDir& dir) {
  ANIC_TRY(make_dir(netns_path(dir.netns_inode)));
  return make_dir(dir.path());
}

Status remove_pin_dir(const PinDir& dir) {
  std::error_code code;
  fs::remove_all(dir.path(), code);
  if (code) return fail_errno(code.value(), "remove " + dir.path());
  fs::remove(netns_path(dir.netns_inode), code);  // refuses, rightly, while another interface is in there
  return {};
}

std::vector<PinDir> list_pin_dirs() {
  std::vector<PinDir> dirs;
  std::error_code ignored;
  for (const auto& ns : fs::directory_iterator(kPinRoot, ignored)) {
    const std::string inode_text = ns.path().filename();
    std::uint64_t inode = 0;
    const auto [end, error] =
        std::from_chars(inode_text.data(), inode_text.data() + inode_text.size(), inode);
    if (error != std::errc() || *end != '\0') continue;
    for (const auto& entry : fs::directory_iterator(ns.path(), ignored)) {
      dirs.push_back({inode, unescape_ifname(entry.path().filename())});
    }
  }
  return dirs;
}

}  // namespace agentnic::kern
