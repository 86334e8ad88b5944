// SPDX-License-Identifier: Apache-2.0
#include "base/user.hpp"

#include <cap-ng.h>
#include <fmt/format.h>
#include <grp.h>
#include <pwd.h>
#include <sys/prctl.h>

#include <cerrno>
#include <charconv>
#include <optional>

namespace agentnic {
namespace {

std::optional<std::uint32_t> number_in(const std::string& text) {
  std::uint32_t number = 0;
  const auto [end, code] = std::from_chars(text.data(), text.data() + text.size(), number);
  if (code != std::errc() || end != text.data() + text.size()) return std::nullopt;
  return number;
}

}  // namespace

Result<User> find_user(const std::string& user, const std::string& option) {
  User found;
  if (const passwd* entry = ::getpwnam(user.c_str())) {
    found = {.uid = entry->pw_uid, .gid = entry->pw_gid};
  } else if (const auto number = number_in(user)) {
    const passwd* by_number = ::getpwuid(*number);
    found = {.uid = *number, .gid = by_number != nullptr ? by_number->pw_gid : *number};
  } else {
    return fail(Exit::BadInput, fmt::format("there is no user {}", user), option + " NAME");
  }
  if (found.uid == 0 || found.gid == 0)
    return fail(Exit::BadInput, fmt::format("user {} is root, or of its group", user),
                option + " with one that has no privileges");
  return found;
}

Result<uid_t> find_uid(const std::string& user) {
  errno = 0;
  if (const passwd* entry = ::getpwnam(user.c_str())) return entry->pw_uid;
  // what else stands there is not an error: getpwnam(3)
  if (const int code = errno;
      code == EINTR || code == EIO || code == EMFILE || code == ENFILE || code == ENOMEM)
    return fail_errno(code, "find the user " + user);
  return fail(Exit::BadInput, fmt::format("there is no user {}", user), "useradd makes one");
}

Result<gid_t> find_group(const std::string& group) {
  if (const ::group* entry = ::getgrnam(group.c_str())) return entry->gr_gid;
  if (const auto number = number_in(group)) return *number;
  return fail(Exit::BadInput, fmt::format("there is no group {}", group), "--group NAME");
}

Status become_user(const User& user) {
  ::capng_clear(CAPNG_SELECT_ALL);
  const auto flags =
      static_cast<capng_flags_t>(CAPNG_DROP_SUPP_GRP | CAPNG_CLEAR_BOUNDING | CAPNG_CLEAR_AMBIENT);
  if (const int code = ::capng_change_id(static_cast<int>(user.uid), static_cast<int>(user.gid), flags);
      code != 0)
    return fail(Exit::Failed, fmt::format("become user {}: libcap-ng's error {}", user.uid, code));
  if (::prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0) return fail_errno(errno, "set no_new_privs");
  return {};
}

Status keep_capabilities(std::initializer_list<unsigned> capabilities) {
  ::capng_clear(CAPNG_SELECT_ALL);
  for (const unsigned one : capabilities)
    ::capng_update(CAPNG_ADD,
                   static_cast<capng_type_t>(CAPNG_EFFECTIVE | CAPNG_PERMITTED | CAPNG_BOUNDING_SET), one);
  if (const int code = ::capng_apply(CAPNG_SELECT_ALL); code != 0)
    return fail(Exit::Failed, fmt::format("give capabilities up: libcap-ng's error {}", code));
  if (::prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0) return fail_errno(errno, "set no_new_privs");
  return {};
}

}  // namespace agentnic
