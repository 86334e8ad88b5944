// SPDX-License-Identifier: Apache-2.0
#include "policy/units.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <span>

#include "policy/text.hpp"

namespace agentnic::policy {
namespace {

struct Unit {
  std::string_view name;
  std::size_t digits;  ///< of its power of ten
};

/// What is measured; the largest unit stands first.
struct Quantity {
  std::string_view name;
  std::string_view example;
  std::span<const Unit> units;
  std::uint64_t max;
};

constexpr std::array<Unit, 5> kRateUnits = {
    {{"Tbit", 12}, {"Gbit", 9}, {"Mbit", 6}, {"Kbit", 3}, {"bit", 0}}};
constexpr std::array<Unit, 4> kTimeUnits = {{{"s", 9}, {"ms", 6}, {"us", 3}, {"ns", 0}}};
constexpr Quantity kRate = {"rate", R"("10Gbit", "2.5Gbit", "800Mbit" or "9600bit")", kRateUnits, kMaxRate};
constexpr Quantity kDuration = {"duration", R"("2s", "1.5ms", "500us" or "250ns")", kTimeUnits, kMaxDuration};
constexpr Quantity kTime = {kDuration.name, kDuration.example, kDuration.units, kDay};

std::uint64_t power_of_ten(std::size_t digits) {
  std::uint64_t power = 1;
  for (; digits > 0; --digits) power *= 10;
  return power;
}

/// Empty is 0. The caller has checked that these are digits and few enough.
std::uint64_t number(std::string_view digits) {
  std::uint64_t value = 0;
  std::from_chars(digits.data(), digits.data() + digits.size(), value);
  return value;
}

std::string text_of(std::uint64_t value, const Quantity& quantity) {
  const auto fits = [&](const Unit& unit) { return value >= power_of_ten(unit.digits); };
  auto unit = std::ranges::find_if(quantity.units, fits);
  if (unit == quantity.units.end()) --unit;  // 0, in the smallest unit
  const std::uint64_t scale = power_of_ten(unit->digits);
  std::string fraction = value % scale == 0 ? "" : fmt::format(".{:0{}}", value % scale, unit->digits);
  while (fraction.ends_with('0')) fraction.pop_back();
  return fmt::format("{}{}{}", value / scale, fraction, unit->name);
}

Result<std::uint64_t> parse(std::string_view text, const Quantity& quantity) {
  const auto malformed = [&] {
    return fail(Exit::BadInput, fmt::format("{} is not a {}", json_text(text), quantity.name),
                fmt::format("a number and its unit in one string, such as {}", quantity.example));
  };
  const auto digits_of = [](std::string_view from) {
    return from.substr(0, std::min(from.find_first_not_of("0123456789"), from.size()));
  };
  std::string_view rest = text;
  const std::string_view whole = digits_of(rest);
  rest.remove_prefix(whole.size());
  std::string_view fraction;
  if (rest.starts_with('.')) {
    fraction = digits_of(rest.substr(1));
    if (fraction.empty()) return malformed();
    rest.remove_prefix(1 + fraction.size());
  }
  const auto unit = std::ranges::find(quantity.units, rest, &Unit::name);
  if (unit == quantity.units.end() || whole.empty() || (whole.size() > 1 && whole[0] == '0'))
    return malformed();

  while (fraction.ends_with('0')) fraction.remove_suffix(1);
  if (fraction.size() > unit->digits) {
    return fail(Exit::BadInput,
                fmt::format("{} is not a whole number of {}", json_text(text), quantity.units.back().name));
  }
  const std::uint64_t scale = power_of_ten(unit->digits);
  const auto out_of_range = [&] {
    return fail(Exit::BadInput, fmt::format("{} is out of range", json_text(text)),
                fmt::format("more than 0, at most {}", text_of(quantity.max, quantity)));
  };
  // So few digits cannot overflow, and more cannot fit.
  if (whole.size() > 14 || number(whole) > quantity.max / scale) return out_of_range();
  const std::uint64_t value =
      number(whole) * scale + number(fraction) * power_of_ten(unit->digits - fraction.size());
  if (value == 0 || value > quantity.max) return out_of_range();
  return value;
}

}  // namespace

Result<std::uint64_t> parse_rate(std::string_view text) { return parse(text, kRate); }

Result<std::uint64_t> parse_duration(std::string_view text) { return parse(text, kDuration); }

Result<std::uint64_t> parse_time(std::string_view text) { return parse(text, kTime); }

std::string rate_text(std::uint64_t bps) { return text_of(bps, kRate); }

std::string duration_text(std::uint64_t ns) { return text_of(ns, kDuration); }

}  // namespace agentnic::policy
