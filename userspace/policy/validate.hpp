// SPDX-License-Identifier: Apache-2.0
#pragma once

/// What no single value shows: that two places of a policy contradict each other.

#include "policy/model.hpp"

namespace agentnic::policy {

/// Throws the first Fault (json_reader.hpp), which names both places.
void validate(const Policy& policy);

}  // namespace agentnic::policy
