// SPDX-License-Identifier: Apache-2.0
#include "audit/sentence.hpp"

#include <fmt/chrono.h>
#include <fmt/format.h>

#include <fmt/ranges.h>
#include <algorithm>
#include <array>

#include <cstring>
#include <ctime>
#include <span>
#include <string_view>
#include <vector>

#include "abi/guardian.h"
#include "audit/words.hpp"
#include "base/hex.hpp"
#include "policy/model.hpp"
#include "policy/text.hpp"
#include "policy/units.hpp"

namespace agentnic::audit {
namespace {

constexpr std::size_t kDigestShown = 6;  // bytes, of the policy's

std::string name_or_number(const std::string& name, std::uint32_t id) {
  return name.empty() ? fmt::format("{}", id) : name;
}

std::string wall_date(std::uint64_t wall_ns) {
  const auto seconds = static_cast<std::time_t>(wall_ns / 1'000'000'000);
  return fmt::format("{:%Y-%m-%dT%H:%M:%SZ}", fmt::gmtime(seconds));
}

std::uint64_t wall_of(std::uint64_t monotonic_ns, const Names& names) {
  return monotonic_ns + static_cast<std::uint64_t>(names.wall_ahead_ns);
}

/// The words of who asked.
std::string quoted(const anic_record& record) {
  const std::string_view reason = text_of(record.reason);
  return reason.empty() ? "" : fmt::format(" ({})", policy::json_text(reason));
}

/// A name that came as such words: quoted, unless it is plain.
std::string name_text(const anic_record& record) {
  const std::string_view name = text_of(record.reason);
  std::string text = policy::json_text(name);
  const bool is_plain = !name.empty() && text.size() == name.size() + 2;  // nothing is escaped
  return is_plain ? std::string(name) : text;
}

std::string agent_text(std::uint32_t agent, const Names& names) {
  return agent == 0 ? "an operator" : "agent " + name_or_number(names.agent(agent), agent);
}

std::vector<std::uint32_t> tenants_of(std::uint64_t bits) {
  std::vector<std::uint32_t> ids;
  for (std::uint32_t i = 0; i < 64; ++i) {
    if ((bits >> i & 1U) != 0) ids.push_back(i + 1);
  }
  return ids;
}

/// Of each invariant that rewrote a proposal what `word` says of it.
template <typename Word>
std::vector<std::string> rewriters(const anic_record& record, Word&& word) {
  std::vector<std::string> words;
  for (std::uint8_t i = 1; i < ANIC_INVARIANT__MAX; ++i) {
    if ((record.rewritten >> i & 1U) != 0) words.emplace_back(word(i));
  }
  return words;
}

std::string with_meaning(std::uint8_t invariant) {
  return fmt::format("{} ({})", invariant_name(invariant), invariant_meaning(invariant));
}

/// Of a record: kind of change, and what it is of.
std::string change_text(const anic_record& record, const Names& names) {
  const std::string kind = record.proposed > 0 && record.proposed < ANIC_CHANGE__MAX
                               ? std::string(policy::change_name(record.proposed))
                               : fmt::format("change {}", record.proposed);
  return kind + scope_text(record.proposed, record.cls, record.service, record.bucket, names);
}

std::string value(const anic_record& record, std::uint64_t number) {
  return value_text(record.proposed, number);
}

std::string until_text(const anic_record& record, const Names& names) {
  return record.until_ns == 0 ? ", until the session ends" : ", until " + time_text(record.until_ns, names);
}

std::string verdict(const anic_record& record, const Names& names) {
  switch (record.decided) {
    case ANIC_DECIDED_APPROVE:
      return "approved" + until_text(record, names);
    case ANIC_DECIDED_REWRITE:
      return fmt::format("rewritten to {} by {}{}", value(record, record.approved),
                         fmt::join(rewriters(record, with_meaning), " and "), until_text(record, names));
    case ANIC_DECIDED_REJECT:
      return fmt::format("rejected by {}{}", with_meaning(record.invariant),
                         record.count > 1 ? fmt::format(", {} times", record.count) : "");
    default:
      return fmt::format("decision {}", record.decided);
  }
}

std::string decision(const anic_record& record, const Names& names) {
  const std::string before = looked_at_value(record) ? value(record, record.observed) + " ->" : "to be";
  const std::string who = record.tenant == 0 ? "no known tenant" : tenant_text(record.tenant, names);
  return fmt::format("{}: session {} asked {} {} {}{}: {}", who, record.session, change_text(record, names),
                     before, value(record, record.requested), quoted(record), verdict(record, names));
}

std::string revert_cause(std::uint8_t invariant) {
  switch (invariant) {
    case ANIC_INVARIANT_NONE:
      return "its session was closed, or another policy came in force";
    case ANIC_INVARIANT_R6:
      return "R6 (its time was over)";
    case ANIC_INVARIANT_L3:
      return "L3 (a class missed its SLO after it)";
    case ANIC_INVARIANT_L4:
      return "L4 (fail-safe was entered)";
    default:
      return with_meaning(invariant);
  }
}

std::string revert(const anic_record& record, const Names& names) {
  return fmt::format("{}: {} of session {} was given back, {} -> {}: {}", tenant_text(record.tenant, names),
                     change_text(record, names), record.session, value(record, record.observed),
                     value(record, record.approved), revert_cause(record.invariant));
}

std::string open(const anic_record& record, const Names& names) {
  std::vector<std::string> tenants;
  for (const std::uint32_t id : tenants_of(record.requested))
    tenants.push_back(name_or_number(names.tenant(id), id));
  return fmt::format("session {} of {} was opened for {}{}", record.session,
                     agent_text(record.service, names), fmt::join(tenants, ", "), quoted(record));
}

std::string close(const anic_record& record) {
  if (record.invariant == ANIC_INVARIANT_NONE)
    return fmt::format("session {} was closed{}", record.session, quoted(record));
  return fmt::format("session {} was ended by {}", record.session, with_meaning(record.invariant));
}

std::string failsafe(const anic_record& record, const Names& names) {
  const std::string who = tenant_text(record.tenant, names);
  if (record.decided == ANIC_DECIDED_FAILSAFE_EXIT)
    return fmt::format("{}: fail-safe ({}) was left{}", who, failsafe_name(record.failsafe), quoted(record));
  const std::string why =
      record.invariant == ANIC_INVARIANT_NONE ? "" : " by " + with_meaning(record.invariant);
  const std::string until =
      record.until_ns == 0 ? ", until an operator ends it" : ", until " + time_text(record.until_ns, names);
  return fmt::format("{}: FAIL-SAFE ({}) was entered{}{}{}", who, failsafe_name(record.failsafe), why,
                     quoted(record), until);
}

std::string protect(const anic_record& record, const Names& names) {
  const std::string limit = record.approved == 0
                                ? "the limit of its bulk traffic was lifted"
                                : "bulk traffic was limited to " + policy::rate_text(record.approved);
  return fmt::format(
      "{}: {} by {}", traffic_text(record.tenant, names), limit,
      record.invariant == ANIC_INVARIANT_NONE ? "the guardian" : with_meaning(record.invariant));
}

std::string policy_text(const anic_record& record) {
  return "policy sha256 " + hex(std::span(record.digest).first(kDigestShown));
}

std::string commit(const anic_record& record) {
  if (record.tenant != 0) {
    return fmt::format("tenant {}: its records begin here, under {}, at {}", name_text(record),
                       policy_text(record), wall_date(record.requested));
  }
  return fmt::format("{} came in force as generation {} at {}", policy_text(record), record.generation,
                     wall_date(record.requested));
}

std::string detach(const anic_record& record, const Names& names) {
  const std::string at = wall_date(record.requested);
  return record.tenant == 0
             ? "the audit ends: detached at " + at
             : fmt::format("{}: its records end here, at {}", tenant_text(record.tenant, names), at);
}

/// READ and EXPORT.
std::string disclosure(const anic_record& record, const Names& names, std::string_view did) {
  const std::string whose = record.tenant == 0 ? "" : " of " + tenant_text(record.tenant, names);
  return fmt::format("user {} {} the records{} at {}{}", record.requested, did, whose,
                     wall_date(record.observed), quoted(record));
}

std::string missed(const anic_record& record, const Names& names) {
  return fmt::format("{}: {} missed its SLO: {} of {} answers took longer than {}, {}",
                     tenant_text(record.tenant, names), policy::class_name(record.cls), record.approved,
                     record.observed, policy::duration_text(record.requested),
                     with_meaning(record.invariant));
}

anic_lost lost_of(const anic_record& record) {
  anic_lost lost{};
  static_assert(sizeof(lost) == sizeof(record.reason));
  std::memcpy(&lost, record.reason, sizeof(lost));
  return lost;
}

/// The first number is of the kinds after LOST, together.
std::string_view lost_name(std::uint8_t kind) { return kind == 0 ? "other" : record_name(kind); }

/// Calls `each` with kind and number of what was lost.
template <typename Each>
void for_lost(const anic_record& record, Each&& each) {
  const anic_lost lost = lost_of(record);
  for (std::uint8_t kind = 0; kind < std::size(lost.by_kind); ++kind) {
    if (lost.by_kind[kind] != 0) each(kind, lost.by_kind[kind]);
  }
}

std::string lost(const anic_record& record) {
  std::uint64_t sum = 0;
  std::vector<std::string> kinds;
  for_lost(record, [&](std::uint8_t kind, std::uint32_t count) {
    sum += count;
    kinds.push_back(fmt::format("{} {}", count, lost_name(kind)));
  });
  return fmt::format("{} records found no room and are LOST: {}", sum, fmt::join(kinds, ", "));
}

void add_change(Json& json, const anic_record& record, const Names& names) {
  const std::string unit(value_unit(record.proposed));
  json["change"] = policy::change_name(record.proposed);
  if (record.cls != 0) json["class"] = policy::class_name(record.cls);
  if (record.proposed == ANIC_CHANGE_FLOW_CLASS_ESCALATE) {
    json["service"] = names.service(record.service);
    json["service_id"] = record.service;
  }
  if (record.proposed == ANIC_CHANGE_QUEUE_REBALANCE) json["bucket"] = record.bucket;
  if (unit == "?") return;
  json["observed_" + unit] = looked_at_value(record) ? value_json(record.proposed, record.observed) : Json();
  if (record.kind == ANIC_RECORD_DECISION)
    json["requested_" + unit] = value_json(record.proposed, record.requested);
  if (record.decided != ANIC_DECIDED_REJECT)
    json["approved_" + unit] = value_json(record.proposed, record.approved);
}

}  // namespace

bool looked_at_value(const anic_record& record) {
  constexpr std::array kBefore = {ANIC_INVARIANT_FORM, ANIC_INVARIANT_I3, ANIC_INVARIANT_L4,
                                  ANIC_INVARIANT_C1, ANIC_INVARIANT_C2};
  return record.decided != ANIC_DECIDED_REJECT ||
         std::ranges::find(kBefore, record.invariant) == kBefore.end();
}

std::string tenant_text(std::uint32_t tenant, const Names& names) {
  return tenant == 0 ? "the instance" : "tenant " + name_or_number(names.tenant(tenant), tenant);
}

std::string traffic_text(std::uint32_t tenant, const Names& names) {
  return tenant == 0 ? "traffic of no tenant" : tenant_text(tenant, names);
}

std::string scope_text(std::uint8_t change, std::uint8_t cls, std::uint16_t service, std::uint16_t bucket,
                       const Names& names) {
  switch (change) {
    case ANIC_CHANGE_QUEUE_WEIGHT_ADJUST:
    case ANIC_CHANGE_PATH_SWITCH:
      return fmt::format(" {}", policy::class_name(cls));
    case ANIC_CHANGE_FLOW_CLASS_ESCALATE:
      return " " + name_or_number(names.service(service), service);
    case ANIC_CHANGE_QUEUE_REBALANCE:
      return fmt::format(" {} bucket {}", policy::class_name(cls), bucket);
    default:
      return "";
  }
}

std::string time_text(std::uint64_t monotonic_ns, const Names& names) {
  const std::uint64_t wall = wall_of(monotonic_ns, names);
  return fmt::format("{:%H:%M:%S}.{:03}", fmt::gmtime(static_cast<std::time_t>(wall / 1'000'000'000)),
                     wall / 1'000'000 % 1000);
}

std::string date_text(std::uint64_t monotonic_ns, const Names& names) {
  return wall_date(wall_of(monotonic_ns, names));
}

std::string event_text(const anic_record& record, const Names& names) {
  switch (record.kind) {
    case ANIC_RECORD_ATTACH:
      return fmt::format("the audit begins: attached at {}{}", wall_date(record.requested),
                         record.observed == 0 ? "" : fmt::format(", chain key {}", record.observed));
    case ANIC_RECORD_COMMIT:
      return commit(record);
    case ANIC_RECORD_OPEN:
      return open(record, names);
    case ANIC_RECORD_CLOSE:
      return close(record);
    case ANIC_RECORD_DECISION:
      return decision(record, names);
    case ANIC_RECORD_REVERT:
      return revert(record, names);
    case ANIC_RECORD_FAILSAFE:
      return failsafe(record, names);
    case ANIC_RECORD_ACK:
      return fmt::format("{}: an operator acknowledged the alarm{}", tenant_text(record.tenant, names),
                         quoted(record));
    case ANIC_RECORD_PROTECT:
      return protect(record, names);
    case ANIC_RECORD_LOST:
      return lost(record);
    case ANIC_RECORD_DETACH:
      return detach(record, names);
    case ANIC_RECORD_READ:
      return disclosure(record, names, "read");
    case ANIC_RECORD_EXPORT:
      return disclosure(record, names, "exported");
    case ANIC_RECORD_MISSED:
      return missed(record, names);
    default:
      return fmt::format("a record of kind {}, which this version does not know", record.kind);
  }
}

std::string sentence(const anic_record& record, const Names& names) {
  return fmt::format("#{} {} {}", record.seq, time_text(record.time_ns, names), event_text(record, names));
}

Json value_json(std::uint8_t change, std::uint64_t value) {
  switch (change) {
    case ANIC_CHANGE_FLOW_CLASS_ESCALATE:
    case ANIC_CHANGE_PATH_SWITCH:
      return value_text(change, value);
    case ANIC_CHANGE_QUEUE_REBALANCE:
      return or_null(value != UINT32_MAX, value);
    default:
      return value;
  }
}

Json event_json(const anic_record& record, const Names& names) {
  Json json = Json::object();
  switch (record.kind) {
    case ANIC_RECORD_ATTACH:
      json["time_unix_ns"] = record.requested;
      json["chain_key"] = or_null(record.observed != 0, record.observed);
      break;
    case ANIC_RECORD_COMMIT:
    case ANIC_RECORD_DETACH:
      json["time_unix_ns"] = record.requested;
      break;
    case ANIC_RECORD_READ:
    case ANIC_RECORD_EXPORT:
      json["time_unix_ns"] = record.observed;
      json["uid"] = record.requested;
      break;
    case ANIC_RECORD_MISSED:
      json["class"] = policy::class_name(record.cls);
      json["samples"] = record.observed;
      json["over_slo"] = record.approved;
      json["slo_ns"] = record.requested;
      break;
    case ANIC_RECORD_OPEN: {
      json["agent"] = or_null(record.service != 0, names.agent(record.service));
      json["agent_id"] = record.service;
      Json tenants = Json::array();
      for (const std::uint32_t id : tenants_of(record.requested)) tenants.push_back(names.tenant(id));
      json["tenants"] = tenants;
      break;
    }
    case ANIC_RECORD_DECISION:
      json["decided"] = decided_name(record.decided);
      json["rewritten_by"] = rewriters(record, invariant_name);
      json["count"] = record.count;
      add_change(json, record, names);
      break;
    case ANIC_RECORD_REVERT:
      add_change(json, record, names);
      break;
    case ANIC_RECORD_FAILSAFE:
      json["decided"] = decided_name(record.decided);
      json["failsafe"] = failsafe_name(record.failsafe);
      break;
    case ANIC_RECORD_PROTECT:
      json["limit_bps"] = or_null(record.approved != 0, record.approved);
      break;
    case ANIC_RECORD_LOST: {
      Json by_kind = Json::object();
      for_lost(record, [&](std::uint8_t kind, std::uint32_t count) {
        by_kind[std::string(lost_name(kind))] = count;
      });
      json["lost_records"] = by_kind;
      break;
    }
    default:
      break;
  }
  return json;
}

Json record_json(const anic_record& record, const Names& names) {
  Json json = {{"seq", record.seq},
               {"kind", record_name(record.kind)},
               {"time_monotonic_ns", record.time_ns},
               {"tenant", or_null(record.tenant != 0, names.tenant(record.tenant))},
               {"tenant_id", record.tenant},
               {"tenant_seq", record.tenant_seq},
               {"session", or_null(record.session != 0, record.session)},
               {"generation", record.generation},
               {"invariant", or_null(record.invariant != 0, invariant_name(record.invariant))},
               {"until_monotonic_ns", or_null(record.until_ns != 0, record.until_ns)}};
  json.update(event_json(record, names));
  if (record.kind != ANIC_RECORD_LOST) json["reason"] = text_of(record.reason);
  json["policy_sha256_begins"] = hex(record.digest);
  json["mac"] = fmt::format("{:016x}{:016x}", record.mac[0], record.mac[1]);
  json["sentence"] = sentence(record, names);
  return json;
}

}  // namespace agentnic::audit
