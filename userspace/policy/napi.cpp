// SPDX-License-Identifier: Apache-2.0
#include "policy/napi.hpp"

#include <fmt/format.h>

#include <algorithm>

#include "policy/units.hpp"

namespace agentnic::policy {

bool is_empty(const Napi& napi) {
  return std::ranges::none_of(napi, [](const auto& value) { return value.has_value(); });
}

std::string_view napi_name(anic_napi_setting setting) {
  constexpr std::array<std::string_view, ANIC_NAPI__MAX> kNames = {
      "?", "defer_hard_irqs", "gro_flush_timeout", "irq_suspend_timeout", "threaded"};
  return kNames.at(setting);
}

std::string napi_value_text(anic_napi_setting setting, std::uint64_t value) {
  switch (setting) {
    case ANIC_NAPI_GRO_FLUSH_TIMEOUT:
    case ANIC_NAPI_IRQ_SUSPEND_TIMEOUT:
      return duration_text(value);
    case ANIC_NAPI_THREADED:
      if (value <= 1) return value == 1 ? "true" : "false";
      [[fallthrough]];  // a kind of thread that the policy language has no word for
    default:
      return std::to_string(value);
  }
}

std::string napi_text(const Napi& napi) {
  std::string text;
  for (const anic_napi_setting setting : kNapiSettings) {
    if (!napi[setting]) continue;
    text += fmt::format("{}{} {}", text.empty() ? "" : ", ", napi_name(setting),
                        napi_value_text(setting, *napi[setting]));
  }
  return text;
}

}  // namespace agentnic::policy
