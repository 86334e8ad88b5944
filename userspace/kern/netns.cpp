// SPDX-License-Identifier: Apache-2.0
#include "kern/netns.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <sched.h>
#include <sys/socket.h>
#include <sys/stat.h>

#include <algorithm>
#include <cerrno>
#include <thread>

#include "base/file.hpp"

#ifndef SO_NETNS_COOKIE
#define SO_NETNS_COOKIE 71
#endif

namespace agentnic::kern {
namespace {

constexpr const char* kNamedDir = "/run/netns";

Result<std::uint64_t> cookie_here() {
  const UniqueFd socket_fd(::socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0));
  std::uint64_t cookie = 0;
  socklen_t size = sizeof(cookie);
  if (!socket_fd || ::getsockopt(socket_fd.get(), SOL_SOCKET, SO_NETNS_COOKIE, &cookie, &size) != 0) {
    return fail_errno(errno, "read the cookie of a network namespace");
  }
  return cookie;
}

}  // namespace

Result<NetNs> NetNs::from_path(const std::string& path, const std::string& name) {
  NetNs ns;
  ns.name_ = name;
  ns.fd_.reset(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  if (!ns.fd_) return fail_errno(errno, "open " + path);
  struct stat info{};
  if (::fstat(ns.fd_.get(), &info) != 0) return fail_errno(errno, "stat " + path);
  ns.inode_ = info.st_ino;
  return ns;
}

Result<NetNs> NetNs::current() {
  NetNs ns = ANIC_TRY(from_path("/proc/thread-self/ns/net", ""));
  ns.cookie_ = ANIC_TRY(cookie_here());
  ns.is_current_ = true;
  return ns;
}

Result<NetNs> NetNs::open(const std::string& name) {
  const std::string path = fmt::format("{}/{}", kNamedDir, name);
  if (name.empty() || name.find('/') != std::string::npos || name == "." || name == ".." ||
      ::access(path.c_str(), F_OK) != 0) {
    return fail(Exit::BadInput, fmt::format("open netns {}: there is none with this name", name),
                "ip netns list");
  }
  NetNs ns = ANIC_TRY(from_path(path, name));
  ns.cookie_ = ANIC_TRY(ns.run(cookie_here));
  return ns;
}

std::optional<NetNs> NetNs::find(std::uint64_t inode, std::uint64_t cookie) {
  if (auto here = current(); here && here->inode() == inode && here->cookie() == cookie)
    return std::move(*here);
  for (const std::string& name : list_folder(kNamedDir)) {
    struct stat info{};
    if (::stat(fmt::format("{}/{}", kNamedDir, name).c_str(), &info) != 0 || info.st_ino != inode) continue;
    auto named = open(name);
    if (named && named->inode() == inode && named->cookie() == cookie) return std::move(*named);
  }
  return std::nullopt;
}

bool NetNs::has_processes(std::uint64_t inode) {
  return std::ranges::any_of(list_folder("/proc"), [&](const std::string& pid) {
    struct stat info{};
    return ::stat(fmt::format("/proc/{}/ns/net", pid).c_str(), &info) == 0 && info.st_ino == inode;
  });
}

Status NetNs::run_inside(const std::function<void()>& call) const {
  if (is_current_) {
    call();
    return {};
  }
  int code = 0;
  std::thread([&] {
    if (::setns(fd_.get(), CLONE_NEWNET) != 0) {
      code = errno;
    } else {
      call();
    }
  }).join();
  if (code != 0)
    return fail_errno(code, fmt::format("enter netns {}", name_), "this takes CAP_SYS_ADMIN: run as root");
  return {};
}

Status NetNs::enter() const {
  if (::setns(fd_.get(), CLONE_NEWNET) != 0) {
    return fail_errno(errno, fmt::format("enter netns {}", name_), "this takes CAP_SYS_ADMIN: run as root");
  }
  return {};
}

}  // namespace agentnic::kern
