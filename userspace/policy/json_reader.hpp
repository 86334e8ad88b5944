// SPDX-License-Identifier: Apache-2.0
#pragma once

/// Strict reading of JSON: every key known, every key once, every fault with its place. For those who read
/// what somebody else wrote.

#include <cstdint>
#include <nlohmann/json.hpp>
#include <optional>
#include <set>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.hpp"

namespace agentnic::policy {

using Json = nlohmann::json;
using Pointer = Json::json_pointer;

/// A fault in the document: thrown where it is found, caught by who began to read, nowhere else.
struct Fault {
  std::optional<std::string> where;  ///< JSON pointer; nothing: it is not JSON
  std::string reason;
  std::string hint;

  /// `/json/pointer: reason`, or the reason alone.
  [[nodiscard]] std::string text() const;
};

/// Watches the parser for what nlohmann::json lets pass: a key that stands twice, and nesting without end.
class Watcher {
 public:
  bool operator()(int depth, Json::parse_event_t event, Json& value);

  [[nodiscard]] const std::optional<Fault>& fault() const { return fault_; }

 private:
  struct Frame {
    bool is_array;
    std::size_t index;
    std::string key;
    std::set<std::string> keys;
  };

  void next();
  [[nodiscard]] std::string where() const;

  std::vector<Frame> frames_;
  std::optional<Fault> fault_;
};

/// What the text says, or a Fault; that of what is not JSON at all has no place but in its words.
Json parse_json(std::string_view text);

/// The value, or a Fault.
std::string string_at(const Json& value, const Pointer& at);
std::int64_t integer_at(const Json& value, const Pointer& at, std::int64_t low, std::int64_t high);
std::string name_at(const Json& value, const Pointer& at);

/// The index among `words` of the one that stands there, or a Fault.
std::size_t word_at(const Json& value, const Pointer& at, std::span<const std::string_view> words);

/// A Fault unless this word stands there.
void expect_word(const Json& value, const Pointer& at, std::string_view word);

/// What a parser of text makes of the string, its error as a Fault.
template <typename Parser>
auto parsed_at(const Json& value, const Pointer& at, Parser parser) {
  // What belongs here is in the parser's hint, whatever it is given.
  if (!value.is_string()) {
    throw Fault{at.to_string(), std::string("a string belongs here, not ") + value.type_name(),
                parser("").error().hint};
  }
  auto result = parser(value.get_ref<const std::string&>());
  if (!result) throw Fault{at.to_string(), result.error().what, result.error().hint};
  return *std::move(result);
}

/// One JSON object with keys of a known set; each function takes one of them.
class ObjectReader {
 public:
  ObjectReader(const Json& json, Pointer at, std::span<const std::string_view> known);

  [[nodiscard]] Pointer at(const char* key) const { return at_ / key; }
  [[nodiscard]] bool has(const char* key) const { return json_.contains(key); }

  const Json& need(const char* key) const;
  std::int64_t integer(const char* key, std::int64_t low, std::int64_t high) const;
  [[nodiscard]] bool boolean(const char* key) const;
  [[nodiscard]] std::string name(const char* key) const { return name_at(need(key), at(key)); }

  /// The word at `key`, which must be one of `words`: its index.
  [[nodiscard]] std::size_t one_of(const char* key, std::span<const std::string_view> words) const {
    return word_at(need(key), at(key), words);
  }

  /// Calls `read` with each element of the array at `key` and its pointer; no key is an empty array.
  template <typename Read>
  void each(const char* key, const Read& read) const {
    if (!has(key)) return;
    const Pointer list = at(key);
    for (std::size_t i = 0; const Json& element : need_array(key)) read(element, list / i++);
  }

 private:
  [[nodiscard]] const Json& need_array(const char* key) const;

  const Json& json_;
  Pointer at_;
};

}  // namespace agentnic::policy
