// SPDX-License-Identifier: Apache-2.0
#pragma once

/// The JSON that the programs print and read back.

#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <utility>

namespace agentnic {

/// Keys stay in the order in which they were written.
using Json = nlohmann::ordered_json;

/// null in the place of what is not there.
template <typename Value>
Json or_null(bool there, Value&& value) {
  return there ? Json(std::forward<Value>(value)) : Json(nullptr);
}
template <typename Value>
Json or_null(const std::optional<Value>& value) {
  return value ? Json(*value) : Json(nullptr);
}
inline Json or_null(const std::string& text) { return text.empty() ? Json(nullptr) : Json(text); }

}  // namespace agentnic
