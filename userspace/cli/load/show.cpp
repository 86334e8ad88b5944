// SPDX-License-Identifier: Apache-2.0
#include "cli/load/show.hpp"

#include <fmt/chrono.h>
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <array>
#include <ctime>

#include "base/hex.hpp"
#include "policy/units.hpp"

namespace agentnic::cli {
namespace {

const char* health_name(kern::Health health) {
  switch (health) {
    case kern::Health::Attached:
      return "attached";
    case kern::Health::Gone:
      return "gone";
    case kern::Health::Incomplete:
      return "incomplete";
    case kern::Health::OtherAbi:
      return "other-abi";
  }
  return "?";
}

std::string date(std::uint64_t wall_ns) {
  if (wall_ns == 0) return "";
  const auto seconds = static_cast<std::time_t>(wall_ns / 1'000'000'000);
  return fmt::format("{:%Y-%m-%dT%H:%M:%SZ}", fmt::gmtime(seconds));
}

std::string netns_name(const kern::InstanceStatus& status) {
  return status.netns ? status.netns->name() : "";
}

std::string tenant_name(const policy::Tables& tables, std::uint32_t id) {
  return id == 0 ? "(none)" : tables.tenants[id].name;
}

const anic_spread& spread_of(const policy::Tables& tables, std::uint32_t tenant, std::uint8_t cls) {
  return tables.spread[ANIC_LANE(tenant, cls)];
}

/// Calls `each` with tenant, class and lane of the policy's profile, for lanes that are in use.
template <typename Each>
void for_lanes(const policy::Tables& tables, Each&& each) {
  for (std::uint32_t tenant = 0; tenant < tables.tenants.size(); ++tenant) {
    for (std::uint8_t cls = 1; cls < ANIC_CLASS__MAX; ++cls) {
      const anic_lane& lane = tables.lanes[policy::lane_index(ANIC_PROFILE_POLICY, tenant, cls)];
      if (lane.path != ANIC_PATH_NONE) each(tenant, cls, lane);
    }
  }
}

/// What a lane gives its packets at egress; null: nothing.
Json mark(unsigned stored) { return stored == 0 ? Json() : Json(stored - 1); }

std::string marks_text(const anic_lane& lane) {
  std::string text;
  const auto add = [&](const char* name, unsigned stored) {
    if (stored != 0) text += fmt::format("  {} {}", name, stored - 1);
  };
  add("priority", lane.priority);
  add("queue", lane.queue);
  add("dscp", lane.dscp);
  return text;
}

std::string cpus_text(const anic_spread& spread) {
  const std::vector<unsigned> cpus = policy::cpus_of(spread);
  return cpus.empty() ? "" : fmt::format("  cpus {}", fmt::join(cpus, " "));
}

std::string rate_or(std::uint64_t bps, const char* otherwise) {
  return bps == 0 ? otherwise : policy::rate_text(bps);
}

/// Calls `each` with protocol, port and role of control and management traffic.
template <typename Each>
void for_control(const policy::Tables& tables, Each&& each) {
  for (const auto& [index, port] : tables.ports) {
    if (port.control == 0) continue;
    each(index >= ANIC_PORTS ? "tcp" : "udp", index % ANIC_PORTS, policy::role_name(port.control));
  }
}

Json guardian_json(const anic_envelope& envelope) {
  return {
      {"tick_ns", envelope.tick_ns},
      {"heartbeat_ns", envelope.heartbeat_ns},
      {"time_limit_ns", envelope.duration_ns},
      {"oscillation", {{"window_ns", envelope.oscillation_ns}, {"flips", envelope.flips}}},
      {"instability", {{"window_ns", envelope.instability_ns}, {"count", envelope.instabilities}}},
      {"cool_down_ns", envelope.cool_down_ns},
      {"rejections", envelope.rejections},
      {"slo",
       {{"interval_ns", envelope.slo_interval_ns},
        {"over_percent", envelope.slo_percent},
        {"samples", envelope.slo_samples},
        {"protect", envelope.protects != 0}}},
      {"weight",
       {{"minimum", envelope.weight_min}, {"maximum", envelope.weight_max}, {"step", envelope.weight_step}}},
      {"throttle_step_percent", envelope.throttle_percent},
      {"borrow", {{"maximum_bps", envelope.borrow_max_bps}, {"step_bps", envelope.borrow_step_bps}}},
      {"changes", {{"tenant_per_s", envelope.changes_of_tenant}, {"total_per_s", envelope.changes}}},
      {"actions", envelope.actions}};
}

/// With units in the names of keys; null where nothing is stated.
Json napi_json(const policy::Napi& napi) {
  const auto number = [&](anic_napi_setting setting) {
    return napi[setting] ? Json(*napi[setting]) : Json();
  };
  return {{"defer_hard_irqs", number(ANIC_NAPI_DEFER_HARD_IRQS)},
          {"gro_flush_timeout_ns", number(ANIC_NAPI_GRO_FLUSH_TIMEOUT)},
          {"irq_suspend_timeout_ns", number(ANIC_NAPI_IRQ_SUSPEND_TIMEOUT)},
          {"threaded", napi[ANIC_NAPI_THREADED] ? Json(*napi[ANIC_NAPI_THREADED] != 0) : Json()}};
}

/// As the policy language has it: a name, a number, or nothing.
Json owner_json(const policy::Tables& tables, std::uint32_t id) {
  if (const auto user = tables.users.find(id); user != tables.users.end()) return user->second;
  const std::uint32_t owner = tables.services[id].owner;
  return owner == ANIC_NO_OWNER ? Json() : Json(owner);
}

/// Calls `each` with id, name and the words of what is granted.
template <typename Each>
void for_agents(const policy::Tables& tables, Each&& each) {
  for (std::uint32_t id = 1; id < ANIC_AGENTS_MAX; ++id) {
    const anic_agent& agent = tables.guarding.agents[id];
    if (agent.name[0] != '\0') each(id, agent.name, policy::words_of(agent.grants, tables));
  }
}

}  // namespace

std::string place(const kern::InstanceStatus& status) {
  if (!status.netns) return fmt::format("{} in netns inode {}", status.ifname, status.dir.netns_inode);
  return status.ifname + status.netns->suffix();
}

Json to_json(const policy::Tables& tables) {
  Json tenants = Json::array();
  for (std::uint32_t id = 1; id < tables.tenants.size(); ++id) {
    const anic_tenant& tenant = tables.tenants[id];
    if (tenant.name[0] == '\0') continue;
    const anic_lane& whole = tables.lanes[policy::lane_index(ANIC_PROFILE_POLICY, id, ANIC_CLASS_NONE)];
    tenants.push_back({{"name", tenant.name},
                       {"id", id},
                       {"default_class", policy::class_name(tenant.cls)},
                       {"minimum_bps", whole.rate_bps},
                       {"ceiling_bps", whole.ceiling_bps},
                       {"weight", whole.weight}});
  }
  Json services = Json::array();
  for (std::uint32_t id = 1; id < tables.services.size(); ++id) {
    const anic_service& service = tables.services[id];
    if (service.name[0] == '\0') continue;
    services.push_back({{"name", service.name},
                        {"id", id},
                        {"tenant", service.tenant == 0 ? Json() : Json(tenant_name(tables, service.tenant))},
                        {"protocol", policy::protocol_name(service.protocol)},
                        {"port", service.port},
                        {"role", policy::role_name(service.role)},
                        {"class", policy::class_name(service.cls)},
                        {"path", policy::path_name(service.path)},
                        {"owner", owner_json(tables, id)}});
  }
  Json lanes = Json::array();
  for_lanes(tables, [&](std::uint32_t tenant, std::uint8_t cls, const anic_lane& lane) {
    lanes.push_back({{"tenant", tenant == 0 ? Json() : Json(tenant_name(tables, tenant))},
                     {"class", policy::class_name(cls)},
                     {"weight", lane.weight},
                     {"rate_bps", lane.rate_bps},
                     {"ceiling_bps", lane.ceiling_bps},
                     {"floor_percent", lane.floor_percent},
                     {"slo_ns", lane.slo_ns},
                     {"egress_priority", mark(lane.priority)},
                     {"egress_queue", mark(lane.queue)},
                     {"egress_dscp", mark(lane.dscp)},
                     {"cpus", policy::cpus_of(spread_of(tables, tenant, cls))},
                     {"path", policy::path_name(lane.path)}});
  });
  Json control = Json::array();
  for_control(tables, [&](const char* protocol, std::uint32_t port, std::string_view role) {
    control.push_back({{"protocol", protocol}, {"port", port}, {"role", role}});
  });
  Json agents = Json::array();
  for_agents(tables, [&](std::uint32_t id, const char* name, const policy::GrantWords& granted) {
    agents.push_back({{"name", name},
                      {"id", id},
                      {"tenants", granted.tenants},
                      {"kinds", granted.kinds},
                      {"classes", granted.classes},
                      {"paths", granted.paths}});
  });
  return {{"name", tables.policy.name},
          {"sha256", hex(tables.policy.digest)},
          {"faces", (tables.policy.uses & ANIC_FACES_WORKLOAD) != 0 ? "workload" : "network"},
          {"link_rate_bps", tables.policy.link_rate_bps},
          {"control_alarm_packets_per_s", tables.policy.control_alarm},
          {"prefixes", tables.policy.prefixes},
          {"tenants", tenants},
          {"services", services},
          {"lanes", lanes},
          {"control", control},
          {"guardian", guardian_json(tables.guarding.envelope)},
          {"agents", agents},
          {"napi", napi_json(tables.napi)}};
}

std::string to_text(const policy::Tables& tables) {
  constexpr std::size_t kMostRows = 64;  // of services; a file may have thousands
  std::string text = fmt::format("policy {} (sha256 {})\n", tables.policy.name, hex(tables.policy.digest));
  text += fmt::format("  faces    {}, link rate {}, {} prefixes\n",
                      (tables.policy.uses & ANIC_FACES_WORKLOAD) != 0 ? "a workload" : "the network",
                      rate_or(tables.policy.link_rate_bps, "not stated"), tables.policy.prefixes);
  if (!policy::is_empty(tables.napi)) text += fmt::format("  napi     {}\n", policy::napi_text(tables.napi));
  std::size_t rows = 0;
  std::size_t services = 0;
  for (std::size_t id = 1; id < tables.services.size(); ++id) {
    const anic_service& service = tables.services[id];
    if (service.name[0] == '\0') continue;
    if (++services > kMostRows) continue;
    ++rows;
    const std::string owner = policy::owner_of(tables, id);
    text +=
        fmt::format("  service  {:<30} {:>4} {:<6} {:<7} class {:<10} path {:<7}{}{}\n", service.name,
                    policy::protocol_name(service.protocol), service.port, policy::role_name(service.role),
                    policy::class_name(service.cls), policy::path_name(service.path),
                    service.tenant == 0 ? "" : " of " + tenant_name(tables, service.tenant),
                    owner.empty() ? "" : " owner " + owner);
  }
  if (services > rows) text += fmt::format("  service  and {} more\n", services - rows);
  for_control(tables, [&](const char* protocol, std::uint32_t port, std::string_view role) {
    text += fmt::format("  control  {:<30} {:>4} {:<6} {}\n", "", protocol, port, role);
  });
  for_lanes(tables, [&](std::uint32_t tenant, std::uint8_t cls, const anic_lane& lane) {
    text += fmt::format(
        "  lane     {:<30} weight {:>4}  rate {:>8}  ceiling {:>8}  floor {:>3} %  slo {:>6}  path {}{}{}\n",
        fmt::format("{}/{}", tenant_name(tables, tenant), policy::class_name(cls)), lane.weight,
        rate_or(lane.rate_bps, "-"), rate_or(lane.ceiling_bps, "-"), lane.floor_percent,
        lane.slo_ns == 0 ? "-" : policy::duration_text(lane.slo_ns), policy::path_name(lane.path),
        marks_text(lane), cpus_text(spread_of(tables, tenant, cls)));
  });
  const auto list = [](const std::vector<std::string>& words) {
    return words.empty() ? "-" : fmt::format("{}", fmt::join(words, " "));
  };
  for_agents(tables, [&](std::uint32_t, const char* name, const policy::GrantWords& granted) {
    text +=
        fmt::format("  agent    {:<30} tenants {}  kinds {}  classes {}  paths {}\n", name,
                    list(granted.tenants), list(granted.kinds), list(granted.classes), list(granted.paths));
  });
  return text;
}

/// How limits are kept at egress.
std::string egress_word(const kern::InstanceStatus& status) {
  const anic_policy& policy = status.in_force.policy;
  if (policy.link_rate_bps == 0) return "none";
  return (policy.uses & ANIC_USES_FQ) != 0 ? "paced" : "policed";
}

Json to_json(const std::map<std::uint32_t, anic_owner>& owners) {
  Json list = Json::array();
  for (const auto& [queue, owner] : owners)
    list.push_back(
        {{"queue", queue},
         {"pid", owner.pid},
         {"redirected", owner.sent},
         {"consumed", owner.consumed},
         {"lost", owner.lost},
         {"stalled", owner.refused},
         {"transmitted", owner.transmitted},
         {"room", owner.room},
         {"longest_bytes", owner.longest},
         {"turnaround_samples", owner.samples},
         {"turnaround_mean_ns", owner.samples == 0 ? Json(nullptr) : Json(owner.turned_ns / owner.samples)}});
  return list;
}

std::string to_text(const std::map<std::uint32_t, anic_owner>& owners) {
  std::string text;
  for (const auto& [queue, owner] : owners)
    text += fmt::format(
        "  owner     of queue {}, pid {}: {} redirected, {} consumed, {} lost, {} stalled, {} sent\n", queue,
        owner.pid, owner.sent, owner.consumed, owner.lost, owner.refused, owner.transmitted);
  return text;
}

Json to_json(const kern::NapiState& napi) {
  if (policy::is_empty(napi.wanted)) return nullptr;
  Json json = napi_json(napi.wanted);
  json["napis"] = Json::array();
  for (const kern::NapiThere& there : napi.napis) {
    Json row = napi_json(there.settings);
    row["id"] = there.id;
    json["napis"].push_back(row);
  }
  return json;
}

std::string to_text(const kern::NapiState& napi) {
  if (policy::is_empty(napi.wanted)) return "";
  return fmt::format("  napi      {}; NAPIs: {}\n", policy::napi_text(napi.wanted), napi.napis.size());
}

Json to_json(const kern::InstanceStatus& status) {
  const anic_meta& meta = status.meta;
  const anic_policy& policy = status.in_force.policy;
  return {{"interface", status.ifname},
          {"netns", netns_name(status)},
          {"netns_inode", status.dir.netns_inode},
          {"ifindex", meta.ifindex},
          {"state", health_name(status.health)},
          {"problem", status.problem},
          {"hook", kern::hook_name(meta.hook)},
          {"mode", kern::mode_name(meta.mode)},
          {"egress_hook", kern::hook_name(meta.egress_hook)},
          {"program_id", status.prog_id},
          {"egress_limits", egress_word(status)},
          {"root_qdisc", status.root_qdisc},
          {"notes", status.notes},
          {"queues", meta.queues},
          {"vlan_offload_turned_off", meta.vlan_offload_off != 0},
          {"generation", status.in_force.generation},
          {"policy",
           {{"name", std::string(policy.name, ::strnlen(policy.name, sizeof(policy.name)))},
            {"sha256", hex(policy.digest)},
            {"committed_at", date(policy.committed_at_ns)}}},
          {"attached_at", date(meta.attached_at_ns)},
          {"upgraded_at", date(meta.upgraded_at_ns)},
          {"abi", meta.abi_version},
          {"pins", status.dir.path()}};
}

std::string to_text(const kern::InstanceStatus& status) {
  std::string text = fmt::format("{}: {}\n", place(status), health_name(status.health));
  if (!status.problem.empty()) text += fmt::format("  problem   {}\n", status.problem);
  const anic_meta& meta = status.meta;
  if (meta.hook != ANIC_HOOK_NONE && meta.abi_version == ANIC_ABI_VERSION) {
    const anic_policy& policy = status.in_force.policy;
    text += fmt::format("  hook      {}, {}, program id {}; egress {}\n", kern::hook_name(meta.hook),
                        kern::mode_name(meta.mode), status.prog_id, kern::hook_name(meta.egress_hook));
    text += fmt::format("  policy    {} (sha256 {})\n", policy.name, hex(policy.digest));
    text += fmt::format("  in force  generation {}, since {}\n", status.in_force.generation,
                        date(policy.committed_at_ns));
    text += fmt::format("  limits    {}\n", policy.link_rate_bps == 0
                                                ? "none: the policy states no link_rate"
                                                : fmt::format("link {}, egress {}, root qdisc {}",
                                                              policy::rate_text(policy.link_rate_bps),
                                                              egress_word(status), status.root_qdisc));
    text += fmt::format("  queues    {}\n", meta.queues);
    text += fmt::format("  since     {}\n", date(meta.attached_at_ns));
    if (meta.upgraded_at_ns != 0) text += fmt::format("  upgraded  {}\n", date(meta.upgraded_at_ns));
    if (meta.vlan_offload_off != 0)
      text += "  offload   VLAN receive offload is off; detach turns it on again\n";
  }
  text += fmt::format("  pins      {}\n", status.dir.path());
  for (const std::string& note : status.notes) text += fmt::format("  note      {}\n", note);
  return text;
}

}  // namespace agentnic::cli
