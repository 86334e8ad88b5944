// SPDX-License-Identifier: Apache-2.0
#pragma once

/// Tries of what path A takes from io_uring. Each is the attempt of a row in features.cpp.

#include "base/result.hpp"
#include "probe/answer.hpp"
#include "probe/ground.hpp"

namespace agentnic::probe {

/// A ring as path::Ring makes it, and on it what every server over io_uring uses: accepting and receiving
/// again and again by one request, into buffers that the kernel takes when it needs one.
Result<Answer> uring(Ground& ground);
Result<Answer> uring_bundle(Ground& ground);
Result<Answer> uring_send_zerocopy(Ground& ground);
Result<Answer> uring_busy_poll(Ground& ground);
/// Whether this kernel has it at all. Which NIC has it, its driver says when a queue is registered.
Result<Answer> zcrx(Ground& ground);
Result<Answer> zcrx_without_device(Ground& ground);

}  // namespace agentnic::probe
