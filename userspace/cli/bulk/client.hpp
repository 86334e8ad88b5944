// SPDX-License-Identifier: Apache-2.0
#pragma once

/// agentnic-bulk push and pull.

#include "cli/common/program.hpp"

namespace agentnic::cli {

void add_push(Program& program);
void add_pull(Program& program);

}  // namespace agentnic::cli
