// SPDX-License-Identifier: Apache-2.0
#pragma once

/// Rates and durations: a decimal number and its unit, such as "2.5Gbit" or "500us". Pure.

#include <cstdint>
#include <string>
#include <string_view>

#include "base/result.hpp"

namespace agentnic::policy {

inline constexpr std::uint64_t kMaxRate = 10'000'000'000'000;  ///< bit/s
inline constexpr std::uint64_t kMaxDuration = 60'000'000'000;  ///< ns
inline constexpr std::uint64_t kDay = 86'400'000'000'000;      ///< ns

/// In bit/s: more than 0, at most kMaxRate, whole.
Result<std::uint64_t> parse_rate(std::string_view text);

/// In ns: more than 0, at most kMaxDuration, whole.
Result<std::uint64_t> parse_duration(std::string_view text);

/// The same, at most a day: of no policy, but of what people do by hand.
Result<std::uint64_t> parse_time(std::string_view text);

/// The shortest text that parses to the value: "10Gbit".
std::string rate_text(std::uint64_t bps);
std::string duration_text(std::uint64_t ns);

}  // namespace agentnic::policy
