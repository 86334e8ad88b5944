// SPDX-License-Identifier: Apache-2.0
#pragma once

/// agentnic-load failsafe: an operator puts a tenant or the instance in fail-safe, or takes it out.

#include "cli/common/program.hpp"

namespace agentnic::cli {

void add_failsafe(Program& program);

}  // namespace agentnic::cli
