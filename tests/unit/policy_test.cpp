// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>
#include <netinet/in.h>

#include <catch2/catch_test_macros.hpp>
#include <string>

#include "policy/compile.hpp"
#include "policy/parse.hpp"

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

struct Broken {
  const char* what;
  std::string text;
  std::string message;  ///< of the error, whole
};

}  // namespace

TEST_CASE("policy: a good one is read whole") {
  const auto policy = policy::parse(kGood, "p.json");
  REQUIRE(policy);
  CHECK(policy->name == "p");
  REQUIRE(policy->services.size() == 2);
  CHECK(policy->services[1].name == "b");
  CHECK(policy->services[1].port == 9001);
  CHECK(policy->services[1].protocol == IPPROTO_UDP);
  CHECK(policy->services[1].cls == ANIC_CLASS_BULK);
  CHECK(policy->services[1].path == ANIC_PATH_XSK);
  REQUIRE(policy->control.size() == 1);
  CHECK(policy->control[0].protocol == IPPROTO_TCP);
  CHECK(policy->control[0].port == 22);
  CHECK(policy->needs_xsk());
}

TEST_CASE("policy: control traffic may be left out") {
  const auto policy = policy::parse(R"({"version": 1, "name": "p", "services": []})", "p.json");
  REQUIRE(policy);
  CHECK(policy->control.empty());
  CHECK_FALSE(policy->needs_xsk());
}

TEST_CASE("policy: white space and the order of keys do not change the digest, values do") {
  const auto digest = [](const std::string& text) { return policy::parse(text, "p").value().digest; };
  CHECK(digest(R"({"version":1,"name":"p","services":[]})") ==
        digest(R"({ "services": [], "name": "p", "version": 1 })"));
  CHECK(digest(R"({"version":1,"name":"p","services":[]})") !=
        digest(R"({"version":1,"name":"q","services":[]})"));
}

TEST_CASE("policy: each fault is told once, with its JSON pointer") {
  const std::string nested(100, '[');
  const Broken cases[] = {
      {"unknown key", with("\"path\": \"xsk\"", "\"path\": \"xsk\", \"prio\": 1"),
       "p.json: /services/1/prio: unknown key; hint: known here: name, protocol, port, class, path"},
      {"unknown key at the top", with("\"control\"", "\"kontrol\""),
       "p.json: /kontrol: unknown key; hint: known here: version, name, services, control"},
      {"port too large", with("9001", "70000"),
       "p.json: /services/1/port: 70000 is not a whole number from 1 to 65535"},
      {"port zero", with("9001", "0"), "p.json: /services/1/port: 0 is not a whole number from 1 to 65535"},
      {"port negative", with("9001", "-1"),
       "p.json: /services/1/port: -1 is not a whole number from 1 to 65535"},
      {"port a fraction", with("9001", "9001.5"),
       "p.json: /services/1/port: 9001.5 is not a whole number from 1 to 65535"},
      {"port a string", with("9001", "\"9001\""),
       "p.json: /services/1/port: \"9001\" is not a whole number from 1 to 65535"},
      {"port beyond 64 bits", with("9001", "18446744073709551616"),
       "p.json: /services/1/port: 1.8446744073709552e+19 is not a whole number from 1 to 65535"},
      {"port of control traffic", with("22", "65536"),
       "p.json: /control/0/port: 65536 is not a whole number from 1 to 65535"},
      {"duplicate name", with("\"b\"", "\"a\""),
       "p.json: /services/1/name: the name a is taken by /services/0/name"},
      {"duplicate port", with("9001", "9000"),
       "p.json: /services/1/port: udp port 9000 is taken by /services/0/port"},
      {"service on a control port", with("\"udp\", \"port\": 9000", "\"tcp\", \"port\": 22"),
       "p.json: /services/0/port: tcp port 22 is taken by /control/0/port"},
      {"missing key", with("\"class\": \"bulk\", ", ""), "p.json: /services/1: the key \"class\" is missing"},
      {"missing services", R"({"version": 1, "name": "p"})", "p.json: /: the key \"services\" is missing"},
      {"unknown class", with("\"bulk\"", "\"gold\""),
       "p.json: /services/1/class: \"gold\" is not known here; hint: one of: default, rpc, retrieval, bulk"},
      {"unknown path", with("\"xsk\"", "\"rdma\""),
       "p.json: /services/1/path: \"rdma\" is not known here; hint: one of: kernel, xsk"},
      {"unknown protocol", with("\"udp\"", "\"sctp\""),
       "p.json: /services/0/protocol: \"sctp\" is not known here; hint: one of: udp, tcp"},
      {"tcp over xsk", with("\"udp\", \"port\": 9001", "\"tcp\", \"port\": 9001"),
       "p.json: /services/1/path: path xsk carries udp only; hint: a tcp service belongs on path kernel: an "
       "AF_XDP socket has no TCP"},
      {"bad name", with("\"b\"", "\"B b\""),
       "p.json: /services/1/name: \"B b\" is not a name; hint: 1 to 31 of a-z 0-9 - _ ."},
      {"name too long", with("\"b\"", fmt::format("\"{}\"", std::string(32, 'x'))),
       fmt::format("p.json: /services/1/name: \"{}\" is not a name; hint: 1 to 31 of a-z 0-9 - _ .",
                   std::string(32, 'x'))},
      {"empty name", with("\"b\"", "\"\""),
       "p.json: /services/1/name: \"\" is not a name; hint: 1 to 31 of a-z 0-9 - _ ."},
      {"key twice", with("\"name\": \"b\"", "\"name\": \"b\", \"name\": \"c\""),
       "p.json: /services/1/name: this key stands twice; hint: keep one of them"},
      {"key twice at the top", with("\"name\": \"p\"", "\"name\": \"p\", \"name\": \"p\""),
       "p.json: /name: this key stands twice; hint: keep one of them"},
      {"other version", with("\"version\": 1", "\"version\": 2"),
       "p.json: /version: 2 is not a whole number from 1 to 1"},
      {"services not a list", R"({"version": 1, "name": "p", "services": {}})",
       "p.json: /services: an array belongs here, not object"},
      {"service not an object", R"({"version": 1, "name": "p", "services": [7]})",
       "p.json: /services/0: an object belongs here, not number"},
      {"the document not an object", "[]", "p.json: /: an object belongs here, not array"},
      {"too deep", R"({"version": )" + nested, "p.json: "},
      {"a number beyond all numbers", with("9001", "1e999"), "p.json: number overflow parsing '1e999'"},
      {"control characters in a key", "{\"a\\u0007\": 1}", "p.json: /a\\u0007: unknown key"},
  };
  for (const Broken& one : cases) {
    INFO(one.what << ": " << one.text);
    const auto policy = policy::parse(one.text, "p.json");
    REQUIRE_FALSE(policy);
    CHECK(policy.error().exit == Exit::BadInput);
    CHECK(policy.error().text().substr(0, one.message.size()) == one.message);
    CHECK(policy.error().text().find('\n') == std::string::npos);
    CHECK(policy.error().text().find('\a') == std::string::npos);
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

TEST_CASE("policy: 255 services fit, 256 do not") {
  const auto document = [](int count) {
    std::string services;
    for (int i = 0; i < count; ++i) {
      services += fmt::format(
          "{}{{\"name\": \"s{}\", \"protocol\": \"udp\", \"port\": {}, \"class\": \"rpc\", \"path\": "
          "\"kernel\"}}",
          i ? "," : "", i, i + 1);
    }
    return fmt::format(R"({{"version": 1, "name": "p", "services": [{}]}})", services);
  };
  CHECK(policy::parse(document(255), "p"));
  const auto over = policy::parse(document(256), "p");
  REQUIRE_FALSE(over);
  CHECK(over.error().what == "p: /services/255: more than 255 services");
}

TEST_CASE("policy: a file that is missing, a folder or too large is bad input") {
  for (const char* path : {"/nonexistent.json", "/tmp", "/proc/self/nosuch"}) {
    INFO(path);
    const auto policy = policy::load(path);
    REQUIRE_FALSE(policy);
    CHECK(policy.error().exit == Exit::BadInput);
    CHECK(policy.error().what.find(path) != std::string::npos);
  }
  const auto large = policy::load("/proc/self/exe");
  REQUIRE_FALSE(large);
  CHECK(large.error().what.find("larger than") != std::string::npos);
}

TEST_CASE("compile: services get ids from 1 in the order of the policy, control ports get none") {
  const auto tables = policy::compile(policy::parse(kGood, "p").value());
  REQUIRE(tables.services.size() == 2);
  CHECK(std::string(tables.services[1].name) == "b");
  REQUIRE(tables.ports.size() == 3);
  CHECK(tables.ports[0].first == ANIC_PORTS + 22);
  CHECK(tables.ports[0].second.cls == ANIC_CLASS_CONTROL);
  CHECK(tables.ports[0].second.service == 0);
  CHECK(tables.ports[2].first == 9001);
  CHECK(tables.ports[2].second.service == 2);
  CHECK(tables.ports[2].second.path == ANIC_PATH_XSK);
}
