// SPDX-License-Identifier: Apache-2.0
#include "policy/compile.hpp"

#include <fmt/format.h>
#include <netinet/in.h>

#include <algorithm>
#include <set>

namespace agentnic::policy {
namespace {

using IdMap = std::map<std::string, std::uint16_t, std::less<>>;

template <typename Named>
Result<IdMap> assign(const char* what, const std::vector<Named>& items, const IdMap& previous,
                     std::uint16_t end) {
  IdMap ids;
  std::set<std::uint16_t> taken;
  for (const auto& [name, id] : previous) taken.insert(id);
  std::uint16_t next = 1;
  for (const Named& item : items) {
    if (const auto kept = previous.find(item.name); kept != previous.end()) {
      ids.insert(*kept);
      continue;
    }
    while (taken.contains(next)) ++next;
    if (next >= end) {
      return fail(Exit::Failed,
                  fmt::format("give the {} {} an id: the policy in force and this one need more than {}",
                              what, item.name, end - 1),
                  "first load it without what it adds, then as it is: an id is free once its owner has gone");
    }
    ids.emplace(item.name, next++);
  }
  return ids;
}

std::uint8_t tenant_id(const std::string& name, const Ids& ids) {
  return name.empty() ? 0 : static_cast<std::uint8_t>(ids.tenants.at(name));
}

/// Calls `use` with ANIC_ROLE_SERVER and ANIC_ROLE_CLIENT, as far as `role` has them.
template <typename Use>
void for_ends(std::uint8_t role, Use use) {
  for (const std::uint8_t end : {ANIC_ROLE_SERVER, ANIC_ROLE_CLIENT}) {
    if ((role & end) != 0) use(end);
  }
}

void add_control(Tables& tables, const std::vector<ControlPort>& list) {
  for (const ControlPort& control : list) {
    anic_port& port = tables.ports[port_index(control.protocol, control.port)];
    port.control = static_cast<__u8>(port.control | control.role);
  }
}

void add_service(Tables& tables, const Service& service, std::uint16_t id, std::uint8_t tenant) {
  anic_service& row = tables.services[id];
  std::ranges::copy(service.name, row.name);
  row.port = service.port;
  row.protocol = service.protocol;
  row.role = static_cast<__u8>(service.role);
  row.tenant = tenant;
  row.cls = static_cast<__u8>(service.cls);
  row.path = static_cast<__u8>(service.path);
  row.owner = service.owner;
  if (!service.owner_name.empty()) tables.users[id] = service.owner_name;

  anic_port& port = tables.ports[port_index(service.protocol, service.port)];
  for_ends(row.role, [&](std::uint8_t end) {
    if (tenant == 0) {
      (end == ANIC_ROLE_SERVER ? port.server : port.client) = id;
    } else {
      port.tenants = static_cast<__u8>(port.tenants | end);
      tables.owned[{.port = row.port, .tenant = tenant, .protocol = row.protocol, .role = end, ._pad = {}}] =
          id;
    }
  });
}

void add_tenant(Tables& tables, const Tenant& tenant, std::uint8_t id) {
  std::ranges::copy(tenant.name, tables.tenants[id].name);
  tables.tenants[id].cls = static_cast<__u8>(tenant.default_class);
  for (const anic_prefix& prefix : tenant.remotes) tables.remotes[prefix] = id;
  for (const anic_prefix& prefix : tenant.locals) tables.locals[prefix] = id;
  for (const std::uint32_t mark : tenant.marks) {
    tables.senders[{.id = mark, .kind = ANIC_SENDER_MARK, ._pad = 0}] = id;
  }
  for (const std::string& path : tenant.cgroups) {
    tables.cgroups[path] = id;
    tables.policy.cgroup_depths |= 1U << (1 + std::ranges::count(path, '/'));
  }
}

anic_policy policy_row(const Policy& policy, const Tables& tables) {
  anic_policy row = tables.policy;
  if (!tables.locals.empty()) row.uses |= ANIC_USES_LOCALS;
  if (!tables.senders.empty()) row.uses |= ANIC_USES_MARKS;
  if (!tables.cgroups.empty()) row.uses |= ANIC_USES_CGROUPS;
  if (policy.faces_workload) row.uses |= ANIC_FACES_WORKLOAD;
  if (policy.steers()) row.uses |= ANIC_USES_CPUS;
  row.control_alarm = policy.control_alarm;
  row.prefixes = static_cast<__u32>(tables.remotes.size() + tables.locals.size());
  row.link_rate_bps = policy.link_rate_bps;
  for (const DscpRule& rule : policy.dscp) row.dscp[rule.value] = static_cast<__u8>(rule.cls);
  std::ranges::copy(policy.digest, row.digest);
  std::ranges::copy(policy.name, row.name);
  return row;
}

/// Path B if traffic of this tenant and class can be that of an xsk service.
std::uint8_t lane_path(const Tables& tables, std::uint32_t tenant, std::uint32_t cls) {
  const auto wants_xsk = [&](const anic_service& service) {
    return service.path == ANIC_PATH_XSK && service.cls == cls &&
           (service.tenant == 0 || service.tenant == tenant);
  };
  return std::ranges::any_of(tables.services, wants_xsk) ? ANIC_PATH_XSK : ANIC_PATH_KERNEL;
}

std::uint64_t lane_ceiling(const Budget& budget, anic_class cls) {
  if (cls != ANIC_CLASS_BULK || budget.bulk_bps == 0) return budget.ceiling_bps;
  return budget.ceiling_bps == 0 ? budget.bulk_bps : std::min(budget.ceiling_bps, budget.bulk_bps);
}

/// Buckets to CPUs in turn.
anic_spread spread_over(const std::vector<std::uint16_t>& cpus) {
  anic_spread spread{};
  if (cpus.empty()) return spread;
  for (std::size_t bucket = 0; __u16 & cpu : spread.cpu)
    cpu = static_cast<__u16>(cpus[bucket++ % cpus.size()] + 1);
  return spread;
}

std::uint8_t mark(std::optional<std::uint8_t> value) {
  return static_cast<std::uint8_t>(value ? ANIC_MARK(*value) : 0);
}

/// The lanes of one tenant and the tenant as a whole, in both profiles; nullptr: of traffic of no tenant.
void add_lanes(Tables& tables, const Policy& policy, const Tenant* tenant, std::uint32_t id) {
  const Budget budget = tenant != nullptr ? tenant->budget : Budget{};
  const anic_lane whole{.rate_bps = budget.minimum_bps,
                        .ceiling_bps = tenant != nullptr ? budget.ceiling_bps : policy.link_rate_bps,
                        .slo_ns = 0,
                        .weight = budget.weight,
                        .floor_percent = 0,
                        .path = ANIC_PATH_NONE,
                        .priority = 0,
                        .queue = 0,
                        .dscp = 0};
  tables.lanes[lane_index(ANIC_PROFILE_POLICY, id, ANIC_CLASS_NONE)] = whole;
  tables.lanes[lane_index(ANIC_PROFILE_FALLBACK, id, ANIC_CLASS_NONE)] = whole;
  for (const anic_class cls : kClasses) {
    const Terms terms = policy.terms(tenant, cls);
    anic_lane lane{};
    lane.rate_bps = budget.minimum_bps * terms.floor_percent / 100;  // at most kMaxRate * 100: 2^50
    lane.ceiling_bps = lane_ceiling(budget, cls);
    lane.slo_ns = terms.slo_ns;
    lane.weight = terms.weight;
    lane.floor_percent = terms.floor_percent;
    lane.path = lane_path(tables, id, cls);
    lane.priority = mark(terms.egress.priority);
    lane.queue = mark(terms.egress.queue);
    lane.dscp = mark(terms.egress.dscp);
    tables.lanes[lane_index(ANIC_PROFILE_POLICY, id, cls)] = lane;
    tables.spread[ANIC_LANE(id, static_cast<std::uint32_t>(cls))] = spread_over(terms.cpus);

    if (!policy.fallback.keeps_paths) lane.path = ANIC_PATH_KERNEL;
    if (policy.fallback.weights[cls] != 0) lane.weight = policy.fallback.weights[cls];
    tables.lanes[lane_index(ANIC_PROFILE_FALLBACK, id, cls)] = lane;
  }
}

void add_control_lane(Tables& tables) {
  for (const anic_profile profile : {ANIC_PROFILE_POLICY, ANIC_PROFILE_FALLBACK}) {
    anic_lane& lane = tables.lanes[lane_index(profile, 0, ANIC_CLASS_CONTROL)];
    lane.path = ANIC_PATH_KERNEL;
    lane.weight = ANIC_WEIGHT_MAX;
  }
}

anic_agent agent_row(const Agent& agent, const Ids& ids) {
  anic_agent row{};
  std::ranges::copy(agent.name, row.name);
  for (const std::string& tenant : agent.tenants)
    row.grants.tenants |= std::uint64_t{1} << (tenant_id(tenant, ids) - 1);
  row.grants.kinds = agent.kinds;
  row.grants.classes = agent.classes;
  row.grants.paths = agent.paths;
  return row;
}

anic_guarding guarding_of(const Policy& policy, const Ids& ids) {
  anic_guarding guarding{};
  guarding.envelope = policy.envelope;
  for (const Agent& agent : policy.agents) guarding.agents[ids.agents.at(agent.name)] = agent_row(agent, ids);
  return guarding;
}

}  // namespace

std::uint32_t port_index(std::uint8_t protocol, std::uint16_t port) {
  return port + (protocol == IPPROTO_TCP ? std::uint32_t{ANIC_PORTS} : 0U);
}

std::size_t lane_index(anic_profile profile, std::uint32_t tenant, std::uint32_t cls) {
  return std::size_t{ANIC_LANES_MAX} * profile + std::size_t{ANIC_CLASS__MAX} * tenant + cls;
}

std::vector<unsigned> cpus_of(const anic_spread& spread) {
  std::vector<unsigned> cpus;
  for (const __u16 stored : spread.cpu) {
    if (stored != 0 && std::ranges::find(cpus, stored - 1U) == cpus.end()) cpus.push_back(stored - 1U);
  }
  return cpus;
}

std::string owner_of(const Tables& tables, std::size_t id) {
  if (const auto user = tables.users.find(static_cast<std::uint32_t>(id)); user != tables.users.end())
    return user->second;
  const std::uint32_t owner = tables.services[id].owner;
  return owner == ANIC_NO_OWNER ? "" : std::to_string(owner);
}

GrantWords words_of(const anic_grants& grants, const Tables& tables) {
  GrantWords words;
  for (std::size_t id = 1; id < ANIC_TENANTS_MAX; ++id) {
    if ((grants.tenants >> (id - 1) & 1U) == 0) continue;
    const std::string name = id < tables.tenants.size() ? name_in(tables.tenants[id].name) : "";
    words.tenants.push_back(name.empty() ? fmt::format("(tenant id {})", id) : name);
  }
  const auto add = [](std::vector<std::string>& list, std::uint32_t bits,
                      std::string_view (*word)(std::uint8_t)) {
    for (std::uint8_t value = 0; value < 32; ++value) {
      if ((bits >> value & 1U) != 0) list.emplace_back(word(value));
    }
  };
  add(words.kinds, grants.kinds, change_name);
  add(words.classes, grants.classes, class_name);
  add(words.paths, grants.paths, path_name);
  return words;
}

Result<Ids> assign_ids(const Policy& policy, const Ids& previous) {
  Ids ids;
  ids.tenants = ANIC_TRY(assign("tenant", policy.tenants, previous.tenants, ANIC_TENANTS_MAX));
  ids.services = ANIC_TRY(assign("service", policy.services, previous.services, ANIC_SERVICES_MAX));
  ids.agents = ANIC_TRY(assign("agent", policy.agents, previous.agents, ANIC_AGENTS_MAX));
  return ids;
}

Tables compile(const Policy& policy, const Ids& ids) {
  Tables tables;
  tables.napi = policy.napi;
  tables.tenants.resize(ANIC_TENANTS_MAX);
  tables.tenants[0].cls = ANIC_CLASS_DEFAULT;
  for (const Tenant& tenant : policy.tenants) add_tenant(tables, tenant, tenant_id(tenant.name, ids));

  std::uint16_t highest = 0;
  for (const Service& service : policy.services) highest = std::max(highest, ids.services.at(service.name));
  tables.services.resize(std::size_t{highest} + 1);
  for (const Service& service : policy.services) {
    add_service(tables, service, ids.services.at(service.name), tenant_id(service.tenant, ids));
  }
  add_control(tables, policy.control);
  add_control(tables, policy.management);
  tables.policy = policy_row(policy, tables);

  tables.lanes.resize(std::size_t{ANIC_PROFILES_STATED} * ANIC_LANES_MAX);
  tables.spread.resize(ANIC_LANES_MAX);
  add_control_lane(tables);
  add_lanes(tables, policy, nullptr, 0);
  for (const Tenant& tenant : policy.tenants) add_lanes(tables, policy, &tenant, tenant_id(tenant.name, ids));
  tables.guarding = guarding_of(policy, ids);
  return tables;
}

}  // namespace agentnic::policy
