// SPDX-License-Identifier: Apache-2.0
#include "policy/parse_guardian.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <array>

#include "policy/units.hpp"

namespace agentnic::policy {
namespace {

template <std::size_t N>
using Words = std::array<std::string_view, N>;

constexpr std::uint64_t kMicrosecond = 1'000;
constexpr std::uint64_t kMillisecond = 1'000'000;
constexpr std::uint64_t kSecond = 1'000'000'000;
constexpr std::int64_t kMaxCount = 1000;
constexpr std::int64_t kMaxRejections = 1'000'000;
constexpr std::int64_t kMaxSamples = 1'000'000;
constexpr std::int64_t kMaxChanges = 10'000'000;

// Each of the next three leaves `value`, the default, as it is where the key is not stated.

void read_number(const ObjectReader& object, const char* key, std::int64_t low, std::int64_t high,
                 __u32& value) {
  if (object.has(key)) value = static_cast<__u32>(object.integer(key, low, high));
}

/// Not shorter than `low`, and at most `high`.
void read_duration(const ObjectReader& object, const char* key, std::uint64_t low, std::uint64_t high,
                   __u64& value) {
  if (!object.has(key)) return;
  value = parsed_at(object.need(key), object.at(key), parse_duration);
  if (value < low || value > high) {
    throw Fault{object.at(key).to_string(), fmt::format("{} is out of range", duration_text(value)),
                fmt::format("{} to {}", duration_text(low), duration_text(high))};
  }
}

/// Calls `read` with the object at `key`.
template <typename Read>
void read_group(const ObjectReader& parent, const char* key, std::span<const std::string_view> known,
                Read read) {
  if (parent.has(key)) read(ObjectReader(parent.need(key), parent.at(key), known));
}

void read_slo(const ObjectReader& slo, anic_envelope& envelope) {
  read_duration(slo, "interval", 10 * kMillisecond, 60 * kSecond, envelope.slo_interval_ns);
  read_number(slo, "over", 0, 100, envelope.slo_percent);
  read_number(slo, "samples", 1, kMaxSamples, envelope.slo_samples);
  if (slo.has("protect")) envelope.protects = slo.boolean("protect") ? 1 : 0;
}

void read_weight(const ObjectReader& weight, anic_envelope& envelope) {
  read_number(weight, "minimum", 1, ANIC_WEIGHT_MAX, envelope.weight_min);
  read_number(weight, "maximum", 1, ANIC_WEIGHT_MAX, envelope.weight_max);
  read_number(weight, "step", 1, ANIC_WEIGHT_MAX, envelope.weight_step);
}

void read_borrow(const ObjectReader& borrow, anic_envelope& envelope) {
  const auto rate = [&](const char* key, std::uint64_t otherwise) {
    return borrow.has(key) ? parsed_at(borrow.need(key), borrow.at(key), parse_rate) : otherwise;
  };
  envelope.borrow_max_bps = rate("maximum", 0);
  envelope.borrow_step_bps = rate("step", envelope.borrow_max_bps);
}

/// Calls `read` with each element at `key`, where one at least has to stand.
template <typename Read>
void read_some(const ObjectReader& object, const char* key, const Read& read) {
  if (object.need(key).is_array() && object.need(key).empty())
    throw Fault{object.at(key).to_string(), "nothing stands here", "at least one"};
  object.each(key, read);
}

std::vector<std::string> read_tenants(const ObjectReader& object) {
  std::vector<std::string> tenants;
  read_some(object, "tenants", [&](const Json& value, const Pointer& place) {
    std::string name = name_at(value, place);
    if (std::ranges::find(tenants, name) != tenants.end())
      throw Fault{place.to_string(), fmt::format("{} stands twice", name), ""};
    tenants.push_back(std::move(name));
  });
  return tenants;
}

/// A reader of a list of words, each once, which sets their bits in `bits`. They are the names of the values
/// of an enum from `first` on, before `end`.
auto into_bits(std::uint32_t& bits, unsigned first, unsigned end, std::string_view (*name)(std::uint8_t)) {
  std::vector<std::string_view> words;
  for (unsigned value = first; value < end; ++value) words.push_back(name(static_cast<std::uint8_t>(value)));
  return [&bits, first, words](const Json& value, const Pointer& place) {
    const std::size_t index = word_at(value, place, words);
    const std::uint32_t bit = 1U << (first + index);
    if ((bits & bit) != 0) throw Fault{place.to_string(), fmt::format("{} stands twice", words[index]), ""};
    bits |= bit;
  };
}

}  // namespace

anic_envelope read_guardian(const Json& json, const Pointer& at) {
  constexpr Words<13> kKeys = {"tick",      "heartbeat",  "time_limit", "oscillation", "instability",
                               "cool_down", "rejections", "slo",        "weight",      "throttle_step",
                               "borrow",    "changes",    "actions"};
  constexpr Words<2> kOscillation = {"window", "flips"};
  constexpr Words<2> kInstability = {"window", "count"};
  constexpr Words<4> kSlo = {"interval", "over", "samples", "protect"};
  constexpr Words<3> kWeight = {"minimum", "maximum", "step"};
  constexpr Words<2> kBorrow = {"maximum", "step"};
  constexpr Words<2> kChanges = {"tenant", "total"};
  const ObjectReader object(json, at, kKeys);
  anic_envelope envelope = kDefaultEnvelope;
  read_duration(object, "tick", kMillisecond, 100 * kMillisecond, envelope.tick_ns);
  read_duration(object, "heartbeat", 100 * kMillisecond, 60 * kSecond, envelope.heartbeat_ns);
  read_duration(object, "time_limit", kSecond, 60 * kSecond, envelope.duration_ns);
  read_group(object, "oscillation", kOscillation, [&](const ObjectReader& group) {
    read_duration(group, "window", kMicrosecond, 60 * kSecond, envelope.oscillation_ns);
    read_number(group, "flips", 0, kMaxCount, envelope.flips);
  });
  read_group(object, "instability", kInstability, [&](const ObjectReader& group) {
    read_duration(group, "window", kSecond, 60 * kSecond, envelope.instability_ns);
    read_number(group, "count", 1, kMaxCount, envelope.instabilities);
  });
  read_duration(object, "cool_down", 100 * kMillisecond, 60 * kSecond, envelope.cool_down_ns);
  read_number(object, "rejections", 1, kMaxRejections, envelope.rejections);
  read_group(object, "slo", kSlo, [&](const ObjectReader& group) { read_slo(group, envelope); });
  read_group(object, "weight", kWeight, [&](const ObjectReader& group) { read_weight(group, envelope); });
  read_number(object, "throttle_step", 1, 100, envelope.throttle_percent);
  read_group(object, "borrow", kBorrow, [&](const ObjectReader& group) { read_borrow(group, envelope); });
  read_group(object, "changes", kChanges, [&](const ObjectReader& group) {
    read_number(group, "tenant", 1, kMaxChanges, envelope.changes_of_tenant);
    read_number(group, "total", 1, kMaxChanges, envelope.changes);
  });
  read_number(object, "actions", 1, ANIC_ACTIONS_MAX, envelope.actions);
  return envelope;
}

Agent read_agent(const Json& json, const Pointer& at) {
  constexpr Words<5> kKeys = {"name", "tenants", "kinds", "classes", "paths"};
  const ObjectReader object(json, at, kKeys);
  Agent agent;
  agent.name = object.name("name");
  agent.tenants = read_tenants(object);
  read_some(object, "kinds", into_bits(agent.kinds, ANIC_CHANGE_NONE + 1, ANIC_CHANGE__MAX, change_name));
  object.each("classes", into_bits(agent.classes, kClasses.front(), ANIC_CLASS__MAX, class_name));
  object.each("paths", into_bits(agent.paths, ANIC_PATH_KERNEL, ANIC_PATH__MAX, path_name));
  if (!object.has("classes")) {
    for (const anic_class cls : kClasses) agent.classes |= 1U << cls;
  }
  return agent;
}

}  // namespace agentnic::policy
