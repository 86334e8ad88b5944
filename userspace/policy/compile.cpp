// SPDX-License-Identifier: Apache-2.0
#include "policy/compile.hpp"

#include <netinet/in.h>

#include <algorithm>

namespace agentnic::policy {

std::uint32_t port_index(std::uint8_t protocol, std::uint16_t port) {
  return port + (protocol == IPPROTO_TCP ? std::uint32_t{ANIC_PORTS} : 0U);
}

Tables compile(const Policy& policy) {
  Tables tables;
  for (const ControlPort& control : policy.control) {
    anic_port entry{};
    entry.cls = ANIC_CLASS_CONTROL;
    entry.path = ANIC_PATH_KERNEL;
    tables.ports.emplace_back(port_index(control.protocol, control.port), entry);
  }
  for (const Service& service : policy.services) {
    anic_service row{};
    std::ranges::copy(service.name, row.name);
    row.port = service.port;
    row.protocol = service.protocol;
    row.cls = static_cast<__u8>(service.cls);
    row.path = static_cast<__u8>(service.path);
    tables.services.push_back(row);

    anic_port entry{};
    entry.cls = row.cls;
    entry.path = row.path;
    entry.service = static_cast<__u8>(tables.services.size());
    tables.ports.emplace_back(port_index(service.protocol, service.port), entry);
  }
  return tables;
}

}  // namespace agentnic::policy
