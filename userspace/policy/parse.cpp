// SPDX-License-Identifier: Apache-2.0
#include "policy/parse.hpp"

#include <fmt/format.h>
#include <fmt/ranges.h>
#include <netinet/in.h>
#include <sodium.h>

#include <algorithm>
#include <array>
#include <nlohmann/json.hpp>
#include <optional>
#include <set>
#include <span>
#include <utility>
#include <vector>

#include "abi/flow.h"
#include "base/file.hpp"

namespace agentnic::policy {
namespace {

using Json = nlohmann::json;
using Pointer = Json::json_pointer;

constexpr std::array<std::string_view, 4> kClassWords = {"default", "rpc", "retrieval", "bulk"};

/// A fault in the document: thrown where it is found, caught in parse(), nowhere else.
struct Fault {
  std::string where;  ///< JSON pointer
  std::string reason;
  std::string hint;
};

std::string json_text(std::string_view text) {
  return Json(text).dump(-1, ' ', true, Json::error_handler_t::replace);
}

/// A JSON pointer for a message: control characters in keys stay out of terminals.
std::string printable(const std::string& where) {
  const std::string text = json_text(where);
  return where.empty() ? "/" : text.substr(1, text.size() - 2);
}

/// Watches the parser for what nlohmann::json lets pass: a key that stands twice, and nesting without end.
class Watcher {
 public:
  bool operator()(int depth, Json::parse_event_t event, Json& value) {
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

  [[nodiscard]] const std::optional<Fault>& fault() const { return fault_; }

 private:
  struct Frame {
    bool is_array;
    std::size_t index;
    std::string key;
    std::set<std::string> keys;
  };

  void next() {
    if (!frames_.empty() && frames_.back().is_array) ++frames_.back().index;
  }

  [[nodiscard]] std::string where() const {
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

  std::vector<Frame> frames_;
  std::optional<Fault> fault_;
};

/// One JSON object whose keys are taken one by one; what is left at the end is unknown.
class ObjectReader {
 public:
  ObjectReader(const Json& json, Pointer at, std::span<const std::string_view> known)
      : json_(json), at_(std::move(at)) {
    if (!json.is_object())
      throw Fault{at_.to_string(), fmt::format("an object belongs here, not {}", json.type_name()), ""};
    for (const auto& [key, value] : json.items()) {
      if (std::ranges::find(known, key) == known.end()) {
        throw Fault{(at_ / key).to_string(), "unknown key",
                    fmt::format("known here: {}", fmt::join(known, ", "))};
      }
    }
  }

  [[nodiscard]] Pointer at(const char* key) const { return at_ / key; }

  const Json& need(const char* key) const {
    const auto found = json_.find(key);
    if (found == json_.end())
      throw Fault{at_.to_string(), fmt::format("the key {} is missing", json_text(key)), ""};
    return *found;
  }

  std::string text(const char* key) const {
    const Json& value = need(key);
    if (!value.is_string())
      throw Fault{at(key).to_string(), fmt::format("a string belongs here, not {}", value.type_name()), ""};
    return value.get<std::string>();
  }

  std::int64_t integer(const char* key, std::int64_t low, std::int64_t high) const {
    const Json& value = need(key);
    const bool fits = value.is_number_unsigned()
                          ? value.get<std::uint64_t>() <= static_cast<std::uint64_t>(high)
                          : value.is_number_integer();
    if (!fits || value.get<std::int64_t>() < low || value.get<std::int64_t>() > high) {
      throw Fault{at(key).to_string(),
                  fmt::format("{} is not a whole number from {} to {}", value.dump(), low, high), ""};
    }
    return value.get<std::int64_t>();
  }

  std::string name(const char* key) const {
    const std::string value = text(key);
    const auto good = [](char c) {
      return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '-' || c == '_' || c == '.';
    };
    if (value.empty() || value.size() >= ANIC_NAME_LEN || !std::ranges::all_of(value, good)) {
      throw Fault{at(key).to_string(), fmt::format("{} is not a name", json_text(value)),
                  fmt::format("1 to {} of a-z 0-9 - _ .", ANIC_NAME_LEN - 1)};
    }
    return value;
  }

  /// The word at `key`, which must be one of `words`.
  std::string one_of(const char* key, std::span<const std::string_view> words) const {
    const std::string value = text(key);
    if (std::ranges::find(words, value) == words.end()) {
      throw Fault{at(key).to_string(), fmt::format("{} is not known here", json_text(value)),
                  fmt::format("one of: {}", fmt::join(words, ", "))};
    }
    return value;
  }

  const Json& list(const char* key) const {
    const Json& value = need(key);
    if (!value.is_array())
      throw Fault{at(key).to_string(), fmt::format("an array belongs here, not {}", value.type_name()), ""};
    return value;
  }

 private:
  const Json& json_;
  Pointer at_;
};

std::uint8_t read_protocol(const ObjectReader& object) {
  constexpr std::array<std::string_view, 2> kWords = {"udp", "tcp"};
  return object.one_of("protocol", kWords) == "udp" ? IPPROTO_UDP : IPPROTO_TCP;
}

std::uint16_t read_port(const ObjectReader& object) {
  return static_cast<std::uint16_t>(object.integer("port", 1, ANIC_PORTS - 1));
}

Service read_service(const Json& json, const Pointer& at) {
  constexpr std::array<std::string_view, 5> kKeys = {"name", "protocol", "port", "class", "path"};
  constexpr std::array<std::string_view, 2> kPathWords = {"kernel", "xsk"};
  const ObjectReader object(json, at, kKeys);
  Service service;
  service.name = object.name("name");
  service.protocol = read_protocol(object);
  service.port = read_port(object);
  const auto word = std::ranges::find(kClassWords, object.one_of("class", kClassWords));
  service.cls = static_cast<anic_class>(ANIC_CLASS_DEFAULT + (word - kClassWords.begin()));
  service.path = object.one_of("path", kPathWords) == "xsk" ? ANIC_PATH_XSK : ANIC_PATH_KERNEL;
  if (service.path == ANIC_PATH_XSK && service.protocol != IPPROTO_UDP) {
    throw Fault{object.at("path").to_string(), "path xsk carries udp only",
                "a tcp service belongs on path kernel: an AF_XDP socket has no TCP"};
  }
  return service;
}

ControlPort read_control(const Json& json, const Pointer& at) {
  constexpr std::array<std::string_view, 2> kKeys = {"protocol", "port"};
  const ObjectReader object(json, at, kKeys);
  return {.protocol = read_protocol(object), .port = read_port(object)};
}

/// Throws when a name or a port belongs to two.
class Uniqueness {
 public:
  void name(const std::string& name, const Pointer& at) { claim("the name " + name, at); }
  void port(std::uint8_t protocol, std::uint16_t port, const Pointer& at) {
    claim(fmt::format("{} port {}", protocol_name(protocol), port), at);
  }

 private:
  void claim(const std::string& what, const Pointer& at) {
    const auto [owner, fresh] = owners_.emplace(what, at.to_string());
    if (!fresh) throw Fault{at.to_string(), fmt::format("{} is taken by {}", what, owner->second), ""};
  }
  std::map<std::string, std::string> owners_;
};

Policy read_policy(const Json& json) {
  constexpr std::array<std::string_view, 4> kKeys = {"version", "name", "services", "control"};
  const ObjectReader object(json, Pointer(), kKeys);
  object.integer("version", 1, 1);
  Policy policy;
  policy.name = object.name("name");
  Uniqueness unique;
  if (json.contains("control")) {
    for (std::size_t i = 0; const Json& entry : object.list("control")) {
      const Pointer at = object.at("control") / i++;
      policy.control.push_back(read_control(entry, at));
      unique.port(policy.control.back().protocol, policy.control.back().port, at / "port");
    }
  }
  for (std::size_t i = 0; const Json& entry : object.list("services")) {
    const Pointer at = object.at("services") / i++;
    if (i >= ANIC_SERVICES_MAX) {
      throw Fault{at.to_string(), fmt::format("more than {} services", ANIC_SERVICES_MAX - 1), ""};
    }
    policy.services.push_back(read_service(entry, at));
    const Service& service = policy.services.back();
    unique.name(service.name, at / "name");
    unique.port(service.protocol, service.port, at / "port");
  }
  const std::string canonical = json.dump();
  crypto_hash_sha256(policy.digest.data(), reinterpret_cast<const unsigned char*>(canonical.data()),
                     canonical.size());
  return policy;
}

/// What nlohmann::json says, without its own error number.
std::string plain(const Json::exception& error) {
  std::string_view text = error.what();
  if (const auto end = text.find("] "); end != std::string_view::npos) text.remove_prefix(end + 2);
  return std::string(text);
}

}  // namespace

Result<Policy> parse(std::string_view text, const std::string& name) {
  const auto report = [&](const Fault& fault) {
    return fail(Exit::BadInput, fmt::format("{}: {}: {}", name, printable(fault.where), fault.reason),
                fault.hint);
  };
  try {
    Watcher watcher;
    const Json json = Json::parse(text, std::ref(watcher));
    if (watcher.fault()) return report(*watcher.fault());
    return read_policy(json);
  } catch (const Fault& fault) {
    return report(fault);
  } catch (const Json::parse_error& error) {
    return fail(Exit::BadInput, fmt::format("{}: {}", name, plain(error)));
  } catch (const Json::exception& error) {  // a number beyond all numbers, for one
    return fail(Exit::BadInput, fmt::format("{}: {}", name, plain(error)));
  }
}

Result<Policy> load(const std::string& path) {
  const std::string text = ANIC_TRY(read_file(path, kMaxBytes));
  return parse(text, path);
}

}  // namespace agentnic::policy
