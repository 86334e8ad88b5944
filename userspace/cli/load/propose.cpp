// SPDX-License-Identifier: Apache-2.0
#include "cli/load/propose.hpp"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <charconv>
#include <chrono>
#include <cstring>
#include <iostream>
#include <memory>
#include <optional>
#include <ranges>
#include <thread>
#include <vector>

#include "abi/guardian.h"
#include "audit/decision.hpp"
#include "audit/sentence.hpp"
#include "audit/words.hpp"
#include "base/clock.hpp"
#include "base/stop.hpp"
#include "cli/common/names.hpp"
#include "kern/generation.hpp"
#include "kern/guardian.hpp"
#include "kern/instance.hpp"
#include "kern/maps.hpp"
#include "kern/session.hpp"
#include "policy/model.hpp"
#include "policy/text.hpp"
#include "policy/units.hpp"

namespace agentnic::cli {
namespace {

constexpr std::uint64_t kCookie = 1;  // of the one proposal of its session
constexpr int kRejected = 1;
constexpr int kVoid = 1;
constexpr std::uint64_t kLookNs = 30'000'000;  // a third of the shortest heartbeat that a policy can have

struct Options {
  std::string ifname;
  std::string netns;
  std::string change;
  std::string tenant;
  std::string cls;
  std::string service;
  std::string value;
  std::string duration;
  std::string agent;
  std::string reason;
  std::optional<std::uint32_t> bucket;
  std::optional<std::uint32_t> cpu;
  bool json = false;
  bool dry_run = false;
};

std::unexpected<Error> bad(const Options& options, const std::string& why, const std::string& hint = "") {
  return fail(Exit::BadInput, fmt::format("propose {}: {}", options.change, why), hint);
}

/// The value of an enum that a word names; `name` is the function from value to word.
template <typename Name>
std::optional<std::uint8_t> named(const std::string& word, std::uint8_t end, Name&& name) {
  for (std::uint8_t value = 1; value < end; ++value) {
    if (name(value) == word) return value;
  }
  return std::nullopt;
}

Result<std::uint8_t> class_of(const Options& options, const std::string& word) {
  if (const auto cls = named(word, ANIC_CLASS__MAX, policy::class_name)) return *cls;
  return bad(options, policy::json_text(word) + " is not a class",
             "control, default, rpc, retrieval or bulk");
}

/// Options that a kind of change has; all others must not be given.
struct Takes {
  bool cls = false;
  bool service = false;
  bool bucket = false;
  bool cpu = false;
  bool value = false;
};

Takes takes_of(anic_change change) {
  switch (change) {
    case ANIC_CHANGE_QUEUE_WEIGHT_ADJUST:
    case ANIC_CHANGE_PATH_SWITCH:
      return {.cls = true, .value = true};
    case ANIC_CHANGE_FLOW_CLASS_ESCALATE:
      return {.service = true, .value = true};
    case ANIC_CHANGE_QUEUE_REBALANCE:
      return {.cls = true, .bucket = true, .cpu = true};
    default:
      return {.value = true};
  }
}

Status check_options(const Options& options, const Takes& takes) {
  const auto check = [&](const char* name, bool wanted, bool given) -> Status {
    if (wanted && !given) return bad(options, fmt::format("{} is required", name));
    if (!wanted && given) return bad(options, fmt::format("it has no {}", name));
    return {};
  };
  ANIC_TRY(check("--class", takes.cls, !options.cls.empty()));
  ANIC_TRY(check("--service", takes.service, !options.service.empty()));
  ANIC_TRY(check("--bucket", takes.bucket, options.bucket.has_value()));
  ANIC_TRY(check("--cpu", takes.cpu, options.cpu.has_value()));
  return check("--value", takes.value, !options.value.empty());
}

Result<std::uint64_t> parse_value(const Options& options, anic_change change) {
  switch (change) {
    case ANIC_CHANGE_QUEUE_WEIGHT_ADJUST: {
      std::uint32_t weight = 0;
      const char* end = options.value.data() + options.value.size();
      const auto [rest, error] = std::from_chars(options.value.data(), end, weight);
      if (error != std::errc() || rest != end)
        return bad(options, policy::json_text(options.value) + " is not a weight", "a whole number");
      return weight;
    }
    case ANIC_CHANGE_FLOW_CLASS_ESCALATE:
      return ANIC_TRY(class_of(options, options.value));
    case ANIC_CHANGE_PATH_SWITCH: {
      if (const auto path = named(options.value, ANIC_PATH__MAX, policy::path_name)) return *path;
      return bad(options, policy::json_text(options.value) + " is not a path", "kernel or xsk");
    }
    case ANIC_CHANGE_QUEUE_REBALANCE:
      return *options.cpu;
    default:
      return policy::parse_rate(options.value);
  }
}

/// What can be said without the names of the policy in force.
Result<anic_proposal> make_proposal(const Options& options) {
  anic_proposal proposal{};
  const anic_change change = *audit::change_of(options.change);
  ANIC_TRY(check_options(options, takes_of(change)));
  ANIC_TRY(kern::check_reason(options.reason));
  proposal.size = sizeof(proposal);
  proposal.kind = static_cast<__u8>(change);
  if (!options.cls.empty()) proposal.cls = ANIC_TRY(class_of(options, options.cls));
  proposal.bucket = static_cast<__u16>(options.bucket.value_or(0));
  proposal.value = ANIC_TRY(parse_value(options, change));
  proposal.duration_ns = ANIC_TRY(policy::parse_time(options.duration));
  proposal.cookie = kCookie;
  std::ranges::copy(options.reason, proposal.reason);
  return proposal;
}

/// The id of a name, or bad input with those that there are.
Result<std::uint16_t> id_of(const Options& options, const char* what, const std::string& name,
                            const std::map<std::string, std::uint16_t, std::less<>>& ids) {
  if (const auto found = ids.find(name); found != ids.end()) return found->second;
  constexpr std::size_t kShown = 16;
  return bad(options, fmt::format("the policy in force has no {} {}", what, policy::json_text(name)),
             fmt::format("it has {}{}", fmt::join(ids | std::views::keys | std::views::take(kShown), ", "),
                         ids.size() > kShown ? ", ..." : ""));
}

Result<std::uint32_t> agent_of(const Options& options, const anic_guarding& guarding) {
  if (options.agent.empty()) return 0;
  std::map<std::string, std::uint16_t, std::less<>> ids;
  for (std::uint16_t id = 1; id < ANIC_AGENTS_MAX; ++id) {
    const char* name = guarding.agents[id].name;
    if (*name != '\0') ids[std::string(name, ::strnlen(name, ANIC_NAME_LEN))] = id;
  }
  return ANIC_TRY(id_of(options, "agent", options.agent, ids));
}

/// As much as the proposal needs, and no more. `before`: the class of the service, or NONE.
anic_grants asked_for(const anic_proposal& proposal, std::uint8_t before) {
  anic_grants asked{};
  asked.tenants = std::uint64_t{1} << (proposal.tenant - 1U);
  asked.kinds = 1U << proposal.kind;
  if (proposal.cls != 0) asked.classes = 1U << proposal.cls;
  if (proposal.kind == ANIC_CHANGE_BULK_PATH_THROTTLE) asked.classes = 1U << ANIC_CLASS_BULK;
  if (proposal.kind == ANIC_CHANGE_FLOW_CLASS_ESCALATE) asked.classes = 1U << proposal.value | 1U << before;
  if (proposal.kind == ANIC_CHANGE_PATH_SWITCH) asked.paths = 1U << proposal.value;
  return asked;
}

/// How holding it ended.
enum class End { TimeOver, Stopped, Reverted, Void };

const char* end_name(End end) {
  switch (end) {
    case End::TimeOver:
      return "time_over";
    case End::Stopped:
      return "stopped";
    case End::Reverted:
      return "reverted";
    case End::Void:
      return "void";
  }
  return "?";
}

/// One proposal, from its session's beginning to its end.
class Proposer final {
 public:
  /// `before`: the class of its service, or NONE.
  Proposer(const Options& options, const anic_proposal& proposal, std::uint8_t before,
           kern::InstanceStatus status, kern::Maps maps, audit::Names names)
      : options_(options),
        proposal_(proposal),
        before_(before),
        status_(std::move(status)),
        maps_(std::move(maps)),
        names_(std::move(names)) {}

  [[nodiscard]] Result<int> run(std::uint32_t agent) const {
    const kern::SessionRequest request{
        .agent = agent, .asked = asked_for(proposal_, before_), .reason = options_.reason};
    catch_stop_signals();
    kern::Session session = ANIC_TRY(kern::Session::open(status_.dir, maps_, request));
    const anic_answer answer = ANIC_TRY(ask(session));
    say_decision(session, answer);
    if (answer.decided == ANIC_DECIDED_REJECT) {
      ANIC_TRY(session.close());
      return kRejected;
    }
    const auto change = ANIC_TRY(in_force(session.id()));
    End end = ANIC_TRY(hold(session, answer, change.has_value()));
    const std::uint64_t id = session.id();
    if (!ANIC_TRY(session.close())) end = End::Void;
    say_end(id, end, change);
    return end == End::Void || end == End::Reverted ? kVoid : 0;
  }

  void say_forecast(std::uint32_t agent) const {
    if (options_.json) {
      Json json = envelope("dry_run");
      json["agent_id"] = agent;
      json["change"] = options_.change;
      if (!options_.cls.empty()) json["class"] = options_.cls;
      if (!options_.service.empty()) json["service"] = options_.service;
      if (options_.bucket) json["bucket"] = *options_.bucket;
      json[value_key("requested_")] = audit::value_json(proposal_.kind, proposal_.value);
      json["duration_ns"] = proposal_.duration_ns;
      print(json);
    } else {
      std::cout << fmt::format("would ask for {}: {}, for {}; nothing was asked\n", change_text(),
                               audit::value_text(proposal_.kind, proposal_.value),
                               policy::duration_text(proposal_.duration_ns));
    }
  }

 private:
  Result<anic_answer> ask(const kern::Session& session) const {
    ANIC_TRY(session.propose(proposal_));
    const auto drained = ANIC_TRY(session.drain());
    if (const auto answer = session.answer(kCookie)) return *answer;
    return fail(Exit::Failed,
                fmt::format("propose {}: {}", options_.change,
                            drained ? "the guardian gave no answer" : "the session was ended"),
                tail_command());
  }

  /// The change as it stands, if it is this session's.
  Result<std::optional<anic_action>> in_force(std::uint64_t session) const {
    for (const anic_action& action : ANIC_TRY(kern::read_changes(maps_, proposal_.tenant))) {
      if (action.target == anic_target_of(&proposal_) && action.session == session) return action;
    }
    return std::nullopt;
  }

  /// Keeps the session alive until the time of the change is over, or something ends it.
  Result<End> hold(const kern::Session& session, const anic_answer& answer, bool changed) const {
    const std::uint64_t until =
        answer.until_ns != 0 ? answer.until_ns : monotonic_ns() + proposal_.duration_ns;
    std::uint64_t next = 0;
    std::uint32_t generation = 0;
    for (;;) {
      const std::uint64_t now = monotonic_ns();
      if (now >= until) return End::TimeOver;
      if (stop_requested()) return End::Stopped;
      const std::uint32_t in_force_now = ANIC_TRY(kern::read_in_force(maps_)).generation;
      if (now >= next || in_force_now != generation) {  // another policy has another heartbeat
        generation = in_force_now;
        if (!ANIC_TRY(session.drain())) return End::Void;
        if (changed && !ANIC_TRY(in_force(session.id())) && monotonic_ns() < until) return End::Reverted;
        next = now + ANIC_TRY(kern::read_guarding(maps_)).envelope.heartbeat_ns / 3;
      }
      const std::uint64_t wait = std::min({until - now, next - now, kLookNs});
      std::this_thread::sleep_for(std::chrono::nanoseconds(wait));
    }
  }

  [[nodiscard]] std::string tail_command() const {
    return fmt::format("agentnic-audit tail {}{}", options_.ifname,
                       options_.netns.empty() ? "" : " --netns " + options_.netns);
  }

  [[nodiscard]] std::string change_text() const {
    return fmt::format(
        "{}: {}{}", audit::tenant_text(proposal_.tenant, names_), options_.change,
        audit::scope_text(proposal_.kind, proposal_.cls, proposal_.service, proposal_.bucket, names_));
  }

  [[nodiscard]] std::string value_key(const char* beginning) const {
    return beginning + std::string(audit::value_unit(proposal_.kind));
  }

  [[nodiscard]] Json envelope(const char* event) const {
    return {{"schema", "agentnic.propose/1"},
            {"event", event},
            {"interface", status_.ifname},
            {"netns", status_.netns ? status_.netns->name() : ""},
            {"tenant", options_.tenant}};
  }

  /// One line, at once: whoever reads it waits for it.
  static void print(const Json& json) {
    std::cout << json.dump(-1, ' ', false, Json::error_handler_t::replace) << std::endl;
  }

  void say_decision(const kern::Session& session, const anic_answer& answer) const {
    const anic_record record = audit::record_of(proposal_, answer, session.id());
    if (options_.json) {
      Json json = envelope("decided");
      json["session"] = session.id();
      json.update(audit::decision_json(record, names_));
      print(json);
      return;
    }
    std::cout << audit::event_text(record, names_) << std::endl;
    if (answer.decided != ANIC_DECIDED_REJECT)
      std::cout << "  held until then; Ctrl-C gives it back" << std::endl;
  }

  void say_end(std::uint64_t session, End end, const std::optional<anic_action>& change) const {
    if (options_.json) {
      Json json = envelope("ended");
      json["session"] = session;
      json["why"] = end_name(end);
      if (change) json[value_key("given_back_to_")] = audit::value_json(proposal_.kind, change->stated);
      print(json);
      return;
    }
    const std::string back = change ? fmt::format("{} is {} again", change_text(),
                                                  audit::value_text(proposal_.kind, change->stated))
                                    : "nothing was to be given back";
    std::cout << fmt::format("{}; {}\n", end_text(session, end), back);
  }

  [[nodiscard]] std::string end_text(std::uint64_t session, End end) const {
    const std::string says_why = tail_command() + " says why";
    switch (end) {
      case End::TimeOver:
        return fmt::format("the time is over, session {} is closed", session);
      case End::Stopped:
        return fmt::format("stopped, session {} is closed", session);
      case End::Reverted:
        return fmt::format("the guardian gave it back early ({}), session {} is closed", says_why, session);
      case End::Void:
        return fmt::format("session {} was ended by the guardian ({})", session, says_why);
    }
    return "";
  }

  const Options& options_;
  anic_proposal proposal_;
  std::uint8_t before_;
  kern::InstanceStatus status_;
  kern::Maps maps_;
  audit::Names names_;
};

Result<int> propose(const Options& options) {
  anic_proposal proposal = ANIC_TRY(make_proposal(options));
  ANIC_TRY(kern::need_privileges("propose"));
  const kern::NetNs netns = ANIC_TRY(kern::NetNs::open_or_current(options.netns));
  auto status = ANIC_TRY(kern::need_attached(netns, options.ifname, "propose a change of"));
  auto maps = ANIC_TRY(kern::Maps::pinned(status.dir));
  const policy::Tables tables = ANIC_TRY(kern::read_names(maps));
  const policy::Ids ids = kern::ids_of(tables);
  proposal.tenant = static_cast<__u8>(ANIC_TRY(id_of(options, "tenant", options.tenant, ids.tenants)));
  if (!options.service.empty())
    proposal.service = ANIC_TRY(id_of(options, "service", options.service, ids.services));
  const std::uint32_t agent = ANIC_TRY(agent_of(options, ANIC_TRY(kern::read_guarding(maps))));
  auto names = ANIC_TRY(read_audit_names(maps));
  const Proposer proposer(options, proposal, tables.services[proposal.service].cls, std::move(status),
                          std::move(maps), std::move(names));
  if (!options.dry_run) return proposer.run(agent);
  proposer.say_forecast(agent);
  return 0;
}

}  // namespace

void add_propose(Program& program) {
  const auto options = std::make_shared<Options>();
  CLI::App* command = program.command("propose", "ask the guardian for one change, and hold it for a time",
                                      [=] { return propose(*options); });
  std::vector<std::string> changes;
  for (std::uint8_t i = 1; i < ANIC_CHANGE__MAX; ++i) changes.emplace_back(policy::change_name(i));
  command->add_option("IFACE", options->ifname, "interface")->required();
  command->add_option("KIND", options->change, "kind of change")->required()->check(CLI::IsMember(changes));
  command->add_option("--tenant", options->tenant, "whose traffic it is about")->required();
  command->add_option("--class", options->cls, "class (weight, path, rebalance)");
  command->add_option("--service", options->service, "service (escalate)");
  command->add_option("--bucket", options->bucket, "bucket of flows (rebalance)")
      ->check(CLI::Range(0, ANIC_STEER_BUCKETS - 1));
  command->add_option("--cpu", options->cpu, "CPU to give it to (rebalance)")
      ->check(CLI::Range(0, ANIC_CPUS_MAX - 1));
  command->add_option("--value", options->value, "weight, rate, class or path, as the kind has it");
  command->add_option("--for", options->duration, "how long, such as 30s")->required();
  command->add_option("--agent", options->agent, "with no more than the policy grants this agent");
  command->add_option("--reason", options->reason, "words for the audit");
  command->add_option("--netns", options->netns, "look for it in this network namespace (ip netns)");
  command->add_flag("--json", options->json, "print JSON lines; units are in the key names");
  command->add_flag("--dry-run", options->dry_run, "say what would be asked");
}

}  // namespace agentnic::cli
