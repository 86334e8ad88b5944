// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>
#include <netinet/in.h>

#include <algorithm>
#include <catch2/catch_test_macros.hpp>
#include <cstddef>
#include <string>
#include <vector>

#include "kern/generation.hpp"
#include "policy/compile.hpp"
#include "policy/difference.hpp"
#include "policy/parse.hpp"
#include "policy/prefix.hpp"

using namespace agentnic;

namespace {

const std::string kFull = R"({"version": 1, "name": "full", "faces": "workload", "link_rate": "10Gbit",
  "classes": {"rpc": {"slo": "500us", "floor": 40, "weight": 400}, "bulk": {"floor": 10}},
  "tenants": [
    {"name": "acme", "prefixes": ["10.1.0.0/16"], "local": ["192.0.2.1"], "cgroups": ["agents/acme", "jobs"], "marks": [7],
     "default_class": "rpc", "budget": {"minimum": "2Gbit", "ceiling": "8Gbit", "bulk": "4Gbit"},
     "classes": {"rpc": {"floor": 55}}},
    {"name": "beta", "prefixes": ["10.2.0.0/16"], "budget": {"bulk": "1Gbit"}}],
  "services": [
    {"name": "gateway", "protocol": "udp", "port": 9000, "role": "both", "class": "rpc", "path": "kernel"},
    {"name": "fast", "tenant": "acme", "protocol": "udp", "port": 9000, "role": "both", "class": "rpc", "path": "xsk"},
    {"name": "feed", "protocol": "udp", "port": 9001, "role": "client", "class": "retrieval", "path": "xsk"}],
  "dscp": [{"value": 46, "class": "rpc"}],
  "control": [{"protocol": "tcp", "port": 22}], "management": [{"protocol": "tcp", "port": 22, "role": "client"}],
  "control_alarm": 5000, "fallback": {"weights": {"bulk": 1}}, "guardian": {"heartbeat": "2s"},
  "agents": [
    {"name": "tuner", "tenants": ["beta", "acme"], "kinds": ["queue_weight_adjust", "path_switch"],
     "classes": ["rpc"], "paths": ["kernel"]},
    {"name": "lender", "tenants": ["beta"], "kinds": ["quota_borrow"]}]})";

/// kFull with each `from` replaced by the `to` after it.
std::string with(std::initializer_list<std::pair<const char*, const char*>> edits) {
  std::string text = kFull;
  for (const auto& [from, to] : edits) {
    const auto at = text.find(from);
    REQUIRE(at != std::string::npos);
    text.replace(at, std::string_view(from).size(), to);
  }
  return text;
}

policy::Tables tables_of(const std::string& text, const policy::Ids& previous = {}) {
  const auto policy = policy::parse(text, "p");
  INFO((policy ? "" : policy.error().text()));
  REQUIRE(policy);
  return policy::compile(*policy, policy::assign_ids(*policy, previous).value());
}

/// From kFull to what `edits` make of it, ids kept.
std::vector<std::string> changes(std::initializer_list<std::pair<const char*, const char*>> edits) {
  const auto ids = policy::assign_ids(policy::parse(kFull, "p").value(), {}).value();
  return policy::difference(tables_of(kFull), tables_of(with(edits), ids));
}

const anic_lane& lane(const policy::Tables& tables, anic_profile profile, std::uint32_t tenant,
                      anic_class cls) {
  return tables.lanes[policy::lane_index(profile, tenant, cls)];
}

anic_owned_port owned(std::uint8_t role) {
  return {.port = 9000, .tenant = 1, .protocol = IPPROTO_UDP, .role = role, ._pad = {}};
}

/// A policy of tenants or services of these names.
policy::Policy named(const std::vector<std::string>& tenants, const std::vector<std::string>& services) {
  policy::Policy policy;
  for (const std::string& name : tenants) policy.tenants.emplace_back().name = name;
  for (const std::string& name : services) policy.services.emplace_back().name = name;
  return policy;
}

using Lines = std::vector<std::string>;

}  // namespace

TEST_CASE("compile: the first policy keeps its meaning") {
  const auto tables = tables_of(R"({"version": 1, "name": "p", "services": [
    {"name": "a", "protocol": "udp", "port": 9000, "class": "rpc", "path": "kernel"},
    {"name": "b", "protocol": "udp", "port": 9001, "class": "bulk", "path": "xsk"}],
    "control": [{"protocol": "tcp", "port": 22}]})");
  REQUIRE(tables.services.size() == 3);
  CHECK(tables.services[0] == anic_service{});
  CHECK(std::string(tables.services[2].name) == "b");
  CHECK(tables.services[2].port == 9001);
  CHECK(tables.services[2].role == ANIC_ROLE_SERVER);
  REQUIRE(tables.ports.size() == 3);
  CHECK(tables.ports.at(9001) ==
        anic_port{.server = 2, .client = 0, .control = 0, .tenants = 0, .owners = 0});
  CHECK(tables.ports.at(ANIC_PORTS + 22) ==
        anic_port{.server = 0, .client = 0, .control = ANIC_ROLE_SERVER, .tenants = 0, .owners = 0});
  REQUIRE(tables.tenants.size() == ANIC_TENANTS_MAX);
  CHECK(tables.tenants[0].name[0] == '\0');
  CHECK(tables.tenants[0].cls == ANIC_CLASS_DEFAULT);
  CHECK(tables.policy.uses == 0);
  CHECK(tables.policy.link_rate_bps == 0);
  CHECK(std::string(tables.policy.name) == "p");
  REQUIRE(tables.lanes.size() == std::size_t{2} * ANIC_LANES_MAX);
  CHECK(lane(tables, ANIC_PROFILE_POLICY, 0, ANIC_CLASS_BULK).path == ANIC_PATH_XSK);
  CHECK(lane(tables, ANIC_PROFILE_POLICY, 0, ANIC_CLASS_RPC).path == ANIC_PATH_KERNEL);
  CHECK(lane(tables, ANIC_PROFILE_POLICY, 0, ANIC_CLASS_RPC).weight == policy::kDefaultWeight);
  CHECK(lane(tables, ANIC_PROFILE_POLICY, 1, ANIC_CLASS_RPC) == anic_lane{});
}

TEST_CASE("compile: a class's buckets are given to its CPUs in turn, and a tenant's own CPUs go before") {
  const auto tables = tables_of(R"({"version": 1, "name": "p", "services": [],
    "classes": {"rpc": {"cpus": [3, 0, 7]}},
    "tenants": [{"name": "a", "marks": [1]}, {"name": "b", "marks": [2], "classes": {"rpc": {"cpus": []}}}]})");
  REQUIRE(tables.spread.size() == ANIC_LANES_MAX);
  const anic_spread& of_nobody = tables.spread[ANIC_LANE(0, ANIC_CLASS_RPC)];
  CHECK(policy::cpus_of(of_nobody) == std::vector<unsigned>{3, 0, 7});
  CHECK(of_nobody.cpu[126] == 4);
  CHECK(of_nobody.cpu[127] == 1);
  CHECK(tables.spread[ANIC_LANE(1, ANIC_CLASS_RPC)] == of_nobody);
  CHECK(tables.spread[ANIC_LANE(2, ANIC_CLASS_RPC)] == anic_spread{});
  CHECK(tables.spread[ANIC_LANE(1, ANIC_CLASS_BULK)] == anic_spread{});
  CHECK(tables.policy.uses == (ANIC_USES_CPUS | ANIC_USES_MARKS));
}

TEST_CASE("difference: CPUs of a lane, and the same in other buckets") {
  const auto spread_over = [](const std::string& cpus) {
    return tables_of(R"({"version": 1, "name": "p", "services": [], "classes": {"rpc": {"cpus": [)" + cpus +
                     "]}}}");
  };
  CHECK(policy::difference(spread_over("1"), spread_over("2, 3")) == Lines{"lane (none)/rpc: cpus 1 -> 2 3"});
  CHECK(policy::difference(spread_over("1"), spread_over("")) == Lines{"lane (none)/rpc: cpus 1 -> none"});
  auto moved = spread_over("1, 2");
  moved.spread[ANIC_LANE(0, ANIC_CLASS_RPC)].cpu[127] = 2;
  CHECK(policy::difference(spread_over("1, 2"), moved) ==
        Lines{"lane (none)/rpc: cpus 1 2 -> 1 2, in other buckets"});
}

TEST_CASE("compile: who owns what is by tenant id") {
  const auto tables = tables_of(kFull);
  CHECK(std::string(tables.tenants[1].name) == "acme");
  CHECK(tables.tenants[1].cls == ANIC_CLASS_RPC);
  CHECK(tables.tenants[2].cls == ANIC_CLASS_DEFAULT);
  CHECK(tables.tenants[3] == anic_tenant{});
  REQUIRE(tables.remotes.size() == 2);
  CHECK(tables.remotes.at(*policy::parse_prefix("10.1.0.0/16")) == 1);
  CHECK(tables.remotes.at(*policy::parse_prefix("10.2.0.0/16")) == 2);
  CHECK(tables.locals.at(*policy::parse_prefix("192.0.2.1")) == 1);
  CHECK(tables.senders.at({.id = 7, .kind = ANIC_SENDER_MARK, ._pad = 0}) == 1);
  CHECK(tables.cgroups == std::map<std::string, std::uint32_t>{{"agents/acme", 1}, {"jobs", 1}});
  CHECK(tables.policy.cgroup_depths == (1U << 1 | 1U << 2));
  CHECK(tables.policy.prefixes == 3);
  CHECK(tables.policy.uses == (ANIC_USES_LOCALS | ANIC_USES_MARKS | ANIC_USES_CGROUPS | ANIC_FACES_WORKLOAD));
  CHECK(tables.policy.control_alarm == 5000);
  CHECK(tables.policy.link_rate_bps == 10'000'000'000);
  CHECK(tables.policy.dscp[46] == ANIC_CLASS_RPC);
  CHECK(tables.policy.dscp[0] == ANIC_CLASS_NONE);
  CHECK(tables.policy.committed_at_ns == 0);
}

TEST_CASE("compile: a port has services of any tenant, of single ones, and control, each by its end") {
  const auto tables = tables_of(kFull);
  CHECK(tables.ports.at(9000) ==
        anic_port{.server = 1, .client = 1, .control = 0, .tenants = ANIC_ROLE_BOTH, .owners = 0});
  CHECK(tables.ports.at(9001) ==
        anic_port{.server = 0, .client = 3, .control = 0, .tenants = 0, .owners = 0});
  CHECK(tables.ports.at(ANIC_PORTS + 22).control == ANIC_ROLE_BOTH);
  REQUIRE(tables.owned.size() == 2);
  CHECK(tables.owned.at(owned(ANIC_ROLE_SERVER)) == 2);
  CHECK(tables.owned.at(owned(ANIC_ROLE_CLIENT)) == 2);
  CHECK(tables.services[2].tenant == 1);
  CHECK(tables.services[2].role == ANIC_ROLE_BOTH);
}

TEST_CASE("compile: lanes have rates of the tenant's budget and terms of both levels") {
  const auto tables = tables_of(kFull);
  const anic_lane rpc = lane(tables, ANIC_PROFILE_POLICY, 1, ANIC_CLASS_RPC);
  CHECK(rpc.rate_bps == 1'100'000'000);
  CHECK(rpc.ceiling_bps == 8'000'000'000);
  CHECK(rpc.slo_ns == 500'000);
  CHECK(rpc.weight == 400);
  CHECK(rpc.floor_percent == 55);
  const anic_lane bulk = lane(tables, ANIC_PROFILE_POLICY, 1, ANIC_CLASS_BULK);
  CHECK(bulk.rate_bps == 200'000'000);
  CHECK(bulk.ceiling_bps == 4'000'000'000);
  CHECK(bulk.weight == policy::kDefaultWeight);
  CHECK(lane(tables, ANIC_PROFILE_POLICY, 2, ANIC_CLASS_BULK).ceiling_bps == 1'000'000'000);
  CHECK(lane(tables, ANIC_PROFILE_POLICY, 2, ANIC_CLASS_RPC).ceiling_bps == 0);
  CHECK(lane(tables, ANIC_PROFILE_POLICY, 2, ANIC_CLASS_RPC).rate_bps == 0);
  CHECK(lane(tables, ANIC_PROFILE_POLICY, 0, ANIC_CLASS_RPC).floor_percent == 40);
  CHECK(lane(tables, ANIC_PROFILE_POLICY, 3, ANIC_CLASS_RPC) == anic_lane{});

  anic_lane control{};
  control.path = ANIC_PATH_KERNEL;
  control.weight = ANIC_WEIGHT_MAX;
  for (const anic_profile profile : {ANIC_PROFILE_POLICY, ANIC_PROFILE_FALLBACK}) {
    CHECK(lane(tables, profile, 0, ANIC_CLASS_CONTROL) == control);
    CHECK(lane(tables, profile, 1, ANIC_CLASS_CONTROL) == anic_lane{});
    const anic_lane whole = lane(tables, profile, 1, ANIC_CLASS_NONE);
    CHECK(whole.rate_bps == 2'000'000'000);
    CHECK(whole.ceiling_bps == 8'000'000'000);
    CHECK(whole.path == ANIC_PATH_NONE);
    CHECK(lane(tables, profile, 0, ANIC_CLASS_NONE).ceiling_bps == tables.policy.link_rate_bps);
    CHECK(lane(tables, profile, 0, ANIC_CLASS_NONE).weight == policy::kDefaultWeight);
    CHECK(lane(tables, profile, 3, ANIC_CLASS_NONE) == anic_lane{});
  }
}

TEST_CASE("compile: the largest budget does not overflow") {
  const auto tables = tables_of(R"({"version": 1, "name": "p", "services": [], "link_rate": "10Tbit",
    "classes": {"rpc": {"floor": 100}},
    "tenants": [{"name": "t", "marks": [1], "budget": {"minimum": "10Tbit"}}]})");
  CHECK(lane(tables, ANIC_PROFILE_POLICY, 1, ANIC_CLASS_RPC).rate_bps == 10'000'000'000'000);
}

TEST_CASE("compile: a lane is on path B if an xsk service can be its") {
  const auto tables = tables_of(kFull);
  const auto path = [&](std::uint32_t tenant, anic_class cls) {
    return lane(tables, ANIC_PROFILE_POLICY, tenant, cls).path;
  };
  CHECK(path(1, ANIC_CLASS_RPC) == ANIC_PATH_XSK);  // its own service
  CHECK(path(2, ANIC_CLASS_RPC) == ANIC_PATH_KERNEL);
  CHECK(path(0, ANIC_CLASS_RPC) == ANIC_PATH_KERNEL);
  for (const std::uint32_t tenant : {0U, 1U, 2U}) CHECK(path(tenant, ANIC_CLASS_RETRIEVAL) == ANIC_PATH_XSK);
  CHECK(path(1, ANIC_CLASS_BULK) == ANIC_PATH_KERNEL);
}

TEST_CASE("compile: the fallback profile is path A with its own weights, or keeps paths") {
  const auto tables = tables_of(kFull);
  anic_lane expected = lane(tables, ANIC_PROFILE_POLICY, 1, ANIC_CLASS_RPC);
  expected.path = ANIC_PATH_KERNEL;
  CHECK(lane(tables, ANIC_PROFILE_FALLBACK, 1, ANIC_CLASS_RPC) == expected);
  CHECK(lane(tables, ANIC_PROFILE_FALLBACK, 1, ANIC_CLASS_BULK).weight == 1);
  CHECK(lane(tables, ANIC_PROFILE_FALLBACK, 0, ANIC_CLASS_BULK).weight == 1);
  const auto kept = tables_of(with({{"\"weights\": {\"bulk\": 1}", "\"path\": \"keep\""}}));
  for (std::size_t i = 0; i < ANIC_LANES_MAX; ++i) CHECK(kept.lanes[i] == kept.lanes[ANIC_LANES_MAX + i]);
}

TEST_CASE("compile: agents are by id, what they are granted by the ids of their tenants") {
  const auto tables = tables_of(kFull);
  const anic_agent& tuner = tables.guarding.agents[1];
  CHECK(std::string(tuner.name) == "tuner");
  CHECK(tuner.grants.tenants == 0b11);
  CHECK(tuner.grants.kinds == (1U << ANIC_CHANGE_QUEUE_WEIGHT_ADJUST | 1U << ANIC_CHANGE_PATH_SWITCH));
  CHECK(tuner.grants.classes == 1U << ANIC_CLASS_RPC);
  CHECK(tuner.grants.paths == 1U << ANIC_PATH_KERNEL);
  CHECK(tables.guarding.agents[2].grants.tenants == 0b10);
  CHECK(tables.guarding.agents[0] == anic_agent{});
  CHECK(tables.guarding.agents[3] == anic_agent{});
  const policy::GrantWords words = policy::words_of(tuner.grants, tables);
  CHECK(words.tenants == Lines{"acme", "beta"});
  CHECK(words.kinds == Lines{"queue_weight_adjust", "path_switch"});
  CHECK(words.classes == Lines{"rpc"});
  CHECK(words.paths == Lines{"kernel"});

  const policy::Ids previous{.tenants = {{"beta", 64}}, .services = {}, .agents = {{"lender", 16}}};
  const auto moved = tables_of(kFull, previous);
  CHECK(std::string(moved.guarding.agents[16].name) == "lender");
  CHECK(moved.guarding.agents[16].grants.tenants == 1ULL << 63);
  CHECK(policy::words_of(moved.guarding.agents[16].grants, moved).tenants == Lines{"beta"});
  CHECK(moved.guarding.agents[2] == anic_agent{});
}

TEST_CASE("compile: the envelope is as stated, or the default") {
  anic_envelope expected = policy::kDefaultEnvelope;
  expected.heartbeat_ns = 2'000'000'000;
  CHECK(tables_of(kFull).guarding.envelope == expected);
  anic_guarding defaults{};
  defaults.envelope = policy::kDefaultEnvelope;
  CHECK(tables_of(R"({"version": 1, "name": "p", "services": []})").guarding == defaults);
}

TEST_CASE("ids: agents keep theirs as tenants do") {
  const auto agents = [](const std::vector<std::string>& names, const policy::Ids& previous) {
    policy::Policy policy;
    for (const std::string& name : names) policy.agents.emplace_back().name = name;
    return policy::assign_ids(policy, previous);
  };
  const auto first = agents({"a", "b"}, {}).value();
  CHECK(first.agents == decltype(first.agents){{"a", 1}, {"b", 2}});
  const auto second = agents({"c", "b"}, first).value();
  CHECK(second.agents == decltype(first.agents){{"b", 2}, {"c", 3}});
  CHECK(agents({"d", "b"}, second).value().agents == decltype(first.agents){{"b", 2}, {"d", 1}});

  std::vector<std::string> names;
  for (int i = 0; i < 16; ++i) names.push_back(fmt::format("a{}", i));
  const auto full = agents(names, {}).value();
  names[3] = "new";
  CHECK(agents(names, full).error().what ==
        "give the agent new an id: the policy in force and this one need more than 16");
}

TEST_CASE("ids: who keeps its name keeps its id, and no id changes hands at once") {
  const auto first = policy::assign_ids(named({"a", "b"}, {"x", "y", "z"}), {}).value();
  CHECK(first.tenants == decltype(first.tenants){{"a", 1}, {"b", 2}});
  CHECK(first.services == decltype(first.services){{"x", 1}, {"y", 2}, {"z", 3}});
  const auto second = policy::assign_ids(named({"c", "b"}, {"z", "w", "y"}), first).value();
  CHECK(second.tenants == decltype(first.tenants){{"b", 2}, {"c", 3}});
  CHECK(second.services == decltype(first.services){{"w", 4}, {"y", 2}, {"z", 3}});
  const auto third = policy::assign_ids(named({"c", "b", "d"}, {"v"}), second).value();
  CHECK(third.tenants == decltype(first.tenants){{"b", 2}, {"c", 3}, {"d", 1}});
  CHECK(third.services == decltype(first.services){{"v", 1}});
}

TEST_CASE("ids: running out is told with the way out") {
  std::vector<std::string> names;
  for (int i = 0; i < 64; ++i) names.push_back(fmt::format("t{}", i));
  const auto full = policy::assign_ids(named(names, {}), {}).value();
  CHECK(policy::assign_ids(named(names, {}), full).value() == full);
  names[5] = "new";
  const auto over = policy::assign_ids(named(names, {}), full);
  REQUIRE_FALSE(over);
  CHECK(over.error().exit == Exit::Failed);
  CHECK(over.error().text() ==
        "give the tenant new an id: the policy in force and this one need more than 64; hint: first load it "
        "without what it adds, then as it is: an id is free once its owner has gone");
  names.erase(names.begin() + 5);
  const auto less = policy::assign_ids(named(names, {}), full).value();
  names.emplace_back("new");
  CHECK(policy::assign_ids(named(names, {}), less).value().tenants.at("new") == 6);
}

TEST_CASE("compile: gaps in the ids are zero") {
  const policy::Ids previous{.tenants = {{"beta", 9}}, .services = {{"feed", 5}}, .agents = {}};
  const auto tables = tables_of(kFull, previous);
  CHECK(std::string(tables.tenants[9].name) == "beta");
  CHECK(tables.tenants[2] == anic_tenant{});
  REQUIRE(tables.services.size() == 6);
  CHECK(std::string(tables.services[5].name) == "feed");
  CHECK(tables.services[4] == anic_service{});
  CHECK(tables.remotes.at(*policy::parse_prefix("10.2.0.0/16")) == 9);
}

TEST_CASE("compile: owners are ids in rows, or names beside them; gaps have none") {
  constexpr const char* kFeed = R"("class": "retrieval", "path": "xsk")";
  const policy::Ids previous{.tenants = {}, .services = {{"feed", 5}}, .agents = {}};
  const auto none = tables_of(kFull, previous);
  CHECK(none.services[5].owner == ANIC_NO_OWNER);
  CHECK(none.services[4].owner == 0);
  CHECK(policy::owner_of(none, 5).empty());
  const auto by_id =
      tables_of(with({{kFeed, R"("class": "retrieval", "path": "xsk", "owner": 1000)"}}), previous);
  CHECK(by_id.services[5].owner == 1000);
  CHECK(by_id.users.empty());
  CHECK(policy::owner_of(by_id, 5) == "1000");
  const auto by_name =
      tables_of(with({{kFeed, R"("class": "retrieval", "path": "xsk", "owner": "gateway")"}}), previous);
  CHECK(by_name.services[5].owner == ANIC_NO_OWNER);
  CHECK(by_name.users == decltype(by_name.users){{5, "gateway"}});
  CHECK(policy::owner_of(by_name, 5) == "gateway");
}

TEST_CASE("owners: names become ids of this machine, and one that is not known is refused") {
  const auto owned = [](const std::string& owner) {
    return kern::tables_of(policy::parse(fmt::format(R"({{"version": 1, "name": "p", "services": [
      {{"name": "gate", "protocol": "udp", "port": 9000, "class": "rpc", "path": "xsk", "owner": {}}}]}})",
                                                     owner),
                                         "p")
                               .value(),
                           {});
  };
  const auto root = owned("\"root\"").value();
  CHECK(root.services[1].owner == 0);
  CHECK(root.users.empty());
  CHECK(root.services == owned("0").value().services);
  CHECK(owned("4294967294").value().services[1].owner == 4294967294);
  const auto unknown = owned("\"no-such-user\"");
  REQUIRE_FALSE(unknown);
  CHECK(unknown.error().exit == Exit::BadInput);
  CHECK(unknown.error().text() ==
        "find the owner of service gate: there is no user no-such-user; hint: useradd makes one");
}

TEST_CASE("difference: equal tables have none") {
  CHECK(policy::difference(tables_of(kFull), tables_of(kFull)).empty());
  auto committed = tables_of(kFull);
  committed.policy.committed_at_ns = 1;
  CHECK(policy::difference(tables_of(kFull), committed).empty());
}

TEST_CASE("difference: what the policy says of itself") {
  CHECK(changes({{"\"name\": \"full\", \"faces\": \"workload\", \"link_rate\": \"10Gbit\"",
                  "\"name\": \"less\", \"link_rate\": \"25Gbit\""},
                 {"\"control_alarm\": 5000, ", ""}}) ==
        Lines{"name: full -> less", "faces: workload -> network", "link_rate: 10Gbit -> 25Gbit",
              "control_alarm: 5000 -> none"});
}

TEST_CASE("difference: how the kernel polls the interface") {
  policy::Tables before = tables_of(kFull);
  policy::Tables after = before;
  before.napi[ANIC_NAPI_DEFER_HARD_IRQS] = 2;
  before.napi[ANIC_NAPI_GRO_FLUSH_TIMEOUT] = 200'000;
  after.napi[ANIC_NAPI_DEFER_HARD_IRQS] = 0;
  after.napi[ANIC_NAPI_THREADED] = 1;
  CHECK(policy::difference(before, after) == Lines{"napi defer_hard_irqs: 2 -> 0",
                                                   "napi gro_flush_timeout: 200us -> none",
                                                   "napi threaded: none -> true"});
}

TEST_CASE("difference: from nothing, all is added") {
  const Lines lines = policy::difference({}, tables_of(kFull));
  REQUIRE(lines.size() > 5);
  CHECK(lines[0] == "name: none -> full");
  CHECK(std::ranges::count(lines, "tenant acme: added") == 1);
  CHECK(std::ranges::count(lines, "service gateway: added") == 1);
  CHECK(std::ranges::count(lines, "dscp 46: none -> rpc") == 1);
  CHECK(std::ranges::count(policy::difference(tables_of(kFull), {}), "control tcp port 22 (both): removed") ==
        1);
}

TEST_CASE("difference: tenants and what is theirs") {
  CHECK(changes({{"\"name\": \"beta\"", "\"name\": \"gamma\""},
                 {"[\"beta\", \"acme\"]", "[\"gamma\", \"acme\"]"},
                 {"[\"beta\"]", "[\"gamma\"]"}}) ==
        Lines{"tenant beta: removed", "tenant gamma: added", "prefix 10.2.0.0/16: beta -> gamma",
              "agent lender: tenants beta -> gamma", "agent tuner: tenants acme beta -> acme gamma"});
  CHECK(changes({{"\"default_class\": \"rpc\"", "\"default_class\": \"bulk\""}}) ==
        Lines{"tenant acme: default_class rpc -> bulk"});
  CHECK(changes({{"10.1.0.0/16", "10.2.0.0/16"},
                 {"[\"10.2.0.0/16\"], \"budget\"", "[\"10.3.0.0/16\"], \"budget\""}}) ==
        Lines{"prefix 10.1.0.0/16 of acme: removed", "prefix 10.2.0.0/16: beta -> acme",
              "prefix 10.3.0.0/16 of beta: added"});
  CHECK(changes({{"192.0.2.1", "192.0.2.2"}, {"\"jobs\"", "\"work\""}, {"[7]", "[8]"}}) ==
        Lines{"local prefix 192.0.2.1/32 of acme: removed", "local prefix 192.0.2.2/32 of acme: added",
              "cgroup jobs of acme: removed", "cgroup work of acme: added", "mark 7 of acme: removed",
              "mark 8 of acme: added"});
}

TEST_CASE("difference: services, DSCP and control ports") {
  CHECK(changes({{"\"port\": 9001, \"role\": \"client\", \"class\": \"retrieval\"",
                  "\"port\": 9002, \"class\": \"retrieval\""}}) ==
        Lines{"service feed: port 9001 -> 9002, role client -> server"});
  CHECK(changes({{"\"name\": \"gateway\", \"protocol\": \"udp\"",
                  "\"name\": \"portal\", \"protocol\": \"tcp\""}}) ==
        Lines{"service gateway: removed", "service portal: added"});
  CHECK(changes({{"\"fast\", \"tenant\": \"acme\"", "\"fast\", \"tenant\": \"beta\""}}) ==
        Lines{"service fast: tenant acme -> beta", "lane acme/rpc: path xsk -> kernel",
              "lane beta/rpc: path kernel -> xsk"});
  CHECK(
      changes({{"\"retrieval\", \"path\": \"xsk\"", "\"retrieval\", \"path\": \"xsk\", \"owner\": 1000"}}) ==
      Lines{"service feed: owner none -> 1000"});
  CHECK(changes({{"\"retrieval\", \"path\": \"xsk\"",
                  "\"retrieval\", \"path\": \"xsk\", \"owner\": \"gateway\""}}) ==
        Lines{"service feed: owner none -> gateway"});
  CHECK(changes({{"\"value\": 46", "\"value\": 34"}}) ==
        Lines{"dscp 34: none -> rpc", "dscp 46: rpc -> none"});
  CHECK(changes({{"\"tcp\", \"port\": 22}", "\"tcp\", \"port\": 23}"}}) ==
        Lines{"control tcp port 22: both -> client", "control tcp port 23 (server): added"});
}

TEST_CASE("difference: lanes of both profiles, with units") {
  CHECK(changes({{"\"floor\": 55", "\"floor\": 50, \"slo\": \"1.5ms\", \"weight\": 300"}}) ==
        Lines{"lane acme/rpc: rate 1.1Gbit -> 1Gbit, slo 500us -> 1.5ms, floor 55 -> 50, weight 400 -> 300",
              "fallback lane acme/rpc: rate 1.1Gbit -> 1Gbit, slo 500us -> 1.5ms, floor 55 -> 50, weight 400 "
              "-> 300"});
  CHECK(changes({{"\"weights\": {\"bulk\": 1}", "\"weights\": {\"bulk\": 2}"}}) ==
        Lines{"fallback lane (none)/bulk: weight 1 -> 2", "fallback lane acme/bulk: weight 1 -> 2",
              "fallback lane beta/bulk: weight 1 -> 2"});
  CHECK(changes({{"\"bulk\": \"1Gbit\"", "\"weight\": 2"}}) ==
        Lines{"tenant beta: weight 100 -> 2", "lane beta/bulk: ceiling 1Gbit -> none",
              "fallback lane beta/bulk: ceiling 1Gbit -> none"});
}

TEST_CASE("difference: the guardian in one line, agents in one each") {
  CHECK(
      changes({{"\"heartbeat\": \"2s\"",
                R"("tick": "5ms", "oscillation": {"window": "1ms"}, "slo": {"protect": false},
                     "weight": {"maximum": 500}, "borrow": {"maximum": "1Gbit"})"}}) ==
      Lines{"guardian: tick 10ms -> 5ms, heartbeat 2s -> 1s, oscillation window 10s -> 1ms, slo protect true "
            "-> false, weight maximum 1000 -> 500, borrow maximum none -> 1Gbit, borrow step none -> 1Gbit"});
  CHECK(changes({{"\"lender\"", "\"banker\""}}) == Lines{"agent banker: added", "agent lender: removed"});
  CHECK(changes({{"[\"beta\", \"acme\"]", "[\"acme\"]"},
                 {"\"path_switch\"]", "\"quota_borrow\"]"},
                 {"\"classes\": [\"rpc\"], \"paths\": [\"kernel\"]", "\"classes\": [\"rpc\", \"bulk\"]"}}) ==
        Lines{"agent tuner: tenants acme beta -> acme, kinds path_switch queue_weight_adjust -> "
              "queue_weight_adjust quota_borrow, classes rpc -> bulk rpc, paths kernel -> none"});
}

TEST_CASE("difference: every field of the envelope has its words") {
  const auto before = tables_of(kFull);
  constexpr std::size_t kFields = sizeof(anic_envelope) - sizeof(anic_envelope::_pad);
  for (std::size_t at = 0; at < kFields; at += at < offsetof(anic_envelope, weight_min) ? 8 : 4) {
    INFO(at);
    auto after = before;
    auto* bytes = reinterpret_cast<unsigned char*>(&after.guarding.envelope);
    if (at == offsetof(anic_envelope, protects)) {
      bytes[at] = 0;
    } else {
      bytes[at] ^= 2U;
    }
    const Lines lines = policy::difference(before, after);
    REQUIRE(lines.size() == 1);
    CHECK(lines[0].starts_with("guardian: "));
    CHECK(lines[0].find(", ") == std::string::npos);
  }
}

TEST_CASE("difference: more than 20 lines of one kind are summed up") {
  const auto document = [](int first, int count, const char* owner) {
    std::string prefixes;
    for (int i = first; i < first + count; ++i) {
      prefixes += fmt::format("{}\"10.0.{}.{}\"", prefixes.empty() ? "" : ",", i / 256, i % 256);
    }
    return fmt::format(R"({{"version": 1, "name": "p", "services": [], "tenants": [
      {{"name": "a", "marks": [1]}}, {{"name": "b", "marks": [2]}}, {{"name": "{}-", "prefixes": [{}]}}]}})",
                       owner, prefixes);
  };
  CHECK(policy::difference(tables_of(document(0, 1, "o")), tables_of(document(0, 21, "o"))).size() == 20);
  CHECK(policy::difference(tables_of(document(0, 1, "o")), tables_of(document(0, 22, "o"))) ==
        Lines{"prefixes: 21 added"});
  CHECK(policy::difference(tables_of(document(0, 1000, "o")), tables_of(document(10, 1500, "p"))) ==
        Lines{"tenant o-: removed", "tenant p-: added", "prefixes: 510 added, 10 removed, 990 moved"});
}

TEST_CASE("difference: what no policy compiles to is told all the same") {
  const auto policy = tables_of(kFull);
  const auto damaged = [&](auto damage) {
    policy::Tables tables = policy;
    damage(tables);
    return policy::difference(policy, tables);
  };
  CHECK(damaged([](policy::Tables& t) { t.ports.at(9000).server = 3; }) ==
        Lines{"look-up of udp port 9000: server gateway -> feed"});
  CHECK(damaged([](policy::Tables& t) { t.ports.erase(9001); }) ==
        Lines{"look-up of udp port 9001: client feed -> (none)"});
  CHECK(damaged([](policy::Tables& t) { t.owned.at(owned(ANIC_ROLE_SERVER)) = 77; }) ==
        Lines{"look-up of udp port 9000 (server) of acme: service fast -> (service id 77)"});
  CHECK(damaged([](policy::Tables& t) {
          t.policy.uses = 0;
          t.policy.uses |= ANIC_FACES_WORKLOAD;
        }) == Lines{"policy row: uses 15 -> 8"});
  CHECK(damaged([](policy::Tables& t) {
          t.lanes[policy::lane_index(ANIC_PROFILE_POLICY, 40, 3)].weight = 1;
        }) == Lines{"tables: rows that no name leads to differ"});
  CHECK(damaged([](policy::Tables& t) { t.guarding.agents[1].grants.tenants |= 1U << 5; }) ==
        Lines{"agent tuner: tenants acme beta -> (tenant id 6) acme beta"});
  CHECK(damaged([](policy::Tables& t) { t.guarding.agents[2].grants.kinds |= 1U << 9; }) ==
        Lines{"agent lender: kinds quota_borrow -> ? quota_borrow"});
  CHECK(damaged([](policy::Tables& t) { t.guarding.agents[9].grants.paths = 1; }) ==
        Lines{"tables: rows that no name leads to differ"});
  CHECK(damaged([](policy::Tables& t) { t.lanes.clear(); }) ==
        Lines{"tables: rows that no name leads to differ"});
  CHECK(damaged([](policy::Tables& t) { t.remotes.begin()->second = 50; }) ==
        Lines{"prefix 10.1.0.0/16: acme -> (tenant id 50)"});
  CHECK(damaged([](policy::Tables& t) { t.policy.digest[0] ^= 1U; })
            .at(0)
            .ends_with(", which changes no table"));
  CHECK(damaged([](policy::Tables& t) {
          std::fill(std::begin(t.tenants[1].name), std::end(t.tenants[1].name), 'x');
        }).at(1) == "tenant " + std::string(32, 'x') + ": added");
}
