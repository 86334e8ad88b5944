// SPDX-License-Identifier: Apache-2.0
#pragma once

/// What a document says, fit for a message: short, and without control characters.

#include <string>
#include <string_view>

namespace agentnic::policy {

/// `text` cut to a length that a line can bear.
std::string shortened(std::string_view text);

/// As a JSON string in ASCII, shortened.
std::string json_text(std::string_view text);

}  // namespace agentnic::policy
