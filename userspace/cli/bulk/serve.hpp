// SPDX-License-Identifier: Apache-2.0
#pragma once

/// agentnic-bulk serve.

#include "cli/common/program.hpp"

namespace agentnic::cli {

void add_bulk_serve(Program& program);

}  // namespace agentnic::cli
