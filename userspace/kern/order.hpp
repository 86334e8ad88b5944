// SPDX-License-Identifier: Apache-2.0
#pragma once

/// Orders to the guardian: its programs by BPF_PROG_TEST_RUN, with their arguments.

#include <string_view>

#include "abi/guardian.h"
#include "base/result.hpp"

namespace agentnic::kern {

/// Runs a program of the guardian, again while somebody else holds its lock, for a second at most. Its
/// answer: 0 or more, or -errno. `what`: verb and object, for errors.
Result<int> run_order(int prog_fd, const anic_order& order, std::string_view what);

/// The same of a session's drain. `observe`: it writes the observation, too.
Result<int> run_drain(int prog_fd, bool observe, std::string_view what);

}  // namespace agentnic::kern
