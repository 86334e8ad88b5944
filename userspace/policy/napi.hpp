// SPDX-License-Identifier: Apache-2.0
#pragma once

/// How the kernel polls an interface: settings of its NAPIs, and their words. Pure.

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "abi/napi.h"

namespace agentnic::policy {

/// By enum anic_napi_setting; nothing: it is not stated, or the kernel does not say.
using Napi = std::array<std::optional<std::uint64_t>, ANIC_NAPI__MAX>;

inline constexpr std::array<anic_napi_setting, 4> kNapiSettings = {
    ANIC_NAPI_DEFER_HARD_IRQS, ANIC_NAPI_GRO_FLUSH_TIMEOUT, ANIC_NAPI_IRQ_SUSPEND_TIMEOUT,
    ANIC_NAPI_THREADED};

/// Whether it states nothing.
bool is_empty(const Napi& napi);

/// The key of the policy language.
std::string_view napi_name(anic_napi_setting setting);

/// Its value, as the policy language has it.
std::string napi_value_text(anic_napi_setting setting, std::uint64_t value);

/// All that is stated: "defer_hard_irqs 2, gro_flush_timeout 200us".
std::string napi_text(const Napi& napi);

}  // namespace agentnic::policy
