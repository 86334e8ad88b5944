// SPDX-License-Identifier: Apache-2.0
#pragma once

/// agentnic-load serve: hands AF_XDP sockets to unprivileged programs.

#include "cli/common/program.hpp"

namespace agentnic::cli {

void add_serve(Program& program);

}  // namespace agentnic::cli
