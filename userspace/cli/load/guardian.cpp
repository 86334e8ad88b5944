// SPDX-License-Identifier: Apache-2.0
#include "cli/load/guardian.hpp"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <utility>
#include <vector>

#include "audit/words.hpp"
#include "base/clock.hpp"
#include "cli/common/names.hpp"
#include "cli/load/show.hpp"
#include "policy/model.hpp"
#include "policy/text.hpp"
#include "policy/units.hpp"

namespace agentnic::cli {
namespace {

std::uint64_t unix_ns(std::uint64_t monotonic_ns, const audit::Names& names) {
  return monotonic_ns + static_cast<std::uint64_t>(names.wall_ahead_ns);
}

/// The tenants of a session, by name.
std::vector<std::string> tenants_of(const anic_grants& asked, const audit::Names& names) {
  std::vector<std::string> tenants;
  for (std::uint32_t id = 1; id < ANIC_TENANTS_MAX; ++id) {
    if ((asked.tenants >> (id - 1) & 1U) != 0) tenants.push_back(names.tenant(id));
  }
  return tenants;
}

std::string seconds_ago(std::uint64_t then_ns) {
  constexpr double kSecond = 1e9;
  const std::uint64_t now = monotonic_ns();
  return fmt::format("{:.1f} s ago", static_cast<double>(now > then_ns ? now - then_ns : 0) / kSecond);
}

/// Kind and scope of what is in force.
std::string change_text(const anic_action& action, const audit::Names& names) {
  const auto kind = static_cast<std::uint8_t>(ANIC_TARGET_KIND(action.target));
  const auto part = static_cast<std::uint16_t>(ANIC_TARGET_PART(action.target));
  return std::string(policy::change_name(kind)) +
         audit::scope_text(kind, static_cast<std::uint8_t>(ANIC_TARGET_CLASS(action.target)), part, part,
                           names);
}

Json change_json(const anic_action& action, const audit::Names& names) {
  const auto kind = static_cast<std::uint8_t>(ANIC_TARGET_KIND(action.target));
  const auto cls = static_cast<std::uint8_t>(ANIC_TARGET_CLASS(action.target));
  const std::uint32_t part = ANIC_TARGET_PART(action.target);
  const std::string unit(audit::value_unit(kind));
  Json json = {{"change", policy::change_name(kind)}};
  if (cls != 0) json["class"] = policy::class_name(cls);
  if (kind == ANIC_CHANGE_FLOW_CLASS_ESCALATE) json["service"] = names.service(part);
  if (kind == ANIC_CHANGE_QUEUE_REBALANCE) json["bucket"] = part;
  json["stated_" + unit] = audit::value_json(kind, action.stated);
  json["in_force_" + unit] = audit::value_json(kind, action.value);
  json["session"] = action.session;
  json["changed_unix_ns"] = unix_ns(action.changed_ns, names);
  json["until_unix_ns"] = or_null(action.until_ns != 0, unix_ns(action.until_ns, names));
  return json;
}

Json session_json(const anic_session& session, const audit::Names& names) {
  return {{"id", session.id},
          {"agent", or_null(session.agent != 0, names.agent(session.agent))},
          {"tenants", tenants_of(session.asked, names)},
          {"opened_unix_ns", unix_ns(session.opened_ns, names)},
          {"heard_unix_ns", or_null(session.heard_ns != 0, unix_ns(session.heard_ns, names))},
          {"approved", session.decided[ANIC_DECIDED_APPROVE]},
          {"rewritten", session.decided[ANIC_DECIDED_REWRITE]},
          {"rejected", session.decided[ANIC_DECIDED_REJECT]},
          {"rejected_in_row", session.rejected_in_row}};
}

/// What was known of the lanes when fail-safe was entered.
Json dumped_lanes(const anic_dump& dump) {
  Json lanes = Json::array();
  for (std::uint8_t cls = 1; cls < ANIC_CLASS__MAX; ++cls) {
    const anic_lane& lane = dump.lanes[cls];
    if (lane.path == ANIC_PATH_NONE) continue;
    lanes.push_back({{"class", policy::class_name(cls)},
                     {"weight", lane.weight},
                     {"rate_bps", lane.rate_bps},
                     {"ceiling_bps", lane.ceiling_bps},
                     {"path", policy::path_name(lane.path)},
                     {"wanted_in_bps", dump.wanted_bps[ANIC_DIRECTION_IN][cls]},
                     {"wanted_out_bps", dump.wanted_bps[ANIC_DIRECTION_OUT][cls]},
                     {"samples", dump.samples[cls]},
                     {"over_slo", dump.over_slo[cls]}});
  }
  return lanes;
}

Json dumped_changes(const anic_dump& dump, const audit::Names& names) {
  Json changes = Json::array();
  for (const anic_action& action : dump.actions) {
    if (action.in_force != 0) changes.push_back(change_json(action, names));
  }
  return changes;
}

Json failsafe_json(const kern::FailSafe& failsafe, const audit::Names& names) {
  const anic_dump& dump = failsafe.dump;
  return {{"tenant", or_null(failsafe.tenant != 0, names.tenant(failsafe.tenant))},
          {"in_force", failsafe.in_force()},
          {"alarm", failsafe.alarm()},
          {"kind", audit::failsafe_name(dump.kind)},
          {"invariant", or_null(dump.invariant != 0, audit::invariant_name(dump.invariant))},
          {"reason", audit::text_of(dump.reason)},
          {"since_unix_ns", unix_ns(dump.at_ns, names)},
          {"until_unix_ns", or_null(dump.until_ns != 0, unix_ns(dump.until_ns, names))},
          {"session", or_null(dump.session != 0, dump.session)},
          {"heard_unix_ns", or_null(dump.heard_ns != 0, unix_ns(dump.heard_ns, names))},
          {"rejected_in_row", dump.rejected_in_row},
          {"generation", dump.generation},
          {"lanes", dumped_lanes(dump)},
          {"changes", dumped_changes(dump, names)}};
}

std::string why_text(const anic_dump& dump) {
  const std::string kind(audit::failsafe_name(dump.kind));
  std::string text = dump.invariant == ANIC_INVARIANT_NONE
                         ? kind
                         : fmt::format("{} ({})", audit::invariant_name(dump.invariant), kind);
  const std::string_view reason = audit::text_of(dump.reason);
  if (dump.session != 0) text += fmt::format(", session {}", dump.session);
  if (!reason.empty()) text += ", " + policy::json_text(reason);
  return text;
}

std::string alarm_line(const kern::FailSafe& failsafe, const GuardianView& view,
                       const kern::InstanceStatus& status) {
  const anic_dump& dump = failsafe.dump;
  const std::string since = audit::date_text(dump.at_ns, view.names);
  std::string text = fmt::format("{}: {}: {} ", failsafe.in_force() ? "FAIL-SAFE" : "ALARM", place(status),
                                 audit::tenant_text(failsafe.tenant, view.names));
  text += failsafe.in_force() ? "since " + since : "was in fail-safe at " + since;
  text += ": " + why_text(dump);
  if (failsafe.in_force()) {
    text += dump.until_ns == 0 ? "; until an operator ends it"
                               : "; until " + audit::time_text(dump.until_ns, view.names);
  }
  // Leaving acknowledges, too.
  const bool leave = failsafe.in_force() && (dump.until_ns == 0 || !failsafe.alarm());
  return text +
         fmt::format("; agentnic-load failsafe {} {}{}{}\n", status.ifname, leave ? "exit" : "ack",
                     failsafe.tenant == 0 ? "" : " --tenant " + view.names.tenant(failsafe.tenant),
                     status.netns && !status.netns->name().empty() ? " --netns " + status.netns->name() : "");
}

std::string session_line(const anic_session& session, const audit::Names& names) {
  const std::string agent = session.agent == 0 ? "an operator" : "agent " + names.agent(session.agent);
  return fmt::format("  session   {} of {}, for {}: heard {}; approved {}, rewritten {}, rejected {}\n",
                     session.id, agent, fmt::join(tenants_of(session.asked, names), ", "),
                     session.heard_ns == 0 ? "nothing of yet" : seconds_ago(session.heard_ns),
                     session.decided[ANIC_DECIDED_APPROVE], session.decided[ANIC_DECIDED_REWRITE],
                     session.decided[ANIC_DECIDED_REJECT]);
}

std::string change_line(const kern::ChangeInForce& change, const audit::Names& names) {
  const anic_action& action = change.action;
  const auto kind = static_cast<std::uint8_t>(ANIC_TARGET_KIND(action.target));
  return fmt::format("  change    {}: {} {} -> {} by session {}, until {}\n",
                     audit::tenant_text(change.tenant, names), change_text(action, names),
                     audit::value_text(kind, action.stated), audit::value_text(kind, action.value),
                     action.session,
                     action.until_ns == 0 ? "it ends" : audit::time_text(action.until_ns, names));
}

}  // namespace

Result<GuardianView> view_guardian(const kern::InstanceStatus& status) {
  const kern::Maps maps = ANIC_TRY(kern::Maps::pinned(status.dir));
  return GuardianView{.state = ANIC_TRY(kern::read_guardian(maps)),
                      .names = ANIC_TRY(read_audit_names(maps))};
}

Json to_json(const GuardianView& view) {
  const kern::GuardianState& state = view.state;
  Json failsafes = Json::array();
  for (const auto& failsafe : state.failsafes) failsafes.push_back(failsafe_json(failsafe, view.names));
  Json sessions = Json::array();
  for (const auto& session : state.sessions) sessions.push_back(session_json(session, view.names));
  Json changes = Json::array();
  for (const auto& change : state.changes) {
    Json json = {{"tenant", view.names.tenant(change.tenant)}};
    json.update(change_json(change.action, view.names));
    changes.push_back(json);
  }
  Json limits = Json::array();
  for (std::uint32_t tenant = 0; tenant < state.wards.size(); ++tenant) {
    const std::uint64_t bps = state.wards[tenant].bulk_bps;
    if (bps == 0) continue;
    limits.push_back({{"tenant", or_null(tenant != 0, view.names.tenant(tenant))}, {"bulk_bps", bps}});
  }
  return {{"failsafes", failsafes},
          {"sessions", sessions},
          {"changes", changes},
          {"bulk_limits", limits},
          {"ticks", state.guard.ticks},
          {"ticks_locked", state.guard.ticks_locked},
          {"last_tick_unix_ns", unix_ns(state.guard.last_tick_ns, view.names)},
          {"audit",
           {{"seq", state.seq},
            {"ring_unread_bytes", state.ring.unread_bytes},
            {"ring_size_bytes", state.ring.size_bytes},
            {"waiting_records", state.waiting},
            {"lost_records", state.lost}}}};
}

std::string alarms_text(const GuardianView& view, const kern::InstanceStatus& status) {
  std::string text;
  for (const auto& failsafe : view.state.failsafes) text += alarm_line(failsafe, view, status);
  return text;
}

std::string to_text(const GuardianView& view) {
  const kern::GuardianState& state = view.state;
  std::string text;
  for (const auto& session : state.sessions) text += session_line(session, view.names);
  for (const auto& change : state.changes) text += change_line(change, view.names);
  for (std::uint32_t tenant = 0; tenant < state.wards.size(); ++tenant) {
    const std::uint64_t bps = state.wards[tenant].bulk_bps;
    if (bps == 0) continue;
    text += fmt::format("  protect   {}: bulk limited to {}, for an SLO that was missed\n",
                        audit::traffic_text(tenant, view.names), policy::rate_text(bps));
  }
  text += fmt::format("  audit     {} records, {} of {} KiB unread", state.seq,
                      state.ring.unread_bytes / 1024, state.ring.size_bytes / 1024);
  if (state.waiting != 0) text += fmt::format(", {} wait for room", state.waiting);
  if (state.lost != 0) text += fmt::format(", {} LOST", state.lost);
  return text + "\n";
}

}  // namespace agentnic::cli
