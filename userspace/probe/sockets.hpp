// SPDX-License-Identifier: Apache-2.0
#pragma once

/// Tries of what path A takes from the kernel's sockets and from NAPI, which polls their devices. Each is the
/// attempt of a row in features.cpp.

#include "base/result.hpp"
#include "probe/answer.hpp"
#include "probe/ground.hpp"

namespace agentnic::probe {

Result<Answer> reuseport_program(Ground& ground);
Result<Answer> socket_busy_poll(Ground& ground);
Result<Answer> epoll_busy_poll(Ground& ground);
Result<Answer> joined_datagrams(Ground& ground);
Result<Answer> napi_settings(Ground& ground);
Result<Answer> napi_threaded(Ground& ground);

}  // namespace agentnic::probe
