// SPDX-License-Identifier: Apache-2.0
#include "agent/wire.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <concepts>
#include <cstring>
#include <iterator>
#include <limits>
#include <optional>
#include <utility>

#include "abi/policy.h"
#include "abi/steer.h"
#include "audit/decision.hpp"
#include "audit/words.hpp"
#include "policy/json_reader.hpp"
#include "policy/model.hpp"
#include "policy/units.hpp"

namespace agentnic::agent {
namespace {

constexpr const char* kSchema = "agentnic.agent/1";
constexpr std::string_view kHello = "hello";
constexpr std::string_view kObservation = "observation";
constexpr std::string_view kAnswer = "answer";
constexpr std::string_view kDecision = "decision";
constexpr std::uint64_t kMaxInteger = std::numeric_limits<std::int64_t>::max();

// --- the fields of an observation, for who writes them and who reads them; those that were added later may
// be missing where they are read ---

template <typename Row, typename Field>
void way_fields(Row& way, Field&& field) {
  field("rate_bps", way.rate_bps);
  field("packets", way.packets);
  field("dropped_packets", way.dropped_packets);
  field("wanted_bps", way.wanted_bps);
  field("given_bps", way.given_bps);
  field("occupancy_ns", way.occupancy_ns);
}

template <typename Row, typename Field>
void lane_fields(Row& lane, Field&& field) {
  field("tenant", lane.tenant);
  field("class", lane.cls);
  field("weight", lane.weight);
  field("weight_low", lane.weight_low);
  field("weight_high", lane.weight_high);
  field("path", lane.path);
  field("guaranteed_bps", lane.guaranteed_bps);
  field("ceiling_bps", lane.ceiling_bps);
  field("floor_percent", lane.floor_percent);
  field.later("age_ns", lane.age_ns);
  field("in", lane.in);
  field("out", lane.out);
  field("slo_ns", lane.slo_ns);
  field("samples", lane.samples);
  field("over_slo", lane.over_slo);
  field.later("over_slo_percent", lane.over_slo_percent);
  field("missed", lane.missed);
  field("p50_ns", lane.p50_ns);
  field("p99_ns", lane.p99_ns);
  field("window", lane.window);
}

template <typename Row, typename Field>
void escalation_fields(Row& escalation, Field&& field) {
  field("service", escalation.service);
  field("class", escalation.cls);
}

template <typename Row, typename Field>
void rebalance_fields(Row& rebalance, Field&& field) {
  field("class", rebalance.cls);
  field("bucket", rebalance.bucket);
  field("cpu", rebalance.cpu);
}

template <typename Row, typename Field>
void tenant_fields(Row& tenant, Field&& field) {
  field("tenant", tenant.tenant);
  field("failsafe", tenant.failsafe);
  field("guaranteed_bps", tenant.guaranteed_bps);
  field("ceiling_bps", tenant.ceiling_bps);
  field("borrowed_bps", tenant.borrowed_bps);
  field("borrow_high_bps", tenant.borrow_high_bps);
  field("bulk_limit_bps", tenant.bulk_limit_bps);
  field.later("bulk_low_bps", tenant.bulk_low_bps);
  field.later("bulk_high_bps", tenant.bulk_high_bps);
  field.later("escalations", tenant.escalations);
  field.later("rebalances", tenant.rebalances);
  field.later("duration_high_ns", tenant.duration_high_ns);
  field("changes", tenant.changes);
  field("changes_high", tenant.changes_high);
  field("wait_ns", tenant.wait_ns);
}

template <typename Row, typename Field>
void observation_fields(Row& observation, Field&& field) {
  field("tick", observation.tick);
  field("monotonic_ns", observation.monotonic_ns);
  field("generation", observation.generation);
  field("heartbeat_ns", observation.heartbeat_ns);
  field("tenants", observation.tenants);
  field("lanes", observation.lanes);
}

/// Writes fields as JSON. By hand, because an observation is written a hundred times a second and has some
/// thousand fields; names need no escapes (policy::parse() sees to that).
class Writer {
 public:
  explicit Writer(fmt::memory_buffer& out) : out_(out) {}

  template <typename Value>
  void operator()(const char* key, const Value& value) {
    if (!first_) out_.push_back(',');
    first_ = false;
    out_.push_back('"');
    out_.append(key, key + std::strlen(key));
    out_.push_back('"');
    out_.push_back(':');
    write(value);
  }
  template <typename Value>
  void later(const char* key, const Value& value) {
    (*this)(key, value);
  }

 private:
  void append(std::string_view text) { out_.append(text.data(), text.data() + text.size()); }
  void write(std::uint64_t value) { append(fmt::format_int(value).c_str()); }
  void write(double value) { fmt::format_to(std::back_inserter(out_), "{}", value); }
  void write(const std::string& value) {
    out_.push_back('"');
    append(value);
    out_.push_back('"');
  }
  template <typename Value>
  void write(const std::optional<Value>& value) {
    if (value) {
      write(*value);
    } else {
      append("null");
    }
  }
  void write(const Way& way) {
    object([&](Writer& fields) { way_fields(way, fields); });
  }
  void write(const std::vector<Lane>& lanes) {
    array(lanes, [](const Lane& lane, Writer& fields) { lane_fields(lane, fields); });
  }
  void write(const std::vector<Escalation>& escalations) {
    array(escalations, [](const Escalation& row, Writer& fields) { escalation_fields(row, fields); });
  }
  void write(const std::vector<Rebalance>& rebalances) {
    array(rebalances, [](const Rebalance& row, Writer& fields) { rebalance_fields(row, fields); });
  }
  void write(const std::vector<Tenant>& tenants) {
    array(tenants, [](const Tenant& tenant, Writer& fields) { tenant_fields(tenant, fields); });
  }

  template <typename Fields>
  void object(Fields&& fields) {
    out_.push_back('{');
    Writer writer(out_);
    fields(writer);
    out_.push_back('}');
  }
  template <typename Row, typename Fields>
  void array(const std::vector<Row>& rows, Fields&& fields) {
    out_.push_back('[');
    for (std::size_t i = 0; i < rows.size(); ++i) {
      if (i != 0) out_.push_back(',');
      object([&](Writer& writer) { fields(rows[i], writer); });
    }
    out_.push_back(']');
  }

  fmt::memory_buffer& out_;
  bool first_ = true;
};

// --- reading what agentnic wrote: what more is there is of a later version ---

using policy::Fault;
using policy::ObjectReader;
using policy::Pointer;

const nlohmann::json& need(const nlohmann::json& json, const Pointer& at, const char* key) {
  const auto found = json.find(key);
  if (found == json.end()) throw Fault{at.to_string(), fmt::format("the key \"{}\" is missing", key), ""};
  return *found;
}

std::uint64_t number_at(const nlohmann::json& json, const Pointer& at) {
  if (!json.is_number_unsigned()) throw Fault{at.to_string(), "not a whole number of 64 bits", ""};
  return json.get<std::uint64_t>();
}

/// Calls `read` with each element of the array at `key`, and its place.
template <typename Read>
void each_of(const nlohmann::json& json, const Pointer& at, const char* key, const Read& read) {
  const nlohmann::json& list = need(json, at, key);
  if (!list.is_array()) throw Fault{(at / key).to_string(), "an array belongs here", ""};
  for (std::size_t i = 0; const nlohmann::json& element : list) read(element, at / key / i++);
}

/// Reads fields as Writer wrote them.
class Reader {
 public:
  Reader(const nlohmann::json& json, Pointer at) : json_(json), at_(std::move(at)) {}

  template <typename Value>
  void operator()(const char* key, Value& value) {
    read(key, value);
  }
  template <typename Value>
  void later(const char* key, Value& value) {
    if (json_.contains(key)) read(key, value);
  }

 private:
  static void value(const nlohmann::json& json, const Pointer& at, std::uint64_t& value) {
    value = number_at(json, at);
  }
  static void value(const nlohmann::json& json, const Pointer& at, double& value) {
    if (!json.is_number() || std::signbit(json.get<double>()))
      throw Fault{at.to_string(), "not a number of 0 or more", ""};
    value = json.get<double>();
  }
  static void value(const nlohmann::json& json, const Pointer& at, std::string& value) {
    value = policy::name_at(json, at);
  }
  template <typename Value>
  static void value(const nlohmann::json& json, const Pointer& at, std::optional<Value>& wanted) {
    wanted.reset();
    if (!json.is_null()) value(json, at, wanted.emplace());
  }

  template <typename Value>
  void read(const char* key, Value& wanted) {
    value(need(json_, at_, key), at_ / key, wanted);
  }
  void read(const char* key, Way& way) { way_fields(way, Reader(need(json_, at_, key), at_ / key)); }
  void read(const char* key, std::vector<Lane>& lanes) {
    each_of(json_, at_, key, [&](const nlohmann::json& row, const Pointer& at) {
      lane_fields(lanes.emplace_back(), Reader(row, at));
    });
  }
  void read(const char* key, std::vector<Escalation>& escalations) {
    each_of(json_, at_, key, [&](const nlohmann::json& row, const Pointer& at) {
      escalation_fields(escalations.emplace_back(), Reader(row, at));
    });
  }
  void read(const char* key, std::vector<Rebalance>& rebalances) {
    each_of(json_, at_, key, [&](const nlohmann::json& row, const Pointer& at) {
      rebalance_fields(rebalances.emplace_back(), Reader(row, at));
    });
  }
  void read(const char* key, std::vector<Tenant>& tenants) {
    each_of(json_, at_, key, [&](const nlohmann::json& row, const Pointer& at) {
      tenant_fields(tenants.emplace_back(), Reader(row, at));
    });
  }

  const nlohmann::json& json_;
  Pointer at_;
};

/// What `read` makes of a line of this type, its faults as bad input.
template <typename Read>
auto read_line(std::string_view line, std::string_view type, const Read& read)
    -> Result<decltype(read(nlohmann::json()))> {
  try {
    const nlohmann::json json = policy::parse_json(line);
    if (!json.is_object()) throw Fault{"", "an object belongs here", ""};
    policy::expect_word(need(json, Pointer(), "type"), Pointer("/type"), type);
    return read(json);
  } catch (const Fault& fault) {
    return fail(Exit::BadInput, fault.text(), fault.hint);
  }
}

std::string line_of(const Json& json) {
  return json.dump(-1, ' ', false, Json::error_handler_t::replace) + "\n";
}

// --- names ---

std::string name_of(const std::map<std::uint32_t, std::string>& names, std::uint32_t id) {
  const auto found = names.find(id);
  return found == names.end() ? "" : found->second;
}

audit::Names audit_names(const Names& names) {
  return {.tenant = [&](std::uint32_t id) { return name_of(names.tenants, id); },
          .service = [&](std::uint32_t id) { return name_of(names.services, id); },
          .agent = [](std::uint32_t) { return std::string(); },
          .wall_ahead_ns = 0};
}

/// The bits of a word, as names.
template <typename Name>
Json words_of(std::uint32_t bits, std::uint32_t first, std::uint32_t end, Name&& name) {
  Json words = Json::array();
  for (std::uint32_t i = first; i < end; ++i) {
    if ((bits >> i & 1U) != 0) words.push_back(name(static_cast<std::uint8_t>(i)));
  }
  return words;
}

Json values_of(const std::map<std::uint32_t, std::string>& names) {
  Json values = Json::array();
  for (const auto& [id, name] : names) values.push_back(name);
  return values;
}

/// Of a line: ids that the names are given here, one after the other.
std::map<std::uint32_t, std::string> names_at(const nlohmann::json& json, const char* key,
                                              std::uint32_t end_id) {
  std::map<std::uint32_t, std::string> names;
  each_of(json, Pointer(), key, [&](const nlohmann::json& name, const Pointer& at) {
    const auto id = static_cast<std::uint32_t>(names.size()) + 1;
    if (id >= end_id) throw Fault{at.to_string(), fmt::format("more than {} names", end_id - 1), ""};
    names[id] = policy::name_at(name, at);
  });
  return names;
}

Json spreads_json(const std::vector<Spread>& spreads) {
  Json json = Json::array();
  for (const Spread& spread : spreads)
    json.push_back({{"tenant", spread.tenant}, {"class", spread.cls}, {"cpus", spread.cpus}});
  return json;
}

/// A recording of before there were spreads has none.
std::vector<Spread> spreads_at(const nlohmann::json& json, const char* key) {
  std::vector<Spread> spreads;
  if (!json.contains(key)) return spreads;
  each_of(json, Pointer(), key, [&](const nlohmann::json& row, const Pointer& at) {
    Spread& spread = spreads.emplace_back();
    spread.tenant = policy::name_at(need(row, at, "tenant"), at / "tenant");
    spread.cls = policy::name_at(need(row, at, "class"), at / "class");
    each_of(row, at, "cpus", [&](const nlohmann::json& cpu, const Pointer& place) {
      spread.cpus.push_back(number_at(cpu, place));
    });
  });
  return spreads;
}

// --- proposals ---

std::uint32_t id_at(const nlohmann::json& json, const Pointer& at,
                    const std::map<std::uint32_t, std::string>& names, const char* what) {
  const std::string name = policy::name_at(json, at);
  for (const auto& [id, known] : names) {
    if (known == name) return id;
  }
  throw Fault{at.to_string(), fmt::format("no {} {} was granted", what, name), ""};
}

/// The value of an enum that a word names.
template <typename Name>
std::uint8_t word_at(const nlohmann::json& json, const Pointer& at, std::uint8_t first, std::uint8_t end,
                     Name&& name) {
  std::vector<std::string_view> words;
  for (std::uint8_t i = first; i < end; ++i) words.push_back(name(i));
  return static_cast<std::uint8_t>(first + policy::word_at(json, at, words));
}

/// The other way round of words_of().
template <typename Name>
std::uint32_t bits_at(const nlohmann::json& json, const Pointer& at, const char* key, std::uint8_t end,
                      Name&& name) {
  std::uint32_t bits = 0;
  each_of(json, at, key, [&](const nlohmann::json& word, const Pointer& place) {
    bits |= 1U << word_at(word, place, 1, end, name);
  });
  return bits;
}

std::uint8_t class_at(const nlohmann::json& json, const Pointer& at) {
  return word_at(json, at, ANIC_CLASS_CONTROL, ANIC_CLASS__MAX, policy::class_name);
}

std::uint64_t value_at(const nlohmann::json& json, const Pointer& at, std::uint8_t kind) {
  switch (kind) {
    case ANIC_CHANGE_FLOW_CLASS_ESCALATE:
      return class_at(json, at);
    case ANIC_CHANGE_PATH_SWITCH:
      return word_at(json, at, ANIC_PATH_KERNEL, ANIC_PATH__MAX, policy::path_name);
    default:
      return static_cast<std::uint64_t>(policy::integer_at(json, at, 0, kMaxInteger));
  }
}

void read_reason(const ObjectReader& object, anic_proposal& change) {
  const std::string reason = policy::string_at(object.need("reason"), object.at("reason"));
  const bool printable = std::ranges::all_of(reason, [](char c) { return c >= ' ' && c != 0x7f; });
  if (reason.empty() || reason.size() >= sizeof(change.reason) || !printable) {
    throw Fault{object.at("reason").to_string(), "not a reason",
                fmt::format("1 to {} bytes without control characters", sizeof(change.reason) - 1)};
  }
  std::ranges::copy(reason, change.reason);
}

Proposal read_proposal(const nlohmann::json& json, const Pointer& at, const Names& names) {
  constexpr std::array<std::string_view, 9> kKeys = {"id",     "kind",  "tenant",      "class", "service",
                                                     "bucket", "value", "duration_ns", "reason"};
  const ObjectReader object(json, at, kKeys);
  Proposal proposal;
  anic_proposal& change = proposal.change;
  change.kind = word_at(object.need("kind"), object.at("kind"), 1, ANIC_CHANGE__MAX, policy::change_name);
  change.tenant =
      static_cast<__u8>(id_at(object.need("tenant"), object.at("tenant"), names.tenants, "tenant"));
  if (object.has("class")) change.cls = class_at(object.need("class"), object.at("class"));
  if (object.has("service"))
    change.service =
        static_cast<__u16>(id_at(object.need("service"), object.at("service"), names.services, "service"));
  if (object.has("bucket"))
    change.bucket = static_cast<__u16>(object.integer("bucket", 0, ANIC_STEER_BUCKETS - 1));
  change.value = value_at(object.need("value"), object.at("value"), change.kind);
  if (object.has("duration_ns"))
    change.duration_ns =
        static_cast<__u64>(object.integer("duration_ns", 0, static_cast<std::int64_t>(policy::kDay)));
  if (object.has("id")) proposal.id = static_cast<std::uint64_t>(object.integer("id", 0, kMaxInteger));
  read_reason(object, change);
  return proposal;
}

Json proposal_json(const Proposal& proposal, const Names& names) {
  const anic_proposal& change = proposal.change;
  Json json = {{"id", proposal.id},
               {"kind", policy::change_name(change.kind)},
               {"tenant", name_of(names.tenants, change.tenant)}};
  if (change.cls != 0) json["class"] = policy::class_name(change.cls);
  if (change.service != 0) json["service"] = name_of(names.services, change.service);
  if (change.kind == ANIC_CHANGE_QUEUE_REBALANCE) json["bucket"] = change.bucket;
  json["value"] = audit::value_json(change.kind, change.value);
  json["duration_ns"] = change.duration_ns;
  json["reason"] = audit::text_of(change.reason);
  return json;
}

}  // namespace

std::string hello_line(const Hello& hello, const Names& names) {
  return line_of(
      {{"schema", kSchema},
       {"type", kHello},
       {"interface", hello.ifname},
       {"agent", hello.agent},
       {"session", hello.session},
       {"interval_ns", hello.interval_ns},
       {"tenants", values_of(names.tenants)},
       {"services", values_of(names.services)},
       {"kinds", words_of(hello.grants.kinds, 1, ANIC_CHANGE__MAX, policy::change_name)},
       {"classes", words_of(hello.grants.classes, ANIC_CLASS_DEFAULT, ANIC_CLASS__MAX, policy::class_name)},
       {"paths", words_of(hello.grants.paths, ANIC_PATH_KERNEL, ANIC_PATH__MAX, policy::path_name)},
       {"spreads", spreads_json(hello.spreads)}});
}

std::string observation_line(const Observation& observation) {
  constexpr std::string_view kBegin = R"({"type":"observation",)";
  fmt::memory_buffer out;
  out.append(kBegin.data(), kBegin.data() + kBegin.size());
  observation_fields(observation, Writer(out));
  out.push_back('}');
  out.push_back('\n');
  return fmt::to_string(out);
}

std::string decision_line(const Decision& decision, std::uint64_t tick, std::uint64_t session,
                          const Names& names) {
  const anic_record record = audit::record_of(decision.proposal.change, decision.answer, session);
  Json json = {{"type", kDecision}, {"tick", tick}, {"id", decision.proposal.id}};
  json.update(audit::decision_json(record, audit_names(names)));
  return line_of(json);
}

std::string error_line(const std::string& what) { return line_of({{"type", "error"}, {"error", what}}); }

Result<std::vector<Proposal>> parse_answer(std::string_view line, std::uint64_t tick, const Names& names) {
  constexpr std::array<std::string_view, 3> kKeys = {"type", "tick", "proposals"};
  try {
    const nlohmann::json json = policy::parse_json(line);
    const ObjectReader object(json, Pointer(), kKeys);
    if (object.has("type")) policy::expect_word(object.need("type"), object.at("type"), kAnswer);
    const auto answered = static_cast<std::uint64_t>(object.integer("tick", 0, kMaxInteger));
    if (answered != tick)
      throw Fault{"/tick", fmt::format("{} is not {}, which is asked", answered, tick), ""};
    std::vector<Proposal> proposals;
    object.each("proposals", [&](const nlohmann::json& element, const Pointer& at) {
      if (proposals.size() == ANIC_DRAIN_MAX)
        throw Fault{at.to_string(), fmt::format("more than {} proposals", ANIC_DRAIN_MAX), ""};
      proposals.push_back(read_proposal(element, at, names));
    });
    return proposals;
  } catch (const Fault& fault) {
    return fail(Exit::BadInput, fault.text(), fault.hint);
  }
}

std::string answer_line(const std::vector<Proposal>& proposals, std::uint64_t tick, const Names& names) {
  Json list = Json::array();
  for (const Proposal& proposal : proposals) list.push_back(proposal_json(proposal, names));
  return line_of({{"type", kAnswer}, {"tick", tick}, {"proposals", list}});
}

Result<Told> parse_hello(std::string_view line) {
  return read_line(line, kHello, [](const nlohmann::json& json) {
    const Pointer top;
    policy::expect_word(need(json, top, "schema"), top / "schema", kSchema);
    Told told;
    Hello& hello = told.hello;
    hello.ifname = policy::string_at(need(json, top, "interface"), top / "interface");
    hello.agent = policy::name_at(need(json, top, "agent"), top / "agent");
    hello.session = number_at(need(json, top, "session"), top / "session");
    hello.interval_ns = number_at(need(json, top, "interval_ns"), top / "interval_ns");
    told.names.tenants = names_at(json, "tenants", ANIC_TENANTS_MAX);
    told.names.services = names_at(json, "services", ANIC_SERVICES_MAX);
    hello.grants.kinds = bits_at(json, top, "kinds", ANIC_CHANGE__MAX, policy::change_name);
    hello.grants.classes = bits_at(json, top, "classes", ANIC_CLASS__MAX, policy::class_name);
    hello.grants.paths = bits_at(json, top, "paths", ANIC_PATH__MAX, policy::path_name);
    hello.spreads = spreads_at(json, "spreads");
    return told;
  });
}

Result<Observation> parse_observation(std::string_view line) {
  return read_line(line, kObservation, [](const nlohmann::json& json) {
    Observation observation;
    observation_fields(observation, Reader(json, Pointer()));
    return observation;
  });
}

Result<Decision> parse_decision(std::string_view line, const Proposal& proposal) {
  return read_line(line, kDecision, [&](const nlohmann::json& json) {
    const Pointer top;
    const std::uint8_t kind = proposal.change.kind;
    const auto value = [&](const char* which) {
      const std::string key = fmt::format("{}_{}", which, audit::value_unit(kind));
      const nlohmann::json& told = need(json, top, key.c_str());
      const bool is_no_cpu = told.is_null() && kind == ANIC_CHANGE_QUEUE_REBALANCE;
      return is_no_cpu ? UINT32_MAX : value_at(told, top / key, kind);
    };
    const auto number_or_0 = [&](const char* key) {
      const nlohmann::json& number = need(json, top, key);
      return number.is_null() ? 0 : number_at(number, top / key);
    };
    if (number_at(need(json, top, "id"), top / "id") != proposal.id)
      throw Fault{"/id", fmt::format("not {}, that of the proposal", proposal.id), ""};
    Decision decision{.proposal = proposal, .answer = {}};
    anic_answer& answer = decision.answer;
    answer.decided = word_at(need(json, top, "decided"), top / "decided", ANIC_DECIDED_APPROVE,
                             ANIC_DECIDED_REJECT + 1, audit::decided_name);
    if (const auto& invariant = need(json, top, "invariant"); !invariant.is_null())
      answer.invariant = word_at(invariant, top / "invariant", 1, ANIC_INVARIANT__MAX, audit::invariant_name);
    answer.rewritten = bits_at(json, top, "rewritten_by", ANIC_INVARIANT__MAX, audit::invariant_name);
    if (audit::looked_at_value(audit::record_of(proposal.change, answer, 0)))
      answer.observed = value("observed");
    answer.requested = value("requested");
    answer.approved = answer.decided == ANIC_DECIDED_REJECT ? answer.observed : value("approved");
    answer.until_ns = number_or_0("until_monotonic_ns");
    answer.seq = number_or_0("seq");
    return decision;
  });
}

}  // namespace agentnic::agent
