// SPDX-License-Identifier: Apache-2.0
#pragma once

/// The keys `guardian` and `agents` of a policy. Only parse.cpp needs this.

#include "policy/json_reader.hpp"
#include "policy/model.hpp"

namespace agentnic::policy {

/// What is not stated has the value of kDefaultEnvelope. Throws the first Fault, as does the next.
anic_envelope read_guardian(const Json& json, const Pointer& at);

Agent read_agent(const Json& json, const Pointer& at);

}  // namespace agentnic::policy
