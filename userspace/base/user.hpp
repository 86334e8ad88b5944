// SPDX-License-Identifier: Apache-2.0
#pragma once

/// Users and groups, and becoming one of them for good.

#include <sys/types.h>

#include <initializer_list>
#include <string>

#include "base/result.hpp"

namespace agentnic {

struct User {
  uid_t uid = 0;
  gid_t gid = 0;
};

/// By name or number. Bad input when there is none, or when it is root or of root's group: for those who give
/// privileges up. `option`: for the hint.
Result<User> find_user(const std::string& user, const std::string& option);
/// By name. Bad input when there is none.
Result<uid_t> find_uid(const std::string& user);
/// By name or number.
Result<gid_t> find_group(const std::string& group);

/// Becomes the user, without other groups, capabilities, and a way to get some.
Status become_user(const User& user);

/// Gives up all capabilities (CAP_*) but these, for good.
Status keep_capabilities(std::initializer_list<unsigned> capabilities);

}  // namespace agentnic
