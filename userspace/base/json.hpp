// SPDX-License-Identifier: Apache-2.0
#pragma once

/// The JSON that the programs print and read back.

#include <nlohmann/json.hpp>

namespace agentnic {

/// Keys stay in the order in which they were written.
using Json = nlohmann::ordered_json;

}  // namespace agentnic
