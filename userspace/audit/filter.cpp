// SPDX-License-Identifier: Apache-2.0
#include "audit/filter.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <ctime>

#include "audit/words.hpp"
#include "policy/units.hpp"

namespace agentnic::audit {
namespace {

constexpr std::uint64_t kSecond = 1'000'000'000;

/// The number that `name_of` gives this word, below `end`.
template <typename NameOf>
Result<std::uint8_t> number_of(const std::string& word, std::uint8_t end, const char* what,
                               NameOf&& name_of) {
  if (word.empty()) return std::uint8_t{0};
  std::string all;
  for (std::uint8_t i = 1; i < end; ++i) {
    if (name_of(i) == word) return i;
    all += fmt::format("{}{}", all.empty() ? "" : ", ", name_of(i));
  }
  return fail(Exit::BadInput, fmt::format("there is no {} {}", what, word), all);
}

Result<std::uint64_t> parse_when(const std::string& word, std::uint64_t now_ns, std::uint64_t otherwise) {
  if (word.empty()) return otherwise;
  std::tm parts{};
  const char* end = ::strptime(word.c_str(), "%Y-%m-%dT%H:%M:%SZ", &parts);
  if (end != nullptr && *end == '\0') {
    const std::time_t seconds = ::timegm(&parts);
    if (seconds >= 0) return static_cast<std::uint64_t>(seconds) * kSecond;
  }
  const auto ago = policy::parse_time(word);
  if (!ago)
    return fail(Exit::BadInput, "there is no time " + word, "2026-11-26T10:00:00Z, or 10m: so long ago");
  return now_ns - std::min(*ago, now_ns);
}

}  // namespace

bool Filter::lets(const anic_record& record, const Names& names) const {
  const std::uint64_t wall_ns = record.time_ns + static_cast<std::uint64_t>(names.wall_ahead_ns);
  return (tenant.empty() || (record.tenant != 0 && names.tenant(record.tenant) == tenant)) &&
         (kind == 0 || record.kind == kind) &&
         (invariant == 0 || record.invariant == invariant || (record.rewritten >> invariant & 1U) != 0) &&
         wall_ns >= since_ns && wall_ns <= until_ns;
}

Result<Filter> parse_filter(const FilterWords& words, std::uint64_t now_ns) {
  Filter filter;
  filter.tenant = words.tenant;
  filter.kind = ANIC_TRY(number_of(words.kind, ANIC_RECORD__MAX, "kind of record", record_name));
  filter.invariant = ANIC_TRY(number_of(words.invariant, ANIC_INVARIANT__MAX, "invariant", invariant_name));
  filter.since_ns = ANIC_TRY(parse_when(words.since, now_ns, 0));
  filter.until_ns = ANIC_TRY(parse_when(words.until, now_ns, UINT64_MAX));
  return filter;
}

}  // namespace agentnic::audit
