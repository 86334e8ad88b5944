// SPDX-License-Identifier: Apache-2.0
#include "policy/difference.hpp"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <map>
#include <span>
#include <string_view>

#include "base/hex.hpp"
#include "policy/difference_lines.hpp"
#include "policy/prefix.hpp"
#include "policy/units.hpp"

namespace agentnic::policy {
namespace {

std::string tenant_of(const Tables& tables, std::uint32_t id) {
  if (id == 0) return "(none)";
  const std::string name = id < tables.tenants.size() ? name_in(tables.tenants[id].name) : "";
  return name.empty() ? fmt::format("(tenant id {})", id) : name;
}

std::string service_of(const Tables& tables, std::uint32_t id) {
  if (id == 0) return "(none)";
  const std::string name = id < tables.services.size() ? name_in(tables.services[id].name) : "";
  return name.empty() ? fmt::format("(service id {})", id) : name;
}

std::string owner_or_none(const Tables& tables, std::size_t id) {
  const std::string owner = owner_of(tables, id);
  return owner.empty() ? "none" : owner;
}

std::string class_or_none(std::uint8_t cls) { return std::string(cls == 0 ? "none" : class_name(cls)); }

std::string cpus_or_none(const anic_spread& spread) {
  const std::vector<unsigned> cpus = cpus_of(spread);
  return cpus.empty() ? "none" : fmt::format("{}", fmt::join(cpus, " "));
}

/// The fallback spreads nothing.
anic_spread spread_of(const Tables& tables, std::size_t tenant, std::uint32_t cls, bool fallback) {
  const std::size_t lane = ANIC_LANE(tenant, cls);
  return fallback || lane >= tables.spread.size() ? anic_spread{} : tables.spread[lane];
}

std::string port_text(std::uint32_t index) {
  const bool tcp = index >= ANIC_PORTS;
  return fmt::format("{} port {}", tcp ? "tcp" : "udp", index - (tcp ? ANIC_PORTS : 0));
}

void compare_policies(const anic_policy& before, const anic_policy& after, Lines& lines) {
  const auto compare = [&lines](std::string_view what, const std::string& was, const std::string& is) {
    if (was != is) lines.push_back(fmt::format("{}: {} -> {}", what, was, is));
  };
  const auto faces = [](const anic_policy& row) {
    return std::string((row.uses & ANIC_FACES_WORKLOAD) != 0 ? "workload" : "network");
  };
  const auto egress = [](const anic_policy& row) {
    return std::string((row.uses & ANIC_USES_FQ) != 0 ? "paced" : "policed");
  };
  const auto alarm = [](const anic_policy& row) {
    return row.control_alarm == 0 ? std::string("none") : std::to_string(row.control_alarm);
  };
  const auto name = [](const anic_policy& row) {
    return row.name[0] == '\0' ? std::string("none") : name_in(row.name);
  };
  compare("name", name(before), name(after));
  compare("faces", faces(before), faces(after));
  compare("egress", egress(before), egress(after));
  compare("link_rate", rate_or_none(before.link_rate_bps), rate_or_none(after.link_rate_bps));
  compare("control_alarm", alarm(before), alarm(after));
}

void compare_napi(const Napi& before, const Napi& after, Lines& lines) {
  const auto text = [](anic_napi_setting setting, const Napi& napi) {
    return napi[setting] ? napi_value_text(setting, *napi[setting]) : std::string("none");
  };
  for (const anic_napi_setting setting : kNapiSettings) {
    const std::string was = text(setting, before);
    const std::string is = text(setting, after);
    if (was != is) lines.push_back(fmt::format("napi {}: {} -> {}", napi_name(setting), was, is));
  }
}

/// What the tenant as a whole is given.
const anic_lane& whole_of(const Tables& tables, std::size_t tenant) {
  return tables.lanes[lane_index(ANIC_PROFILE_POLICY, static_cast<std::uint32_t>(tenant), ANIC_CLASS_NONE)];
}

void compare_tenants(const Tables& before, const Tables& after, Lines& lines) {
  Group group("tenants");
  merge(ids_of(before.tenants), ids_of(after.tenants),
        [&](const std::string& name, const std::size_t* old, const std::size_t* now) {
          const std::string what = "tenant " + name;
          if (old == nullptr) return group.added(what);
          if (now == nullptr) return group.removed(what);
          Fields fields;
          fields.compare("id", *old, *now);
          fields.compare("default_class", class_name(before.tenants[*old].cls),
                         class_name(after.tenants[*now].cls));
          const anic_lane& was = whole_of(before, *old);
          const anic_lane& is = whole_of(after, *now);
          fields.compare("minimum", rate_or_none(was.rate_bps), rate_or_none(is.rate_bps));
          fields.compare("ceiling", rate_or_none(was.ceiling_bps), rate_or_none(is.ceiling_bps));
          fields.compare("weight", was.weight, is.weight);
          if (!fields.empty()) group.changed(what, fields.text());
        });
  group.append_to(lines);
}

void compare_services(const Tables& before, const Tables& after, Lines& lines) {
  Group group("services");
  merge(ids_of(before.services), ids_of(after.services),
        [&](const std::string& name, const std::size_t* old, const std::size_t* now) {
          const std::string what = "service " + name;
          if (old == nullptr) return group.added(what);
          if (now == nullptr) return group.removed(what);
          const anic_service& was = before.services[*old];
          const anic_service& is = after.services[*now];
          Fields fields;
          fields.compare("id", *old, *now);
          fields.compare("tenant", was.tenant == 0 ? "any" : tenant_of(before, was.tenant),
                         is.tenant == 0 ? "any" : tenant_of(after, is.tenant));
          fields.compare("protocol", protocol_name(was.protocol), protocol_name(is.protocol));
          fields.compare("port", was.port, is.port);
          fields.compare("role", role_name(was.role), role_name(is.role));
          fields.compare("class", class_name(was.cls), class_name(is.cls));
          fields.compare("path", path_name(was.path), path_name(is.path));
          fields.compare("owner", owner_or_none(before, *old), owner_or_none(after, *now));
          if (!fields.empty()) group.changed(what, fields.text());
        });
  group.append_to(lines);
}

/// One of the maps from what tells a tenant to the tenant's id; `say` is the text of a key.
template <typename Key, typename Say>
void compare_owners(const Tables& before, const Tables& after, std::map<Key, std::uint32_t> Tables::* map,
                    Group group, Say say, Lines& lines) {
  merge(before.*map, after.*map, [&](const Key& key, const std::uint32_t* old, const std::uint32_t* now) {
    const std::string was = old != nullptr ? tenant_of(before, *old) : "";
    const std::string is = now != nullptr ? tenant_of(after, *now) : "";
    if (old == nullptr) return group.added(fmt::format("{} of {}", say(key), is));
    if (now == nullptr) return group.removed(fmt::format("{} of {}", say(key), was));
    if (was != is) group.changed(say(key), fmt::format("{} -> {}", was, is));
  });
  group.append_to(lines);
}

void compare_control(const Tables& before, const Tables& after, Lines& lines) {
  Group group("control ports");
  merge(before.ports, after.ports, [&](std::uint32_t index, const anic_port* old, const anic_port* now) {
    const std::uint8_t was = old != nullptr ? old->control : 0;
    const std::uint8_t is = now != nullptr ? now->control : 0;
    const std::string what = "control " + port_text(index);
    if (was == is) return;
    if (was == 0) return group.added(fmt::format("{} ({})", what, role_name(is)));
    if (is == 0) return group.removed(fmt::format("{} ({})", what, role_name(was)));
    group.changed(what, fmt::format("{} -> {}", role_name(was), role_name(is)));
  });
  group.append_to(lines);
}

void compare_dscp(const anic_policy& before, const anic_policy& after, Lines& lines) {
  Group group("DSCP values");
  for (std::size_t value = 0; value < ANIC_DSCPS; ++value) {
    const std::uint8_t was = before.dscp[value];
    const std::uint8_t is = after.dscp[value];
    const std::string what = fmt::format("dscp {}", value);
    if (was == is) continue;
    group.changed(what, fmt::format("{} -> {}", class_or_none(was), class_or_none(is)));
  }
  group.append_to(lines);
}

void compare_lane(const std::string& what, const anic_lane& was, const anic_lane& is,
                  const anic_spread& was_spread, const anic_spread& is_spread, Group& group) {
  Fields fields;
  fields.compare("rate", rate_or_none(was.rate_bps), rate_or_none(is.rate_bps));
  fields.compare("ceiling", rate_or_none(was.ceiling_bps), rate_or_none(is.ceiling_bps));
  fields.compare("slo", duration_or_none(was.slo_ns), duration_or_none(is.slo_ns));
  fields.compare("floor", was.floor_percent, is.floor_percent);
  fields.compare("weight", was.weight, is.weight);
  fields.compare("path", path_name(was.path), path_name(is.path));
  const auto mark = [](unsigned stored) { return stored == 0 ? "none" : std::to_string(stored - 1); };
  fields.compare("egress priority", mark(was.priority), mark(is.priority));
  fields.compare("egress queue", mark(was.queue), mark(is.queue));
  fields.compare("egress dscp", mark(was.dscp), mark(is.dscp));
  if (!(was_spread == is_spread)) {
    const std::string cpus = cpus_or_none(was_spread);
    const std::string now = cpus_or_none(is_spread);
    fields.compare("cpus", cpus, now == cpus ? now + ", in other buckets" : now);
  }
  if (!fields.empty()) group.changed(what, fields.text());
}

/// The lanes of tenants that both have: those of the others come and go with them.
void compare_lanes(const Tables& before, const Tables& after, anic_profile profile, Lines& lines) {
  const bool fallback = profile == ANIC_PROFILE_FALLBACK;
  Group group(fallback ? "fallback lanes" : "lanes");
  std::map<std::string, std::size_t> old_ids = ids_of(before.tenants);
  std::map<std::string, std::size_t> new_ids = ids_of(after.tenants);
  old_ids.emplace("(none)", 0);
  new_ids.emplace("(none)", 0);
  merge(old_ids, new_ids, [&](const std::string& name, const std::size_t* old, const std::size_t* now) {
    if (old == nullptr || now == nullptr) return;
    for (std::uint32_t cls = 1; cls < ANIC_CLASS__MAX; ++cls) {
      const std::size_t was = lane_index(profile, static_cast<std::uint32_t>(*old), cls);
      const std::size_t is = lane_index(profile, static_cast<std::uint32_t>(*now), cls);
      if (was >= before.lanes.size() || is >= after.lanes.size()) continue;
      compare_lane(fmt::format("{}lane {}/{}", fallback ? "fallback " : "", name,
                               class_name(static_cast<std::uint8_t>(cls))),
                   before.lanes[was], after.lanes[is], spread_of(before, *old, cls, fallback),
                   spread_of(after, *now, cls, fallback), group);
    }
  });
  group.append_to(lines);
}

/// What follows from all of the above. It differs alone only in tables that no policy compiles to, such as
/// those of a kernel that somebody else has written to.
void compare_lookups(const Tables& before, const Tables& after, Lines& lines) {
  Group group("look-ups");
  merge(before.ports, after.ports, [&](std::uint32_t index, const anic_port* old, const anic_port* now) {
    const anic_port was = old != nullptr ? *old : anic_port{};
    const anic_port is = now != nullptr ? *now : anic_port{};
    Fields fields;
    fields.compare("server", service_of(before, was.server), service_of(after, is.server));
    fields.compare("client", service_of(before, was.client), service_of(after, is.client));
    fields.compare("ends of single tenants", was.tenants, is.tenants);
    if (!fields.empty()) group.changed("look-up of " + port_text(index), fields.text());
  });
  merge(before.owned, after.owned,
        [&](const anic_owned_port& key, const std::uint32_t* old, const std::uint32_t* now) {
          Fields fields;
          fields.compare("service", service_of(before, old != nullptr ? *old : 0),
                         service_of(after, now != nullptr ? *now : 0));
          if (fields.empty()) return;
          group.changed(
              fmt::format("look-up of {} ({}) of {}", port_text(port_index(key.protocol, key.port)),
                          role_name(key.role), tenant_of(old != nullptr ? before : after, key.tenant)),
              fields.text());
        });
  group.append_to(lines);
}

/// When nothing that has a name differs.
void compare_rest(const Tables& before, const Tables& after, Lines& lines) {
  compare_lookups(before, after, lines);
  Fields fields;
  fields.compare("uses", before.policy.uses, after.policy.uses);
  fields.compare("cgroup_depths", before.policy.cgroup_depths, after.policy.cgroup_depths);
  fields.compare("prefixes", before.policy.prefixes, after.policy.prefixes);
  if (!fields.empty()) lines.push_back("policy row: " + fields.text());
  const std::string was = hex(std::span(before.policy.digest).first(6));
  const std::string is = hex(std::span(after.policy.digest).first(6));
  if (was != is && lines.empty()) {
    lines.push_back(fmt::format("document: {} -> {}, which changes no table", was, is));
  }
}

bool equal(Tables before, const Tables& after) {
  before.policy.committed_at_ns = after.policy.committed_at_ns;
  return before == after;
}

}  // namespace

std::vector<std::string> difference(const Tables& before, const Tables& after) {
  Lines lines;
  if (equal(before, after)) return lines;
  compare_policies(before.policy, after.policy, lines);
  compare_napi(before.napi, after.napi, lines);
  compare_tenants(before, after, lines);
  compare_owners(
      before, after, &Tables::remotes, Group("prefixes", "moved"),
      [](const anic_prefix& prefix) { return "prefix " + prefix_text(prefix); }, lines);
  compare_owners(
      before, after, &Tables::locals, Group("local prefixes", "moved"),
      [](const anic_prefix& prefix) { return "local prefix " + prefix_text(prefix); }, lines);
  compare_owners(
      before, after, &Tables::cgroups, Group("cgroups", "moved"),
      [](const std::string& path) { return "cgroup " + path; }, lines);
  compare_owners(
      before, after, &Tables::senders, Group("senders", "moved"),
      [](const anic_sender& sender) {
        return fmt::format("{} {}", sender.kind == ANIC_SENDER_CGROUP ? "cgroup id" : "mark", sender.id);
      },
      lines);
  compare_services(before, after, lines);
  compare_dscp(before.policy, after.policy, lines);
  compare_control(before, after, lines);
  compare_lanes(before, after, ANIC_PROFILE_POLICY, lines);
  compare_lanes(before, after, ANIC_PROFILE_FALLBACK, lines);
  compare_guarding(before, after, lines);
  if (lines.empty()) compare_rest(before, after, lines);
  if (lines.empty()) lines.emplace_back("tables: rows that no name leads to differ");
  return lines;
}

}  // namespace agentnic::policy
