// SPDX-License-Identifier: Apache-2.0
#include "policy/json_reader.hpp"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <functional>
#include <utility>

#include "abi/types.h"
#include "policy/parse.hpp"
#include "policy/text.hpp"

namespace agentnic::policy {
namespace {

/// A value in a message; what is large is only named.
std::string excerpt(const Json& value) {
  if (value.is_structured()) return value.type_name();
  return value.is_string() ? json_text(value.get_ref<const std::string&>()) : value.dump();
}

/// A JSON pointer for a message: control characters in keys stay out of terminals.
std::string printable(const std::string& where) {
  const std::string text = json_text(where);
  return where.empty() ? "/" : text.substr(1, text.size() - 2);
}

/// What nlohmann::json says, without its own error number; what it quotes of the input stays out of
/// terminals.
std::string plain(const Json::exception& error) {
  std::string_view text = error.what();
  if (const auto end = text.find("] "); end != std::string_view::npos) text.remove_prefix(end + 2);
  const std::string quoted = json_text(shortened(text));
  return quoted.substr(1, quoted.size() - 2);
}

}  // namespace

std::string Fault::text() const { return where ? fmt::format("{}: {}", printable(*where), reason) : reason; }

bool Watcher::operator()(int depth, Json::parse_event_t event, Json& value) {
  using Event = Json::parse_event_t;
  if (fault_) return false;
  switch (event) {
    case Event::object_start:
    case Event::array_start:
      if (depth >= kMaxDepth) {
        fault_ = Fault{where(), fmt::format("nested more than {} levels deep", kMaxDepth), ""};
        return false;
      }
      frames_.push_back({event == Event::array_start, 0, {}, {}});
      break;
    case Event::key:
      frames_.back().key = value.get<std::string>();
      if (!frames_.back().keys.insert(frames_.back().key).second) {
        fault_ = Fault{where(), "this key stands twice", "keep one of them"};
      }
      break;
    case Event::object_end:
    case Event::array_end:
      frames_.pop_back();
      next();
      break;
    case Event::value:
      next();
      break;
  }
  return true;
}

void Watcher::next() {
  if (!frames_.empty() && frames_.back().is_array) ++frames_.back().index;
}

std::string Watcher::where() const {
  Pointer pointer;
  for (const Frame& frame : frames_) {
    if (frame.is_array) {
      pointer /= frame.index;
    } else if (!frame.key.empty()) {
      pointer /= frame.key;
    }
  }
  return pointer.to_string();
}

Json parse_json(std::string_view text) {
  Watcher watcher;
  try {
    Json json = Json::parse(text, std::ref(watcher));
    if (watcher.fault()) throw Fault(*watcher.fault());
    return json;
  } catch (const Json::exception& error) {               // not JSON, or a number beyond all numbers
    if (watcher.fault()) throw Fault(*watcher.fault());  // it stands before that
    throw Fault{std::nullopt, plain(error), ""};
  }
}

std::string string_at(const Json& value, const Pointer& at) {
  if (!value.is_string()) {
    throw Fault{at.to_string(), fmt::format("a string belongs here, not {}", value.type_name()), ""};
  }
  return value.get<std::string>();
}

std::int64_t integer_at(const Json& value, const Pointer& at, std::int64_t low, std::int64_t high) {
  const bool fits = value.is_number_unsigned()
                        ? value.get<std::uint64_t>() <= static_cast<std::uint64_t>(high)
                        : value.is_number_integer();
  if (!fits || value.get<std::int64_t>() < low || value.get<std::int64_t>() > high) {
    throw Fault{at.to_string(),
                fmt::format("{} is not a whole number from {} to {}", excerpt(value), low, high), ""};
  }
  return value.get<std::int64_t>();
}

std::string name_at(const Json& value, const Pointer& at) {
  std::string name = string_at(value, at);
  const auto good = [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '-' || c == '_' || c == '.';
  };
  if (name.empty() || name.size() >= ANIC_NAME_LEN || !std::ranges::all_of(name, good)) {
    throw Fault{at.to_string(), fmt::format("{} is not a name", json_text(name)),
                fmt::format("1 to {} of a-z 0-9 - _ .", ANIC_NAME_LEN - 1)};
  }
  return name;
}

std::size_t word_at(const Json& value, const Pointer& at, std::span<const std::string_view> words) {
  const std::string word = string_at(value, at);
  const auto found = std::ranges::find(words, word);
  if (found == words.end()) {
    throw Fault{at.to_string(), fmt::format("{} is not known here", json_text(word)),
                fmt::format("one of: {}", fmt::join(words, ", "))};
  }
  return static_cast<std::size_t>(found - words.begin());
}

void expect_word(const Json& value, const Pointer& at, std::string_view word) {
  word_at(value, at, std::span(&word, 1));
}

ObjectReader::ObjectReader(const Json& json, Pointer at, std::span<const std::string_view> known)
    : json_(json), at_(std::move(at)) {
  if (!json.is_object()) {
    throw Fault{at_.to_string(), fmt::format("an object belongs here, not {}", json.type_name()), ""};
  }
  for (const auto& [key, value] : json.items()) {
    if (std::ranges::find(known, key) == known.end()) {
      throw Fault{(at_ / key).to_string(), "unknown key",
                  fmt::format("known here: {}", fmt::join(known, ", "))};
    }
  }
}

const Json& ObjectReader::need(const char* key) const {
  const auto found = json_.find(key);
  if (found == json_.end()) {
    throw Fault{at_.to_string(), fmt::format("the key {} is missing", json_text(key)), ""};
  }
  return *found;
}

std::int64_t ObjectReader::integer(const char* key, std::int64_t low, std::int64_t high) const {
  return integer_at(need(key), at(key), low, high);
}

bool ObjectReader::boolean(const char* key) const {
  const Json& value = need(key);
  if (!value.is_boolean()) {
    throw Fault{at(key).to_string(), fmt::format("true or false belongs here, not {}", value.type_name()),
                ""};
  }
  return value.get<bool>();
}

const Json& ObjectReader::need_array(const char* key) const {
  const Json& value = need(key);
  if (!value.is_array()) {
    throw Fault{at(key).to_string(), fmt::format("an array belongs here, not {}", value.type_name()), ""};
  }
  return value;
}

}  // namespace agentnic::policy
