// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>
#include <netinet/in.h>
#include <unistd.h>

#include <algorithm>
#include <catch2/catch_test_macros.hpp>
#include <nlohmann/json.hpp>
#include <string>

#include "base/file.hpp"
#include "policy/order.hpp"
#include "policy/parse.hpp"
#include "policy/prefix.hpp"
#include "policy/units.hpp"

using namespace agentnic;

namespace {

const std::string kGood = R"({"version": 1, "name": "p", "services": [
  {"name": "a", "protocol": "udp", "port": 9000, "class": "rpc", "path": "kernel"},
  {"name": "b", "protocol": "udp", "port": 9001, "class": "bulk", "path": "xsk"}],
  "control": [{"protocol": "tcp", "port": 22}]})";

/// kGood with the first occurrence of `from` replaced.
std::string with(const std::string& from, const std::string& to) {
  std::string text = kGood;
  const auto at = text.find(from);
  REQUIRE(at != std::string::npos);
  return text.replace(at, from.size(), to);
}

/// Valid policies and what makes them invalid: read by tests/check/schema too.
nlohmann::json broken_policies() {
  return nlohmann::json::parse(read_file("tests/fixtures/policies/broken.json", policy::kMaxBytes).value());
}

/// `count` elements that `make` gives, as the inside of a JSON array.
template <typename Make>
std::string elements(int count, Make make) {
  std::string text;
  for (int i = 0; i < count; ++i) text += (i == 0 ? "" : ",") + make(i);
  return text;
}

std::string service_text(int i) {
  return fmt::format(R"({{"name": "s{}", "protocol": "udp", "port": {}, "class": "rpc", "path": "kernel"}})",
                     i, i + 10000);
}

std::string services_text(int count) {
  return fmt::format(R"({{"version": 1, "name": "p", "services": [{}]}})", elements(count, service_text));
}

/// A tenant's prefixes from 10.0.0.0/32 on.
std::string prefixes_text(int count) {
  const std::string prefixes = elements(
      count, [](int i) { return fmt::format("\"10.{}.{}.{}/32\"", i >> 16, i >> 8 & 255, i & 255); });
  return fmt::format(
      R"({{"version": 1, "name": "p", "services": [{}], "tenants": [{{"name": "t", "prefixes": [{}]}}]}})",
      elements(10000, service_text), prefixes);
}

struct Broken {
  const char* what;
  std::string text;
  std::string message;  ///< of the error, its beginning
};

}  // namespace

TEST_CASE("policy: services and control ports are read with what they leave out") {
  const auto policy = policy::parse(kGood, "p.json");
  REQUIRE(policy);
  CHECK(policy->name == "p");
  CHECK_FALSE(policy->faces_workload);
  CHECK(policy->link_rate_bps == 0);
  REQUIRE(policy->services.size() == 2);
  CHECK(policy->services[1].name == "b");
  CHECK(policy->services[1].tenant.empty());
  CHECK(policy->services[1].port == 9001);
  CHECK(policy->services[1].protocol == IPPROTO_UDP);
  CHECK(policy->services[1].role == ANIC_ROLE_SERVER);
  CHECK(policy->services[1].cls == ANIC_CLASS_BULK);
  CHECK(policy->services[1].path == ANIC_PATH_XSK);
  REQUIRE(policy->control.size() == 1);
  CHECK(policy->control[0].protocol == IPPROTO_TCP);
  CHECK(policy->control[0].port == 22);
  CHECK(policy->control[0].role == ANIC_ROLE_SERVER);
  CHECK(policy->needs_xsk());
  CHECK_FALSE(policy->fallback.keeps_paths);
}

TEST_CASE("policy: all but version, name and services may be left out") {
  const auto policy = policy::parse(R"({"version": 1, "name": "p", "services": []})", "p.json");
  REQUIRE(policy);
  CHECK(policy->control.empty());
  CHECK(policy->tenants.empty());
  CHECK_FALSE(policy->needs_xsk());
}

TEST_CASE("policy: every key of the language is read") {
  const auto policy = policy::parse(broken_policies()["base"].dump(), "base");
  REQUIRE(policy);
  CHECK(policy->link_rate_bps == 10'000'000'000);
  CHECK(policy->control_alarm == 5000);
  CHECK(policy->classes[ANIC_CLASS_RPC].slo_ns == 500'000);
  CHECK(policy->classes[ANIC_CLASS_RPC].floor_percent == 40);
  CHECK(policy->classes[ANIC_CLASS_RPC].weight == 400);
  CHECK(policy->classes[ANIC_CLASS_RPC].egress.priority == 15);
  CHECK(policy->classes[ANIC_CLASS_RPC].egress.queue == 254);
  CHECK(policy->classes[ANIC_CLASS_RPC].egress.dscp == 0);
  CHECK_FALSE(policy->classes[ANIC_CLASS_BULK].egress.dscp);
  CHECK(policy->classes[ANIC_CLASS_BULK].cpus == std::vector<std::uint16_t>{2, 3});
  CHECK(policy->steers());
  CHECK_FALSE(policy->classes[ANIC_CLASS_BULK].slo_ns);
  REQUIRE(policy->tenants.size() == 2);
  const policy::Tenant& acme = policy->tenants[0];
  REQUIRE(acme.remotes.size() == 2);
  CHECK(policy::prefix_text(acme.remotes[0]) == "10.1.0.0/16");
  CHECK(policy::prefix_text(acme.remotes[1]) == "2001:db8:1::/48");
  REQUIRE(acme.locals.size() == 1);
  CHECK(policy::prefix_text(acme.locals[0]) == "192.0.2.10/32");
  CHECK(acme.cgroups == std::vector<std::string>{"agents/acme"});
  CHECK(acme.marks == std::vector<std::uint32_t>{7});
  CHECK(acme.default_class == ANIC_CLASS_RPC);
  CHECK(acme.budget.minimum_bps == 2'000'000'000);
  CHECK(acme.budget.ceiling_bps == 8'000'000'000);
  CHECK(acme.budget.bulk_bps == 4'000'000'000);
  CHECK(acme.budget.weight == 200);
  CHECK(policy->tenants[1].default_class == ANIC_CLASS_DEFAULT);
  CHECK(policy->tenants[1].budget.weight == policy::kDefaultWeight);
  CHECK(policy->services[0].role == ANIC_ROLE_BOTH);
  CHECK(policy->services[0].owner_name == "gate.way-1");
  CHECK(policy->services[0].owner == ANIC_NO_OWNER);
  CHECK(policy->services[1].tenant == "acme");
  REQUIRE(policy->dscp.size() == 1);
  CHECK(policy->dscp[0].value == 46);
  CHECK(policy->dscp[0].cls == ANIC_CLASS_RPC);
  CHECK(policy->control[0].role == ANIC_ROLE_BOTH);
  CHECK(policy->management[0].port == 22);
  CHECK(policy->fallback.keeps_paths);
  CHECK(policy->fallback.weights[ANIC_CLASS_BULK] == 1);
  CHECK(policy->fallback.weights[ANIC_CLASS_RPC] == 0);
}

TEST_CASE("policy: every key of the guardian and of agents is read") {
  const auto policy = policy::parse(broken_policies()["base"].dump(), "base");
  REQUIRE(policy);
  constexpr anic_envelope kStated = {.tick_ns = 5'000'000,
                                     .heartbeat_ns = 2'000'000'000,
                                     .duration_ns = 30'000'000'000,
                                     .oscillation_ns = 5'000'000'000,
                                     .instability_ns = 20'000'000'000,
                                     .cool_down_ns = 10'000'000'000,
                                     .slo_interval_ns = 100'000'000,
                                     .borrow_max_bps = 2'000'000'000,
                                     .borrow_step_bps = 500'000'000,
                                     .weight_min = 10,
                                     .weight_max = 500,
                                     .weight_step = 50,
                                     .throttle_percent = 25,
                                     .changes_of_tenant = 5,
                                     .changes = 20,
                                     .actions = 4,
                                     .flips = 1,
                                     .rejections = 32,
                                     .instabilities = 2,
                                     .slo_percent = 1,
                                     .slo_samples = 50,
                                     .protects = 0,
                                     ._pad = 0};
  CHECK(policy->envelope == kStated);
  REQUIRE(policy->agents.size() == 2);
  const policy::Agent& tuner = policy->agents[0];
  CHECK(tuner.name == "tuner");
  CHECK(tuner.tenants == std::vector<std::string>{"beta", "acme"});
  CHECK(tuner.kinds == 0b1111110);
  CHECK(tuner.classes == (1U << ANIC_CLASS_RPC | 1U << ANIC_CLASS_BULK));
  CHECK(tuner.paths == (1U << ANIC_PATH_KERNEL | 1U << ANIC_PATH_XSK));
  const policy::Agent& lender = policy->agents[1];
  CHECK(lender.tenants == std::vector<std::string>{"acme"});
  CHECK(lender.kinds == 1U << ANIC_CHANGE_QUOTA_BORROW);
  CHECK(lender.classes == 0b111100);
  CHECK(lender.paths == 0);
}

TEST_CASE("policy: what the guardian is not told has its default, at every level") {
  const auto envelope = [](const std::string& guardian) {
    const auto policy = policy::parse(with("\"control\"", guardian + "\"control\""), "p");
    REQUIRE(policy);
    return policy->envelope;
  };
  constexpr anic_envelope kDefaults = {.tick_ns = 10'000'000,
                                       .heartbeat_ns = 1'000'000'000,
                                       .duration_ns = 60'000'000'000,
                                       .oscillation_ns = 10'000'000'000,
                                       .instability_ns = 60'000'000'000,
                                       .cool_down_ns = 30'000'000'000,
                                       .slo_interval_ns = 200'000'000,
                                       .borrow_max_bps = 0,
                                       .borrow_step_bps = 0,
                                       .weight_min = 1,
                                       .weight_max = 1000,
                                       .weight_step = 100,
                                       .throttle_percent = 50,
                                       .changes_of_tenant = 10,
                                       .changes = 50,
                                       .actions = 8,
                                       .flips = 2,
                                       .rejections = 64,
                                       .instabilities = 3,
                                       .slo_percent = 5,
                                       .slo_samples = 20,
                                       .protects = 1,
                                       ._pad = 0};
  CHECK(envelope("") == kDefaults);
  CHECK(envelope(R"("guardian": {}, )") == kDefaults);
  CHECK(envelope(R"("guardian": {"oscillation": {}, "instability": {}, "slo": {}, "weight": {}, "borrow": {},
                                 "changes": {}}, )") == kDefaults);
  anic_envelope expected = kDefaults;
  expected.weight_max = 200;
  expected.flips = 0;
  CHECK(envelope(R"("guardian": {"weight": {"maximum": 200}, "oscillation": {"flips": 0}}, )") == expected);
  const anic_envelope lends =
      envelope(R"("link_rate": "1Gbit", "guardian": {"borrow": {"maximum": "1Gbit"}}, )");
  CHECK(lends.borrow_max_bps == 1'000'000'000);
  CHECK(lends.borrow_step_bps == 1'000'000'000);
}

TEST_CASE("policy: a tenant's classes go over the policy's key by key") {
  policy::Policy policy;
  policy.classes[ANIC_CLASS_RPC] = {
      .slo_ns = 500, .floor_percent = 40, .weight = {}, .egress = {}, .cpus = {{4, 5}}};
  policy::Tenant tenant;
  tenant.classes[ANIC_CLASS_RPC] = {
      .slo_ns = {}, .floor_percent = 0, .weight = 7, .egress = {}, .cpus = {{}}};
  const policy::Terms own = policy.terms(&tenant, ANIC_CLASS_RPC);
  CHECK(own.slo_ns == 500);
  CHECK(own.floor_percent == 0);
  CHECK(own.weight == 7);
  CHECK(own.cpus.empty());
  const policy::Terms common = policy.terms(nullptr, ANIC_CLASS_RPC);
  CHECK(common.floor_percent == 40);
  CHECK(common.cpus == std::vector<std::uint16_t>{4, 5});
  CHECK(common.weight == policy::kDefaultWeight);
}

TEST_CASE("policy: white space and the order of keys do not change the digest, values do") {
  const auto digest = [](const std::string& text) { return policy::parse(text, "p").value().digest; };
  CHECK(digest(R"({"version":1,"name":"p","services":[]})") ==
        digest(R"({ "services": [], "name": "p", "version": 1 })"));
  CHECK(digest(R"({"version":1,"name":"p","services":[]})") !=
        digest(R"({"version":1,"name":"q","services":[]})"));
}

TEST_CASE("policy: an owner is a user's name, which need not be known here, or any uid") {
  const auto service = [](const std::string& owner) {
    return policy::parse(with("\"xsk\"", "\"xsk\"" + owner), "p").value().services[1];
  };
  CHECK(service("").owner_name.empty());
  CHECK(service("").owner == ANIC_NO_OWNER);
  CHECK(service(R"(, "owner": "no.such_User@example-1")").owner_name == "no.such_User@example-1");
  CHECK(service(R"(, "owner": 0)").owner == 0);
  CHECK(service(R"(, "owner": 4294967294)").owner == 4294967294);
  CHECK(service(R"(, "owner": 1000)").owner_name.empty());
}

TEST_CASE("policy: each broken policy is refused with its places") {
  const nlohmann::json table = broken_policies();
  REQUIRE(policy::parse(table["base"].dump(), "base"));
  REQUIRE(table["cases"].size() > 100);
  for (const nlohmann::json& one : table["cases"]) {
    INFO(one["what"]);
    nlohmann::json document = table["base"];
    document.merge_patch(one["merge"]);
    const auto policy = policy::parse(document.dump(), "p");
    REQUIRE_FALSE(policy);
    CHECK(policy.error().exit == Exit::BadInput);
    CHECK(policy.error().text() == "p: " + one["error"].get<std::string>());
    CHECK(policy.error().text().find_first_of("\n\a") == std::string::npos);
  }
}

TEST_CASE("policy: what only the text shows is refused with its place") {
  const Broken cases[] = {
      {"port beyond 64 bits", with("9001", "18446744073709551616"),
       "p.json: /services/1/port: 1.8446744073709552e+19 is not a whole number from 1 to 65535"},
      {"key twice", with("\"name\": \"b\"", "\"name\": \"b\", \"name\": \"c\""),
       "p.json: /services/1/name: this key stands twice; hint: keep one of them"},
      {"key twice at the top", with("\"name\": \"p\"", "\"name\": \"p\", \"name\": \"p\""),
       "p.json: /name: this key stands twice; hint: keep one of them"},
      {"key twice, spelt in two ways", with("\"name\": \"p\"", "\"name\": \"p\", \"n\\u0061me\": \"p\""),
       "p.json: /name: this key stands twice; hint: keep one of them"},
      {"the document not an object", "[]", "p.json: /: an object belongs here, not array"},
      {"too deep", "{\"version\": " + std::string(100, '['),
       "p.json: /version/0/0/0/0/0/0/0/0/0/0/0/0/0/0/0: nested more than 16 levels deep"},
      {"a number beyond all numbers", with("9001", "1e999"), "p.json: number overflow parsing '1e999'"},
      {"a comment", with("\"control\"", "// no\n\"control\""), "p.json: parse error at line 4, column 3: "},
      {"half of an UTF-8 character", with("\"b\"", "\"\xc3\""), "p.json: parse error at line 3, column "},
      {"two documents", kGood + kGood, "p.json: parse error at line 4, column "},
      {"a text without end", "{\"" + std::string(100000, 'x'),
       "p.json: parse error at line 1, column 100003: "},
  };
  for (const Broken& one : cases) {
    INFO(one.what);
    const auto policy = policy::parse(one.text, "p.json");
    REQUIRE_FALSE(policy);
    CHECK(policy.error().exit == Exit::BadInput);
    CHECK(policy.error().text().substr(0, one.message.size()) == one.message);
    CHECK(policy.error().text().find_first_of("\n\a") == std::string::npos);
    CHECK(policy.error().text().size() < 400);
  }
}

TEST_CASE("policy: every truncation of a good one is refused with a line and a column") {
  for (std::size_t length = 0; length < kGood.size(); ++length) {
    INFO(length);
    const auto policy = policy::parse(kGood.substr(0, length), "p.json");
    REQUIRE_FALSE(policy);
    CHECK(policy.error().exit == Exit::BadInput);
    CHECK(policy.error().what.find("line ") != std::string::npos);
  }
}

TEST_CASE("policy: garbage in any place is refused or changes a value, and never more") {
  for (std::size_t at = 0; at < kGood.size(); ++at) {
    for (const char byte : {'\0', '"', '{', ']', ',', '7', '\xff'}) {
      std::string text = kGood;
      text[at] = byte;
      const auto policy = policy::parse(text, "p.json");
      if (!policy) CHECK(policy.error().exit == Exit::BadInput);
    }
  }
}

TEST_CASE("policy: 10239 services fit, 10240 do not") {
  CHECK(policy::parse(services_text(10239), "p"));
  const auto over = policy::parse(services_text(10240), "p");
  REQUIRE_FALSE(over);
  CHECK(over.error().what == "p: /services/10239: more than 10239 services");
}

TEST_CASE("policy: 64 tenants fit, 65 do not") {
  const auto document = [](int count) {
    return fmt::format(
        R"({{"version": 1, "name": "p", "services": [], "tenants": [{}]}})",
        elements(count, [](int i) { return fmt::format(R"({{"name": "t{}", "marks": [{}]}})", i, i + 1); }));
  };
  CHECK(policy::parse(document(64), "p"));
  const auto over = policy::parse(document(65), "p");
  REQUIRE_FALSE(over);
  CHECK(over.error().what == "p: /tenants/64: more than 64 tenants");
}

TEST_CASE("policy: 262144 prefixes fit, one more does not") {
  const auto full = policy::parse(prefixes_text(262144), "p");
  REQUIRE(full);
  CHECK(full->tenants[0].remotes.size() == 262144);
  const auto over = policy::parse(prefixes_text(262145), "p");
  REQUIRE_FALSE(over);
  CHECK(over.error().what == "p: /tenants/0: more than 262144 prefixes, with those of the tenants before it");
}

TEST_CASE("policy: the largest values of every limit fit") {
  const auto fits = [](const std::string& more) {
    return policy::parse(with("\"control\"", more + ", \"control\""), "p").has_value();
  };
  CHECK(fits(R"("link_rate": "10Tbit")"));
  CHECK(fits(R"("control_alarm": 4294967295)"));
  CHECK(fits(R"("classes": {"bulk": {"floor": 100, "weight": 1000, "slo": "60s"}})"));
  CHECK(fits(R"("tenants": [{"name": "t", "marks": [1, 4294967295]}])"));
  CHECK(fits(R"("tenants": [{"name": "t", "cgroups": ["a/b/c/d/e/f/g/h/i/j/k/l/m/n/o/p", "a b/..."]}])"));
  CHECK(fits(R"("dscp": [{"value": 0, "class": "bulk"}, {"value": 63, "class": "rpc"}])"));
  CHECK(fits(fmt::format(R"("tenants": [{{"name": "{}", "marks": [1]}}])", std::string(31, 'x'))));
  CHECK(fits(R"("guardian": {"tick": "100ms", "heartbeat": "60s", "time_limit": "60s",
    "oscillation": {"window": "60s", "flips": 1000}, "instability": {"window": "60s", "count": 1000},
    "cool_down": "60s", "rejections": 1000000, "slo": {"interval": "60s", "over": 100, "samples": 1000000},
    "weight": {"minimum": 1000, "maximum": 1000, "step": 1000}, "throttle_step": 100,
    "changes": {"tenant": 10000000, "total": 10000000}, "actions": 16})"));
  CHECK(fits(R"("link_rate": "1Gbit", "guardian": {"tick": "1ms", "heartbeat": "100ms", "time_limit": "1s",
    "oscillation": {"window": "1us", "flips": 0}, "instability": {"window": "1s", "count": 1},
    "cool_down": "100ms", "rejections": 1, "slo": {"interval": "10ms", "over": 0, "samples": 1},
    "weight": {"minimum": 1, "maximum": 1, "step": 1}, "throttle_step": 1,
    "borrow": {"maximum": "1bit", "step": "1bit"}, "changes": {"tenant": 1, "total": 1}, "actions": 1})"));
  const auto agent = [](int i) {
    return fmt::format(R"({{"name": "a{}", "tenants": ["t"], "kinds": ["quota_borrow"], "classes": []}})", i);
  };
  CHECK(fits(R"("tenants": [{"name": "t", "marks": [1]}], "agents": [)" + elements(16, agent) + "]"));
  CHECK(fits(R"("link_rate": "3Gbit", "tenants": [
    {"name": "t", "marks": [1], "budget": {"minimum": "1Gbit", "ceiling": "1Gbit", "bulk": "1Gbit"}},
    {"name": "u", "marks": [2], "budget": {"minimum": "2Gbit", "ceiling": "3Gbit"}}])"));
}

TEST_CASE("policy: places that do not overlap stand side by side") {
  const auto fits = [](const std::string& more) {
    return policy::parse(with("\"control\"", more + ", \"control\""), "p").has_value();
  };
  // A prefix inside another; one address as remote and as local; everything, and all of IPv4.
  CHECK(fits(R"("tenants": [{"name": "t", "prefixes": ["10.0.0.0/8", "::/0"], "local": ["10.0.0.0/8"]},
                            {"name": "u", "prefixes": ["10.1.0.0/16", "0.0.0.0/0"]}])"));
  CHECK(fits(R"("management": [{"protocol": "tcp", "port": 22, "role": "client"},
                               {"protocol": "udp", "port": 22}])"));
  // The other end of a port, the other protocol, one tenant's beside any tenant's.
  CHECK(policy::parse(with("\"udp\", \"port\": 9001", "\"udp\", \"role\": \"client\", \"port\": 9000"), "p"));
  CHECK(policy::parse(with("\"port\": 9001", "\"tenant\": \"t\", \"port\": 9000"), "p").error().what ==
        "p: /services/1/tenant: t is not a tenant of /tenants");
  CHECK(policy::parse(with("\"control\"", R"("tenants": [{"name": "t", "marks": [1]}], "control")")
                          .replace(kGood.find("\"port\": 9001"), 12, "\"tenant\": \"t\", \"port\": 9000"),
                      "p"));
}

TEST_CASE("policy: a file that is missing, a folder or too large is bad input") {
  for (const char* path : {"/nonexistent.json", "/tmp", "/proc/self/nosuch"}) {
    INFO(path);
    const auto policy = policy::load(path);
    REQUIRE_FALSE(policy);
    CHECK(policy.error().exit == Exit::BadInput);
    CHECK(policy.error().what.find(path) != std::string::npos);
  }
  // Over the limit by one byte of white space.
  const std::string path = fmt::format("/tmp/agentnic-policy-test.{}", ::getpid());
  for (const std::size_t size : {policy::kMaxBytes, policy::kMaxBytes + 1}) {
    REQUIRE(write_file(path, kGood + std::string(size - kGood.size(), ' ')));
    const auto policy = policy::load(path);
    CHECK(policy.has_value() == (size == policy::kMaxBytes));
    if (!policy) CHECK(policy.error().what.find("larger than 16777216 bytes") != std::string::npos);
  }
  ::unlink(path.c_str());
}

TEST_CASE("policy: the examples are good") {
  std::size_t count = 0;
  for (const std::string& name : list_folder("policies")) {
    INFO(name);
    if (name.ends_with(".schema.json")) continue;
    const auto policy = policy::load("policies/" + name);
    REQUIRE(policy);
    CHECK(policy->name + ".json" == name);
    ++count;
  }
  CHECK(count >= 4);
}

TEST_CASE("policy: rates and durations") {
  const std::pair<const char*, std::uint64_t> rates[] = {{"1bit", 1},
                                                         {"9.6Kbit", 9600},
                                                         {"800Mbit", 800'000'000},
                                                         {"2.5Gbit", 2'500'000'000},
                                                         {"1.000000001Gbit", 1'000'000'001},
                                                         {"10Tbit", policy::kMaxRate}};
  for (const auto& [text, bps] : rates) {
    CHECK(policy::parse_rate(text).value() == bps);
    CHECK(policy::rate_text(bps) == text);
  }
  CHECK(policy::parse_rate("9600bit").value() == 9600);
  CHECK(policy::parse_rate("0.5Kbit").value() == 500);
  CHECK(policy::parse_rate("2.500Gbit").value() == 2'500'000'000);
  CHECK(policy::parse_rate("1.0bit").value() == 1);
  CHECK(policy::parse_rate("10000000000000bit").value() == policy::kMaxRate);
  CHECK_FALSE(policy::parse_rate("10000000000001bit"));
  CHECK_FALSE(policy::parse_rate(std::string_view("1Gbit\0", 6)));

  const std::pair<const char*, std::uint64_t> durations[] = {{"250ns", 250},
                                                             {"1.5ms", 1'500'000},
                                                             {"500us", 500'000},
                                                             {"2s", 2'000'000'000},
                                                             {"60s", policy::kMaxDuration}};
  for (const auto& [text, ns] : durations) {
    CHECK(policy::parse_duration(text).value() == ns);
    CHECK(policy::duration_text(ns) == text);
  }
  CHECK_FALSE(policy::parse_duration("61s"));
  CHECK(policy::parse_time("86400s").value() == policy::kDay);
  CHECK_FALSE(policy::parse_time("86401s"));
  CHECK_FALSE(policy::parse_duration("1.0000000001s"));
}

TEST_CASE("policy: prefixes are one way in and one way out") {
  const std::pair<const char*, const char*> cases[] = {
      {"10.0.0.0/8", "10.0.0.0/8"},       {"10.1.2.3", "10.1.2.3/32"},
      {"0.0.0.0/0", "0.0.0.0/0"},         {"::/0", "::/0"},
      {"2001:DB8::/32", "2001:db8::/32"}, {"2001:db8::1", "2001:db8::1/128"},
      {"::ffff:0:0/96", "0.0.0.0/0"},     {"::ffff:10.0.0.0/104", "10.0.0.0/8"},
      {"::ffff:0:0/95", "::fffe:0:0/95"}};
  for (const auto& [text, canonical] : cases) {
    INFO(text);
    const auto prefix = policy::parse_prefix(text);
    if (std::string_view(text) == "::ffff:0:0/95") {
      CHECK(prefix.error().hint == fmt::format("the prefix of this length is \"{}\"", canonical));
      continue;
    }
    REQUIRE(prefix);
    CHECK(policy::prefix_text(*prefix) == canonical);
    CHECK(*policy::parse_prefix(canonical) == *prefix);
  }
  CHECK(policy::parse_prefix("10.0.0.0/8")->length == ANIC_PREFIX_IPV4_BITS + 8);
  CHECK(policy::parse_prefix("10.0.0.0/8")->address_be[0] == htonl(ANIC_PREFIX_IPV4));
  CHECK(policy::parse_prefix("10.0.0.0/8")->address_be[1] == htonl(0x0a000000));
  CHECK_FALSE(policy::parse_prefix(std::string_view("10.0.0.0\0", 9)));
  CHECK_FALSE(policy::parse_prefix("10.0.0.0/8/8"));
  CHECK_FALSE(policy::parse_prefix("10.0.0.0/+8"));
  CHECK_FALSE(policy::parse_prefix("10.0.0.0/4294967304"));
  CHECK(*policy::parse_prefix("9.0.0.0/8") < *policy::parse_prefix("10.0.0.0/8"));
  CHECK(*policy::parse_prefix("10.0.0.0/8") < *policy::parse_prefix("10.0.0.0/9"));
}
