// SPDX-License-Identifier: Apache-2.0
#include "policy/text.hpp"

#include <nlohmann/json.hpp>

namespace agentnic::policy {

std::string shortened(std::string_view text) {
  constexpr std::size_t kLongest = 200;
  if (text.size() <= kLongest) return std::string(text);
  std::size_t end = kLongest;
  while (end > 0 && (static_cast<unsigned char>(text[end]) & 0xc0U) == 0x80U) --end;  // no half of UTF-8
  return std::string(text.substr(0, end)) + "...";
}

std::string json_text(std::string_view text) {
  const nlohmann::json json(shortened(text));
  return json.dump(-1, ' ', true, nlohmann::json::error_handler_t::replace);
}

}  // namespace agentnic::policy
