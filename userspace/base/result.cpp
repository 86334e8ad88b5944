// SPDX-License-Identifier: Apache-2.0
#include "base/result.hpp"

#include <cstdlib>

namespace agentnic {

Error Error::from_errno(int code, std::string what, std::string hint) {
  code = std::abs(code);
  const bool unsupported = code == EOPNOTSUPP || code == ENOSYS;
  what += ": " + std::generic_category().message(code);
  return {unsupported ? Exit::Unsupported : Exit::Failed, std::move(what), std::move(hint)};
}

std::string Error::text() const { return hint.empty() ? what : what + "; hint: " + hint; }

}  // namespace agentnic
