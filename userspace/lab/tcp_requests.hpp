// SPDX-License-Identifier: Apache-2.0
#pragma once

/// Rows of `agentnic-bench compare` of small TCP requests: a server that uses io_uring against one that uses
/// epoll, by what its core is busy for.

#include "base/json.hpp"
#include "base/result.hpp"
#include "lab/measure.hpp"

namespace agentnic::lab {

Result<Json> uring_vs_epoll(const Bench& bench);
Result<Json> uring_vs_epoll_one(const Bench& bench);

}  // namespace agentnic::lab
