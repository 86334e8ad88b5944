// SPDX-License-Identifier: Apache-2.0
#pragma once

/// agentnic-load propose: one proposal by hand, in a session of its own.

#include "cli/common/program.hpp"

namespace agentnic::cli {

void add_propose(Program& program);

}  // namespace agentnic::cli
