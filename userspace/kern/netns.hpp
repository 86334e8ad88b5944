// SPDX-License-Identifier: Apache-2.0
#pragma once

/// Network namespaces: found by name or by inode, entered for the length of one call.

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <type_traits>

#include "base/result.hpp"
#include "base/unique_fd.hpp"

namespace agentnic::kern {

/// An open network namespace. Move-only; holding it keeps the namespace alive.
class NetNs final {
 public:
  static Result<NetNs> current();
  /// The namespace that `ip netns` calls `name`.
  static Result<NetNs> open(const std::string& name);
  /// open(name), or the current one when `name` is empty.
  static Result<NetNs> open_or_current(const std::string& name) {
    return name.empty() ? current() : open(name);
  }
  /// The namespace with this inode and cookie, if it is the current one or has a name.
  static std::optional<NetNs> find(std::uint64_t inode, std::uint64_t cookie);

  /// Whether a process lives in a namespace with this inode. One that only a mount keeps is not seen.
  static bool has_processes(std::uint64_t inode);

  [[nodiscard]] std::uint64_t inode() const noexcept { return inode_; }
  /// SO_NETNS_COOKIE: unlike the inode never used again.
  [[nodiscard]] std::uint64_t cookie() const noexcept { return cookie_; }
  /// Empty for a namespace without one.
  [[nodiscard]] const std::string& name() const noexcept { return name_; }
  /// ` in netns NAME`, or nothing: for messages.
  [[nodiscard]] std::string suffix() const { return name_.empty() ? "" : " in netns " + name_; }

  /// Runs `call` on a thread of its own inside this namespace (in place, when it is the
  /// current one), and waits for it. The caller's namespace
  /// does not change, and sockets that `call` opens stay in this one. `call` returns a Result.
  template <typename Call>
  auto run(Call&& call) const -> std::invoke_result_t<Call> {
    std::optional<std::invoke_result_t<Call>> result;
    const Status entered = run_inside([&] { result.emplace(call()); });
    if (!entered) return fail(entered.error());
    return std::move(*result);
  }

  /// Moves the whole process into this namespace. Only before it starts threads.
  [[nodiscard]] Status enter() const;

 private:
  static Result<NetNs> from_path(const std::string& path, const std::string& name);
  [[nodiscard]] Status run_inside(const std::function<void()>& call) const;

  UniqueFd fd_;
  std::uint64_t inode_ = 0;
  std::uint64_t cookie_ = 0;
  std::string name_;
  bool is_current_ = false;  ///< entering takes no privilege
};

}  // namespace agentnic::kern
