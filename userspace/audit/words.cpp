// SPDX-License-Identifier: Apache-2.0
#include "audit/words.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cstring>

#include "policy/model.hpp"
#include "policy/units.hpp"

namespace agentnic::audit {
namespace {

constexpr std::array<std::string_view, ANIC_CHANGE__MAX> kUnits = {"?",    "weight", "bps", "class",
                                                                   "path", "cpu",    "bps"};
constexpr std::array<std::string_view, ANIC_RECORD__MAX> kRecords = {
    "?",   "attach",  "commit", "open",   "close", "decision", "revert", "failsafe",
    "ack", "protect", "lost",   "detach", "read",  "export",   "missed"};
static_assert(!kRecords.back().empty());
constexpr std::array<std::string_view, ANIC_DECIDED__MAX> kDecided = {
    "?", "approve", "rewrite", "reject", "failsafe_enter", "failsafe_exit"};
constexpr std::array<std::string_view, ANIC_FAILSAFE__MAX> kFailsafes = {
    "?", "heartbeat", "rejections", "instability", "slo", "operator", "repeated", "stuck", "ring"};

struct Invariant {
  std::string_view name;
  std::string_view meaning;
};
constexpr std::array<Invariant, ANIC_INVARIANT__MAX> kInvariants = {{
    {"?", ""},
    {"form", "the proposal is malformed"},
    {"C1", "control traffic is left alone"},
    {"C2", "the policy has no such path or CPUs there"},
    {"I1", "no tenant falls below its minimum"},
    {"I2", "no class falls below its floor"},
    {"I3", "a session touches only what it was granted"},
    {"R1", "one change moves a value by at most its step"},
    {"R2", "every value stays inside its range"},
    {"R3", "changes per second are capped"},
    {"R4", "changes in force of a tenant are capped"},
    {"R5", "flipping back and forth is oscillation"},
    {"R6", "borrowing and escalation have a time limit"},
    {"A1", "no change without room for its record"},
    {"A2", "what is not approved is recorded too"},
    {"A3", "nothing but detaching stops the audit"},
    {"L1", "the heartbeat did not come in time"},
    {"L2", "too many rejections in a row, or repeated instability"},
    {"L3", "a class missed its SLO"},
    {"L4", "fail-safe is in force"},
}};

template <std::size_t N>
std::string_view word(const std::array<std::string_view, N>& words, std::uint8_t value) {
  return words[value < N ? value : 0];
}

const Invariant& invariant_of(std::uint8_t value) {
  return kInvariants[value < kInvariants.size() ? value : 0];
}

}  // namespace

std::optional<anic_change> change_of(std::string_view name) {
  for (std::uint8_t change = 1; change < ANIC_CHANGE__MAX; ++change) {
    if (policy::change_name(change) == name) return static_cast<anic_change>(change);
  }
  return std::nullopt;
}

std::string_view record_name(std::uint8_t kind) { return word(kRecords, kind); }
std::string_view decided_name(std::uint8_t decided) { return word(kDecided, decided); }
std::string_view invariant_name(std::uint8_t invariant) { return invariant_of(invariant).name; }
std::string_view failsafe_name(std::uint8_t failsafe) { return word(kFailsafes, failsafe); }
std::string_view invariant_meaning(std::uint8_t invariant) { return invariant_of(invariant).meaning; }
std::string_view value_unit(std::uint8_t change) { return word(kUnits, change); }

std::string value_text(std::uint8_t change, std::uint64_t value) {
  const auto small = static_cast<std::uint8_t>(std::min<std::uint64_t>(value, UINT8_MAX));
  switch (change) {
    case ANIC_CHANGE_BULK_PATH_THROTTLE:
    case ANIC_CHANGE_QUOTA_BORROW:
      return policy::rate_text(value);
    case ANIC_CHANGE_FLOW_CLASS_ESCALATE:
      return std::string(policy::class_name(small));
    case ANIC_CHANGE_PATH_SWITCH:
      return std::string(policy::path_name(small));
    case ANIC_CHANGE_QUEUE_REBALANCE:
      return value == UINT32_MAX ? "where it comes" : fmt::format("CPU {}", value);
    default:
      return fmt::format("{}", value);
  }
}

std::string_view text_of(const char (&text)[ANIC_TEXT_LEN]) { return {text, ::strnlen(text, ANIC_TEXT_LEN)}; }

}  // namespace agentnic::audit
