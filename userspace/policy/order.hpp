// SPDX-License-Identifier: Apache-2.0
#pragma once

/// The ABI's structs as values: equal when their bytes are, keys in an order for people. In the global
/// namespace, where the structs are, so that the standard library finds the operators.

#include <algorithm>
#include <compare>
#include <concepts>
#include <cstring>
#include <tuple>
#include <type_traits>

#include "abi/guardian.h"
#include "abi/lane.h"
#include "abi/policy.h"
#include "abi/steer.h"

namespace agentnic::policy {

template <typename T>
concept AbiValue =
    std::same_as<T, anic_prefix> || std::same_as<T, anic_port> || std::same_as<T, anic_owned_port> ||
    std::same_as<T, anic_sender> || std::same_as<T, anic_service> || std::same_as<T, anic_tenant> ||
    std::same_as<T, anic_policy> || std::same_as<T, anic_lane> || std::same_as<T, anic_spread> ||
    std::same_as<T, anic_envelope> || std::same_as<T, anic_agent> || std::same_as<T, anic_guarding>;

}  // namespace agentnic::policy

template <agentnic::policy::AbiValue T>
bool operator==(const T& a, const T& b) {
  static_assert(std::has_unique_object_representations_v<T>);  // no hidden padding
  return std::memcmp(&a, &b, sizeof(T)) == 0;
}

/// By address, the shorter of two prefixes first.
inline std::strong_ordering operator<=>(const anic_prefix& a, const anic_prefix& b) {
  const int bytes = std::memcmp(a.address_be, b.address_be, sizeof(a.address_be));
  return bytes != 0 ? bytes <=> 0 : a.length <=> b.length;
}

inline std::strong_ordering operator<=>(const anic_owned_port& a, const anic_owned_port& b) {
  return std::tie(a.tenant, a.protocol, a.port, a.role) <=> std::tie(b.tenant, b.protocol, b.port, b.role);
}

inline std::strong_ordering operator<=>(const anic_sender& a, const anic_sender& b) {
  return std::tie(a.kind, a.id) <=> std::tie(b.kind, b.id);
}
