// SPDX-License-Identifier: Apache-2.0
#include "policy/model.hpp"

#include <netinet/in.h>

#include <algorithm>

namespace agentnic::policy {
namespace {

constexpr ByClass<std::string_view> kClassNames = {"?", "control", "default", "rpc", "retrieval", "bulk"};
constexpr std::array<std::string_view, ANIC_PATH__MAX> kPathNames = {"?", "kernel", "xsk"};
constexpr std::array<std::string_view, ANIC_ROLE__MAX> kRoleNames = {"?", "server", "client", "both"};
constexpr std::array<std::string_view, ANIC_CHANGE__MAX> kChangeNames = {
    "?",           "queue_weight_adjust", "bulk_path_throttle", "flow_class_escalate",
    "path_switch", "queue_rebalance",     "quota_borrow"};

}  // namespace

bool Policy::needs_xsk() const {
  return std::ranges::any_of(services, [](const Service& service) { return service.path == ANIC_PATH_XSK; });
}

bool Policy::steers() const {
  const auto spreads = [](const StatedTerms& terms) { return terms.cpus && !terms.cpus->empty(); };
  return std::ranges::any_of(classes, spreads) || std::ranges::any_of(tenants, [&](const Tenant& tenant) {
           return std::ranges::any_of(tenant.classes, spreads);
         });
}

Terms Policy::terms(const Tenant* tenant, anic_class cls) const {
  Terms terms;
  const auto state = [&terms](const StatedTerms& stated) {
    terms.slo_ns = stated.slo_ns.value_or(terms.slo_ns);
    terms.floor_percent = stated.floor_percent.value_or(terms.floor_percent);
    terms.weight = stated.weight.value_or(terms.weight);
    if (stated.egress.priority) terms.egress.priority = stated.egress.priority;
    if (stated.egress.queue) terms.egress.queue = stated.egress.queue;
    if (stated.egress.dscp) terms.egress.dscp = stated.egress.dscp;
    if (stated.cpus) terms.cpus = *stated.cpus;
  };
  state(classes[cls]);
  if (tenant != nullptr) state(tenant->classes[cls]);
  return terms;
}

std::string_view class_name(std::uint8_t cls) { return kClassNames[cls < ANIC_CLASS__MAX ? cls : 0]; }

std::string_view path_name(std::uint8_t path) { return kPathNames[path < ANIC_PATH__MAX ? path : 0]; }

std::string_view role_name(std::uint8_t role) { return kRoleNames[role < ANIC_ROLE__MAX ? role : 0]; }

std::string_view change_name(std::uint8_t kind) { return kChangeNames[kind < ANIC_CHANGE__MAX ? kind : 0]; }

std::string_view protocol_name(std::uint8_t protocol) {
  if (protocol == IPPROTO_UDP) return "udp";
  if (protocol == IPPROTO_TCP) return "tcp";
  return "?";
}

}  // namespace agentnic::policy
