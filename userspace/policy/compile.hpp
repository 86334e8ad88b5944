// SPDX-License-Identifier: Apache-2.0
#pragma once

/// Policy to table entries. Pure.

#include <cstdint>
#include <utility>
#include <vector>

#include "abi/flow.h"
#include "policy/model.hpp"

namespace agentnic::policy {

/// What the maps of one instance will hold.
struct Tables {
  std::vector<std::pair<std::uint32_t, anic_port>> ports;  ///< index in anic_ports, entry
  std::vector<anic_service> services;                      ///< [i] has id i + 1
};

Tables compile(const Policy& policy);

/// The index of a destination port in anic_ports.
std::uint32_t port_index(std::uint8_t protocol, std::uint16_t port);

}  // namespace agentnic::policy
