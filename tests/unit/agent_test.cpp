// SPDX-License-Identifier: Apache-2.0
//
// What agents are told and say: observations, answers, lines.

#include <algorithm>
#include <catch2/catch_test_macros.hpp>
#include <cstdint>
#include <cstring>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "agent/controller.hpp"
#include "agent/error_text.hpp"
#include "agent/lines.hpp"
#include "agent/observation.hpp"
#include "agent/wire.hpp"
#include "base/json.hpp"

using namespace agentnic;

namespace {

constexpr std::uint64_t kStart = 1'000'000'000'000;
constexpr std::uint64_t kMs = 1'000'000;
constexpr std::uint64_t kTick = 7;

agent::Names names() { return {.tenants = {{1, "acme"}, {2, "globex"}}, .services = {{3, "chat"}}}; }

anic_observed_lane& rpc_of(anic_observation& seen, std::uint8_t tenant) {
  anic_observed_lane& row =
      seen.lanes[(tenant - 1) * ANIC_OBSERVED_CLASSES + (ANIC_CLASS_RPC - ANIC_CLASS_DEFAULT)];
  row.tenant = tenant;
  row.cls = ANIC_CLASS_RPC;
  row.path = ANIC_PATH_KERNEL;
  return row;
}

std::unique_ptr<anic_observation> make_seen() {
  auto seen = std::make_unique<anic_observation>();
  seen->number = kTick;
  seen->at_ns = kStart;
  seen->generation = 3;
  seen->envelope.heartbeat_ns = 500 * kMs;
  seen->envelope.weight_min = 10;
  seen->envelope.weight_max = 800;
  seen->envelope.weight_step = 50;
  seen->envelope.borrow_max_bps = 3'000;
  seen->envelope.borrow_step_bps = 1'000;
  seen->envelope.actions = 8;
  seen->envelope.throttle_percent = 25;
  seen->envelope.duration_ns = 60'000 * kMs;
  anic_observed_tenant& acme = seen->tenants[0];
  acme.tenant = 1;
  acme.in_force = 2;
  acme.rate_bps = 1'000;
  acme.stated_bps = 2'000;
  acme.ceiling_bps = 2'500;
  anic_observed_lane& rpc = rpc_of(*seen, 1);
  rpc.weight = 100;
  rpc.slo_ns = kMs;
  rpc.at_ns = kStart;
  rpc.samples = 10;
  return seen;
}

std::string answer_of(const std::string& proposals) {
  return R"({"tick": 7, "proposals": [)" + proposals + "]}";
}

std::string error_of(const std::string& line) {
  const auto parsed = agent::parse_answer(line, kTick, names());
  return parsed ? "" : parsed.error().text();
}

constexpr const char* kWeight = R"({"id": 9, "kind": "queue_weight_adjust", "tenant": "acme", "class": "rpc",
  "value": 150, "duration_ns": 1000, "reason": "it misses its SLO"})";

}  // namespace

TEST_CASE("agent: an observation has names, and what the envelope leaves") {
  const auto seen = make_seen();
  const agent::Observation observation = agent::Observer(names()).observe(*seen);
  CHECK(observation.tick == kTick);
  CHECK(observation.generation == 3);
  REQUIRE(observation.tenants.size() == 1);
  const agent::Tenant& acme = observation.tenants[0];
  CHECK(acme.tenant == "acme");
  CHECK_FALSE(acme.failsafe);
  CHECK(acme.borrowed_bps == 500);
  CHECK(acme.borrow_high_bps == 1'500);
  CHECK(acme.changes == 2);
  CHECK(acme.changes_high == 8);
  CHECK(acme.wait_ns == 0);
  REQUIRE(observation.lanes.size() == 1);
  const agent::Lane& rpc = observation.lanes[0];
  CHECK(rpc.cls == "rpc");
  CHECK(rpc.weight_low == 50);
  CHECK(rpc.weight_high == 150);
  CHECK(rpc.samples == 0);  // what was before the first look is not of it
  CHECK_FALSE(rpc.over_slo_percent);
  CHECK_FALSE(rpc.p50_ns);
}

TEST_CASE("agent: what the envelope leaves stays inside its range") {
  const auto seen = make_seen();
  rpc_of(*seen, 1).weight = 790;
  CHECK(agent::Observer(names()).observe(*seen).lanes[0].weight_high == 800);
  rpc_of(*seen, 1).weight = 20;
  CHECK(agent::Observer(names()).observe(*seen).lanes[0].weight_low == 10);
  seen->tenants[0].ceiling_bps = 4'900;
  CHECK(agent::Observer(names()).observe(*seen).tenants[0].borrow_high_bps == 3'000);
}

TEST_CASE("agent: of bulk's ceiling it is told what one change can make of it, and nothing without a grant") {
  const auto seen = make_seen();
  anic_observed_tenant& acme = seen->tenants[0];
  const auto limits = [&] {
    const agent::Tenant tenant = agent::Observer(names()).observe(*seen).tenants[0];
    return std::pair(tenant.bulk_low_bps, tenant.bulk_high_bps);
  };
  CHECK_FALSE(limits().first);
  CHECK_FALSE(limits().second);
  acme.bulk_now_bps = acme.bulk_stated_bps = 2'000'000;
  acme.bulk_least_bps = 100'000;
  CHECK(limits() ==
        std::pair<std::optional<std::uint64_t>, std::optional<std::uint64_t>>(1'500'000, 2'000'000));
  acme.bulk_now_bps = 1'000'000;
  CHECK(limits() ==
        std::pair<std::optional<std::uint64_t>, std::optional<std::uint64_t>>(750'000, 1'250'000));
  acme.bulk_least_bps = 800'000;
  CHECK(limits().first == 800'000);
}

TEST_CASE("agent: escalations in force and how long one may last are told") {
  const auto seen = make_seen();
  CHECK(agent::Observer(names()).observe(*seen).tenants[0].escalations.empty());
  seen->tenants[0].escalated[5] = ANIC_ESCALATED(3, ANIC_CLASS_RPC);
  seen->tenants[0].escalated[7] = ANIC_ESCALATED(4, ANIC_CLASS_RPC);  // nobody told its name
  const agent::Tenant acme = agent::Observer(names()).observe(*seen).tenants[0];
  REQUIRE(acme.escalations.size() == 1);
  CHECK(acme.escalations[0].service == "chat");
  CHECK(acme.escalations[0].cls == "rpc");
  CHECK(acme.duration_high_ns == 60'000 * kMs);
}

TEST_CASE("agent: buckets that were moved are told, and CPU 0 is one") {
  const auto seen = make_seen();
  seen->tenants[0].rebalanced[2] = ANIC_REBALANCED(ANIC_CLASS_RPC, 127, 0);
  seen->tenants[0].rebalanced[9] = ANIC_REBALANCED(ANIC_CLASS_BULK, 0, ANIC_CPUS_MAX - 1);
  const agent::Tenant acme = agent::Observer(names()).observe(*seen).tenants[0];
  REQUIRE(acme.rebalances.size() == 2);
  CHECK(acme.rebalances[0].cls == "rpc");
  CHECK(acme.rebalances[0].bucket == 127);
  CHECK(acme.rebalances[0].cpu == 0);
  CHECK(acme.rebalances[1].cls == "bulk");
  CHECK(acme.rebalances[1].bucket == 0);
  CHECK(acme.rebalances[1].cpu == ANIC_CPUS_MAX - 1);
}

TEST_CASE("agent: a lane that was not looked at keeps its rate, and says how old it is") {
  const auto seen = make_seen();
  agent::Observer observer(names());
  observer.observe(*seen);
  anic_observed_lane& rpc = rpc_of(*seen, 1);
  seen->at_ns += 10 * kMs;
  rpc.at_ns = seen->at_ns;
  rpc.ways[ANIC_DIRECTION_IN].bytes += 1'250;
  CHECK(observer.observe(*seen).lanes[0].in.rate_bps == 1'000'000);
  CHECK(observer.observe(*seen).lanes[0].age_ns == 0);
  seen->at_ns += 30 * kMs;
  const agent::Lane lane = observer.observe(*seen).lanes[0];
  CHECK(lane.in.rate_bps == 1'000'000);
  CHECK(lane.in.packets == 0);
  CHECK(lane.age_ns == 30 * kMs);
  rpc.at_ns = seen->at_ns;
  CHECK(observer.observe(*seen).lanes[0].in.rate_bps == 0);
}

TEST_CASE("agent: counts become those since the last look, bytes become a rate") {
  const auto seen = make_seen();
  agent::Observer observer(names());
  observer.observe(*seen);
  anic_observed_lane& rpc = rpc_of(*seen, 1);
  rpc.at_ns += 10 * kMs;
  rpc.samples += 5;
  rpc.over_slo += 2;
  rpc.missed += 1;
  rpc.ways[ANIC_DIRECTION_OUT].packets += 4;
  rpc.ways[ANIC_DIRECTION_OUT].bytes += 1'250;
  rpc.ways[ANIC_DIRECTION_OUT].dropped_packets += 3;
  rpc.ways[ANIC_DIRECTION_OUT].given_bps = 9;
  const agent::Lane lane = observer.observe(*seen).lanes[0];
  CHECK(lane.samples == 5);
  CHECK(lane.over_slo == 2);
  CHECK(lane.over_slo_percent == 40);
  CHECK(lane.missed == 1);
  CHECK(lane.out.packets == 4);
  CHECK(lane.out.dropped_packets == 3);
  CHECK(lane.out.rate_bps == 1'000'000);
  CHECK(lane.out.given_bps == 9);
  CHECK(lane.in.rate_bps == 0);
  CHECK_FALSE(lane.in.given_bps);
  CHECK(observer.observe(*seen).lanes[0].out.packets == 0);  // it was not looked at again
}

TEST_CASE("agent: a percentile needs enough answers, and a lane a name") {
  const auto seen = make_seen();
  anic_observed_lane& rpc = rpc_of(*seen, 1);
  rpc.window = 99;
  rpc.p50_ns = 5;
  rpc.p99_ns = 6;
  agent::Observer observer(names());
  CHECK(observer.observe(*seen).lanes[0].p50_ns == 5);
  CHECK_FALSE(observer.observe(*seen).lanes[0].p99_ns);
  rpc.window = 100;
  CHECK(observer.observe(*seen).lanes[0].p99_ns == 6);
  rpc_of(*seen, 3).at_ns = kStart;  // nobody told its name
  CHECK(observer.observe(*seen).lanes.size() == 1);
}

TEST_CASE("agent: fail-safe and waiting are told") {
  const auto seen = make_seen();
  seen->tenants[0].failsafe = ANIC_FAILSAFE_HEARTBEAT;
  seen->tenants[0].free_ns = kStart + 4;
  const agent::Tenant acme = agent::Observer(names()).observe(*seen).tenants[0];
  CHECK(acme.failsafe == "heartbeat");
  CHECK(acme.wait_ns == 4);
}

TEST_CASE("agent: an observation is one line of JSON, from which it is read back") {
  const auto seen = make_seen();
  rpc_of(*seen, 2).at_ns = kStart;
  seen->tenants[0].escalated[0] = ANIC_ESCALATED(3, ANIC_CLASS_BULK);
  seen->tenants[0].rebalanced[0] = ANIC_REBALANCED(ANIC_CLASS_RPC, 5, 1);
  agent::Observer observer(names());
  observer.observe(*seen);
  rpc_of(*seen, 1).samples += 3;
  rpc_of(*seen, 1).over_slo += 1;
  const agent::Observation observation = observer.observe(*seen);
  const std::string line = agent::observation_line(observation);
  CHECK(line.find('\n') + 1 == line.size());
  const Json json = Json::parse(line);
  CHECK(json.at("type") == "observation");
  CHECK(json.at("tick") == kTick);
  CHECK(json.at("tenants").at(0).at("failsafe").is_null());
  CHECK(json.at("tenants").at(0).at("ceiling_bps") == 2'500);
  CHECK(json.at("lanes").at(0).at("in").at("given_bps").is_null());
  CHECK(json.at("lanes").at(1).at("tenant") == "globex");
  CHECK(json.at("lanes").at(0).at("over_slo_percent") == 100.0 / 3);
  CHECK(json.at("lanes").at(1).at("over_slo_percent").is_null());
  CHECK(json.at("tenants").at(0).at("bulk_low_bps").is_null());
  CHECK(json.at("tenants").at(0).at("escalations") ==
        Json::array({{{"service", "chat"}, {"class", "bulk"}}}));
  CHECK(json.at("tenants").at(0).at("rebalances") ==
        Json::array({{{"class", "rpc"}, {"bucket", 5}, {"cpu", 1}}}));
  const auto again = agent::parse_observation(line);
  REQUIRE(again);
  CHECK(agent::observation_line(*again) == line);
  CHECK_FALSE(agent::parse_observation("{}"));
  CHECK_FALSE(agent::parse_observation("no JSON"));
}

TEST_CASE("agent: an answer becomes proposals by ids") {
  const auto parsed = agent::parse_answer(answer_of(kWeight), kTick, names());
  REQUIRE(parsed);
  REQUIRE(parsed->size() == 1);
  const agent::Proposal& proposal = parsed->front();
  CHECK(proposal.id == 9);
  CHECK(proposal.change.kind == ANIC_CHANGE_QUEUE_WEIGHT_ADJUST);
  CHECK(proposal.change.tenant == 1);
  CHECK(proposal.change.cls == ANIC_CLASS_RPC);
  CHECK(proposal.change.value == 150);
  CHECK(proposal.change.duration_ns == 1000);
  CHECK(std::string(proposal.change.reason) == "it misses its SLO");
  CHECK(agent::parse_answer(R"({"tick": 7})", kTick, names())->empty());
  const std::string line = agent::answer_line(*parsed, kTick, names());
  const auto again = agent::parse_answer(line, kTick, names());
  REQUIRE(again);
  CHECK(std::memcmp(&again->front().change, &proposal.change, sizeof(proposal.change)) == 0);
}

TEST_CASE("agent: a fault in an answer is named with its place, and nothing of it is proposed") {
  const auto changed = [](const std::string& from, const std::string& to) {
    std::string text = kWeight;
    return answer_of(text.replace(text.find(from), from.size(), to));
  };
  CHECK(error_of("{").starts_with("parse error"));
  CHECK(error_of("[]").starts_with("/: an object belongs here"));
  CHECK(error_of("{}").starts_with("/: the key \"tick\" is missing"));
  CHECK(error_of(R"({"tick": 6})") == "/tick: 6 is not 7, which is asked");
  CHECK(error_of(R"({"tick": 7, "tick": 7})").starts_with("/tick: this key stands twice"));
  CHECK(error_of(R"({"tick": 7, "more": 1})").starts_with("/more: unknown key"));
  CHECK(error_of(changed("\"acme\"", "\"nemo\"")) == "/proposals/0/tenant: no tenant nemo was granted");
  CHECK(error_of(changed("\"rpc\"", "\"rpg\"")).starts_with("/proposals/0/class: \"rpg\" is not known here"));
  CHECK(error_of(changed("150", "-1")).starts_with("/proposals/0/value: -1 is not a whole number"));
  CHECK(error_of(changed("150", "1.5")).starts_with("/proposals/0/value: 1.5 is not a whole number"));
  CHECK(error_of(changed("it misses its SLO", "")).starts_with("/proposals/0/reason: not a reason"));
  CHECK(error_of(changed("it misses its SLO", std::string(40, 'x'))).starts_with("/proposals/0/reason"));
  CHECK(error_of(changed("it misses its SLO", R"(\n)")).starts_with("/proposals/0/reason"));
  std::string many = kWeight;
  for (int i = 0; i < ANIC_DRAIN_MAX; ++i) many += "," + std::string(kWeight);
  CHECK(error_of(answer_of(many)) == "/proposals/64: more than 64 proposals");
}

TEST_CASE("agent: a decision is told as the audit tells it") {
  agent::Decision decision{.proposal = agent::parse_answer(answer_of(kWeight), kTick, names())->front(),
                           .answer = {}};
  decision.answer.decided = ANIC_DECIDED_REWRITE;
  decision.answer.invariant = ANIC_INVARIANT_R1;
  decision.answer.rewritten = 1U << ANIC_INVARIANT_R1;
  decision.answer.observed = 100;
  decision.answer.requested = 150;
  decision.answer.approved = 120;
  decision.answer.seq = 12;
  const Json json = Json::parse(agent::decision_line(decision, kTick, 5, names()));
  CHECK(json.at("type") == "decision");
  CHECK(json.at("tick") == kTick);
  CHECK(json.at("id") == 9);
  CHECK(json.at("decided") == "rewrite");
  CHECK(json.at("invariant") == "R1");
  CHECK(json.at("approved_weight") == 120);
  CHECK(json.at("seq") == 12);
}

TEST_CASE("agent: hello says what is granted, by name") {
  agent::Hello hello{
      .ifname = "eth1", .agent = "tuner", .session = 4, .interval_ns = 10 * kMs, .grants = {}, .spreads = {}};
  hello.grants.kinds = 1U << ANIC_CHANGE_PATH_SWITCH;
  hello.grants.classes = 1U << ANIC_CLASS_RPC | 1U << ANIC_CLASS_CONTROL;
  hello.grants.paths = 1U << ANIC_PATH_XSK;
  const Json json = Json::parse(agent::hello_line(hello, names()));
  CHECK(json.at("schema") == "agentnic.agent/1");
  CHECK(json.at("tenants") == Json::array({"acme", "globex"}));
  CHECK(json.at("services") == Json::array({"chat"}));
  CHECK(json.at("kinds") == Json::array({"path_switch"}));
  CHECK(json.at("classes") == Json::array({"rpc"}));  // control is nobody's
  CHECK(json.at("paths") == Json::array({"xsk"}));
}

TEST_CASE("agent: lines come whole, however their bytes come, and none is too long") {
  agent::LineBuffer lines(agent::kMaxLine);
  CHECK_FALSE(lines.take());
  lines.add("one\ntw");
  CHECK(lines.take() == "one");
  CHECK_FALSE(lines.take());
  lines.add("o\n\nlast");
  CHECK(lines.take() == "two");
  CHECK(lines.take() == "");
  CHECK_FALSE(lines.take());
  CHECK_FALSE(lines.empty());
  lines.add(std::string(agent::kMaxLine - 4, 'x'));
  CHECK_FALSE(lines.too_long());
  lines.add("x");
  CHECK(lines.too_long());
  lines.add("\nnext\n");
  CHECK(lines.too_long());
  CHECK_FALSE(lines.take());  // with its end it is no shorter
}

TEST_CASE(
    "agent: words on standard error are passed on as lines, escaped, and the last one without its end") {
  agent::ErrorText errors;
  CHECK(errors.add("one\n\x1b[31m", kStart) == "agentnic-agent: the program says \"one\"\n");
  CHECK(errors.add("red\n", kStart) == "agentnic-agent: the program says \"\\u001b[31mred\"\n");
  CHECK(errors.add(std::string(agent::kErrorLine, 'x'), kStart).empty());
  CHECK(errors.add("x", kStart).starts_with("agentnic-agent: the program says \"xx"));
  CHECK(errors.end() == "agentnic-agent: the program says \"x\"\n");
  CHECK(errors.end().empty());
}

TEST_CASE(
    "agent: of words that nobody could read the first of each second are passed on, and how much there was") {
  agent::ErrorText errors;
  const std::string line = std::string(99, 'x') + "\n";
  std::string lines;
  for (int i = 0; i < 1000; ++i) lines += line;
  const std::string printed = errors.add(lines, kStart);
  CHECK(printed.size() <= agent::kErrorsASecond);
  CHECK(printed.size() > agent::kErrorsASecond / 2);
  const auto passed = static_cast<std::size_t>(std::ranges::count(printed, '\n'));
  CHECK(errors.add(line, kStart + 999 * kMs).empty());
  const std::string more = "agentnic-agent: the program said " + std::to_string((1001 - passed) * 100);
  CHECK(errors.add("on\n", kStart + 1000 * kMs) ==
        more + " bytes more\nagentnic-agent: the program says \"on\"\n");
  CHECK(errors.add(lines, kStart + 1001 * kMs).size() > agent::kErrorsASecond / 2);
  CHECK(errors.end().starts_with("agentnic-agent: the program said "));
}

TEST_CASE("agent: the static controller leaves everything as it is") {
  const auto controller = agent::make_controller("static", 0);
  REQUIRE(controller);
  const auto proposals = (*controller)->decide(agent::Observer(names()).observe(*make_seen()));
  REQUIRE(proposals);
  REQUIRE(*proposals);
  CHECK((*proposals)->empty());
  CHECK_FALSE(agent::make_controller("magic", 0));
}
