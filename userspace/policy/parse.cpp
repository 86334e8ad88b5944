// SPDX-License-Identifier: Apache-2.0
#include "policy/parse.hpp"

#include <fmt/format.h>
#include <netinet/in.h>
#include <sodium.h>

#include <algorithm>
#include <array>
#include <functional>
#include <limits>
#include <utility>

#include "abi/flow.h"
#include "abi/lane.h"
#include "abi/steer.h"
#include "base/file.hpp"
#include "policy/json_reader.hpp"
#include "policy/parse_guardian.hpp"
#include "policy/prefix.hpp"
#include "policy/text.hpp"
#include "policy/units.hpp"
#include "policy/validate.hpp"

namespace agentnic::policy {
namespace {

template <std::size_t N>
using Words = std::array<std::string_view, N>;

constexpr Words<4> kClassWords = {"default", "rpc", "retrieval", "bulk"};  // in the order of kClasses

anic_class read_class(const ObjectReader& object, const char* key) {
  return kClasses[object.one_of(key, kClassWords)];
}

std::uint16_t read_weight(const ObjectReader& object, const char* key) {
  return static_cast<std::uint16_t>(object.integer(key, 1, ANIC_WEIGHT_MAX));
}

anic_role read_role(const ObjectReader& object) {
  constexpr Words<3> kWords = {"server", "client", "both"};
  if (!object.has("role")) return ANIC_ROLE_SERVER;
  return static_cast<anic_role>(ANIC_ROLE_SERVER + object.one_of("role", kWords));
}

std::uint8_t read_protocol(const ObjectReader& object) {
  constexpr Words<2> kWords = {"udp", "tcp"};
  return object.one_of("protocol", kWords) == 0 ? IPPROTO_UDP : IPPROTO_TCP;
}

std::uint16_t read_port(const ObjectReader& object) {
  return static_cast<std::uint16_t>(object.integer("port", 1, ANIC_PORTS - 1));
}

Marks read_marks(const Json& json, const Pointer& at) {
  constexpr Words<3> kKeys = {"priority", "queue", "dscp"};
  const ObjectReader object(json, at, kKeys);
  const auto read = [&](const char* key, std::int64_t high) -> std::optional<std::uint8_t> {
    if (!object.has(key)) return std::nullopt;
    return static_cast<std::uint8_t>(object.integer(key, 0, high));
  };
  return {.priority = read("priority", ANIC_PRIORITY_MAX),
          .queue = read("queue", ANIC_QUEUES_MAX - 2),
          .dscp = read("dscp", ANIC_DSCPS - 1)};
}

std::vector<std::uint16_t> read_cpus(const ObjectReader& object) {
  std::vector<std::uint16_t> cpus;
  object.each("cpus", [&](const Json& value, const Pointer& place) {
    const auto cpu = static_cast<std::uint16_t>(integer_at(value, place, 0, ANIC_CPUS_MAX - 1));
    if (std::ranges::find(cpus, cpu) != cpus.end())
      throw Fault{place.to_string(), fmt::format("CPU {} stands twice", cpu), ""};
    if (cpus.size() == ANIC_STEER_BUCKETS)
      throw Fault{place.to_string(), fmt::format("more than {} cpus", ANIC_STEER_BUCKETS), ""};
    cpus.push_back(cpu);
  });
  return cpus;
}

StatedTerms read_terms(const Json& json, const Pointer& at) {
  constexpr Words<5> kKeys = {"slo", "floor", "weight", "egress", "cpus"};
  const ObjectReader object(json, at, kKeys);
  StatedTerms terms;
  if (object.has("slo")) terms.slo_ns = parsed_at(object.need("slo"), object.at("slo"), parse_duration);
  if (object.has("floor")) terms.floor_percent = static_cast<std::uint16_t>(object.integer("floor", 0, 100));
  if (object.has("weight")) terms.weight = read_weight(object, "weight");
  if (object.has("cpus")) terms.cpus = read_cpus(object);
  if (object.has("egress")) terms.egress = read_marks(object.need("egress"), object.at("egress"));
  return terms;
}

ByClass<StatedTerms> read_classes(const ObjectReader& parent) {
  ByClass<StatedTerms> classes;
  if (!parent.has("classes")) return classes;
  const ObjectReader object(parent.need("classes"), parent.at("classes"), kClassWords);
  for (std::size_t i = 0; i < kClasses.size(); ++i) {
    const char* key = kClassWords[i].data();
    if (object.has(key)) classes[kClasses[i]] = read_terms(object.need(key), object.at(key));
  }
  return classes;
}

Budget read_budget(const Json& json, const Pointer& at) {
  constexpr Words<4> kKeys = {"minimum", "ceiling", "bulk", "weight"};
  const ObjectReader object(json, at, kKeys);
  const auto rate = [&](const char* key) {
    return object.has(key) ? parsed_at(object.need(key), object.at(key), parse_rate) : 0;
  };
  Budget budget{.minimum_bps = rate("minimum"), .ceiling_bps = rate("ceiling"), .bulk_bps = rate("bulk")};
  if (object.has("weight")) budget.weight = read_weight(object, "weight");
  return budget;
}

/// A path below the cgroup2 root, spelt in one way only.
Result<std::string> parse_cgroup(std::string_view text) {
  constexpr std::size_t kLongestName = 255;  // NAME_MAX
  std::size_t depth = 0;
  bool good = std::ranges::all_of(text, [](char c) { return c >= ' ' && c <= '~'; });
  for (std::size_t begin = 0; begin <= text.size(); ++depth) {
    const std::size_t end = std::min(text.find('/', begin), text.size());
    const std::string_view name = text.substr(begin, end - begin);
    good = good && !name.empty() && name != "." && name != ".." && name.size() <= kLongestName;
    begin = end + 1;
  }
  if (!good || depth > ANIC_CGROUP_DEPTH_MAX) {
    return fail(Exit::BadInput, fmt::format("{} is not the path of a cgroup", json_text(text)),
                fmt::format("1 to {} names below the root of cgroup2, such as \"agents/acme\"",
                            ANIC_CGROUP_DEPTH_MAX));
  }
  return std::string(text);
}

Tenant read_tenant(const Json& json, const Pointer& at) {
  constexpr Words<8> kKeys = {"name",  "prefixes",      "local",  "cgroups",
                              "marks", "default_class", "budget", "classes"};
  const ObjectReader object(json, at, kKeys);
  Tenant tenant;
  tenant.name = object.name("name");
  object.each("prefixes", [&](const Json& value, const Pointer& place) {
    tenant.remotes.push_back(parsed_at(value, place, parse_prefix));
  });
  object.each("local", [&](const Json& value, const Pointer& place) {
    tenant.locals.push_back(parsed_at(value, place, parse_prefix));
  });
  object.each("cgroups", [&](const Json& value, const Pointer& place) {
    tenant.cgroups.push_back(parsed_at(value, place, parse_cgroup));
  });
  object.each("marks", [&](const Json& value, const Pointer& place) {
    constexpr auto kMax = std::numeric_limits<std::uint32_t>::max();
    tenant.marks.push_back(static_cast<std::uint32_t>(integer_at(value, place, 1, kMax)));
  });
  if (tenant.remotes.empty() && tenant.locals.empty() && tenant.cgroups.empty() && tenant.marks.empty()) {
    throw Fault{at.to_string(), fmt::format("nothing says which traffic is that of tenant {}", tenant.name),
                "at least one of: prefixes, local, cgroups, marks"};
  }
  if (object.has("default_class")) tenant.default_class = read_class(object, "default_class");
  if (object.has("budget")) tenant.budget = read_budget(object.need("budget"), object.at("budget"));
  tenant.classes = read_classes(object);
  return tenant;
}

/// A user's name. A number is none: it would look like an id.
Result<std::string> parse_user(std::string_view text) {
  constexpr std::size_t kLongest = 255;  // LOGIN_NAME_MAX less its NUL
  const auto begins = [](char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_'; };
  const auto goes_on = [&](char c) {
    return begins(c) || (c >= '0' && c <= '9') || c == '.' || c == '@' || c == '-';
  };
  if (text.empty() || text.size() > kLongest || !begins(text.front()) ||
      !std::ranges::all_of(text, goes_on)) {
    return fail(Exit::BadInput, fmt::format("{} is not the name of a user", json_text(text)),
                "a name such as \"gateway\", or a uid without quotes");
  }
  return std::string(text);
}

void read_owner(const ObjectReader& object, Service& service) {
  const Json& owner = object.need("owner");
  const Pointer at = object.at("owner");
  if (service.path != ANIC_PATH_XSK) {
    throw Fault{at.to_string(), "only a service on path xsk has an owner",
                "leave it out: on path kernel the port is that of who binds a socket to it"};
  }
  if (owner.is_number()) {
    service.owner = static_cast<std::uint32_t>(integer_at(owner, at, 0, ANIC_NO_OWNER - 1));
  } else {
    service.owner_name = parsed_at(owner, at, parse_user);
  }
}

Service read_service(const Json& json, const Pointer& at) {
  constexpr Words<8> kKeys = {"name", "tenant", "protocol", "port", "role", "class", "path", "owner"};
  constexpr Words<2> kPathWords = {"kernel", "xsk"};
  const ObjectReader object(json, at, kKeys);
  Service service;
  service.name = object.name("name");
  if (object.has("tenant")) service.tenant = object.name("tenant");
  service.protocol = read_protocol(object);
  service.port = read_port(object);
  service.role = read_role(object);
  service.cls = read_class(object, "class");
  service.path = object.one_of("path", kPathWords) == 1 ? ANIC_PATH_XSK : ANIC_PATH_KERNEL;
  if (service.path == ANIC_PATH_XSK && service.protocol != IPPROTO_UDP) {
    throw Fault{object.at("path").to_string(), "path xsk carries udp only",
                "a tcp service belongs on path kernel: an AF_XDP socket has no TCP"};
  }
  if (service.protocol == IPPROTO_UDP && service.port == ANIC_ROCE_PORT) {
    throw Fault{object.at("port").to_string(), fmt::format("udp port {} is that of RoCEv2", ANIC_ROCE_PORT),
                "leave the service out: RoCEv2 is recognised without it, and counted as bulk"};
  }
  if (object.has("owner")) read_owner(object, service);
  return service;
}

ControlPort read_control(const Json& json, const Pointer& at) {
  constexpr Words<3> kKeys = {"protocol", "port", "role"};
  const ObjectReader object(json, at, kKeys);
  return {.protocol = read_protocol(object), .port = read_port(object), .role = read_role(object)};
}

DscpRule read_dscp(const Json& json, const Pointer& at) {
  constexpr Words<2> kKeys = {"value", "class"};
  const ObjectReader object(json, at, kKeys);
  return {.value = static_cast<std::uint8_t>(object.integer("value", 0, ANIC_DSCPS - 1)),
          .cls = read_class(object, "class")};
}

Fallback read_fallback(const Json& json, const Pointer& at) {
  constexpr Words<2> kKeys = {"path", "weights"};
  constexpr Words<2> kPathWords = {"kernel", "keep"};
  const ObjectReader object(json, at, kKeys);
  Fallback fallback;
  fallback.keeps_paths = object.has("path") && object.one_of("path", kPathWords) == 1;
  if (!object.has("weights")) return fallback;
  const ObjectReader weights(object.need("weights"), object.at("weights"), kClassWords);
  for (std::size_t i = 0; i < kClasses.size(); ++i) {
    const char* key = kClassWords[i].data();
    if (weights.has(key)) fallback.weights[kClasses[i]] = read_weight(weights, key);
  }
  return fallback;
}

Napi read_napi(const Json& json, const Pointer& at) {
  constexpr Words<4> kKeys = {"defer_hard_irqs", "gro_flush_timeout", "irq_suspend_timeout", "threaded"};
  const ObjectReader object(json, at, kKeys);
  Napi napi;
  if (object.has("defer_hard_irqs")) {
    constexpr auto kMax = std::numeric_limits<std::int32_t>::max();  // the kernel's
    napi[ANIC_NAPI_DEFER_HARD_IRQS] = static_cast<std::uint64_t>(object.integer("defer_hard_irqs", 0, kMax));
  }
  const auto read_time = [&](const char* key, anic_napi_setting setting) {
    if (object.has(key)) napi[setting] = parsed_at(object.need(key), object.at(key), parse_duration);
  };
  read_time("gro_flush_timeout", ANIC_NAPI_GRO_FLUSH_TIMEOUT);
  read_time("irq_suspend_timeout", ANIC_NAPI_IRQ_SUSPEND_TIMEOUT);
  if (object.has("irq_suspend_timeout") &&
      !(object.has("defer_hard_irqs") && object.has("gro_flush_timeout")))
    throw Fault{object.at("irq_suspend_timeout").to_string(), "it does nothing by itself",
                "defer_hard_irqs and gro_flush_timeout belong beside it"};
  if (object.has("threaded")) napi[ANIC_NAPI_THREADED] = object.boolean("threaded") ? 1 : 0;
  return napi;
}

/// Appends what `read` makes of each element at `key`; at most `max` of them.
template <typename T>
void read_list(const ObjectReader& object, const char* key, std::size_t max,
               T (*read)(const Json&, const Pointer&), std::vector<T>& list) {
  object.each(key, [&](const Json& value, const Pointer& at) {
    if (list.size() == max) throw Fault{at.to_string(), fmt::format("more than {} {}", max, key), ""};
    list.push_back(read(value, at));
  });
}

Policy read_policy(const Json& json) {
  constexpr Words<15> kKeys = {"version",       "name",     "faces",    "link_rate", "classes",
                               "tenants",       "services", "dscp",     "control",   "management",
                               "control_alarm", "fallback", "guardian", "agents",    "napi"};
  constexpr Words<2> kFaces = {"network", "workload"};
  constexpr std::size_t kNoLimit = std::numeric_limits<std::size_t>::max();
  const ObjectReader object(json, Pointer(), kKeys);
  object.integer("version", 1, 1);
  Policy policy;
  policy.name = object.name("name");
  policy.faces_workload = object.has("faces") && object.one_of("faces", kFaces) == 1;
  if (object.has("link_rate")) {
    policy.link_rate_bps = parsed_at(object.need("link_rate"), object.at("link_rate"), parse_rate);
  }
  policy.classes = read_classes(object);
  object.need("services");
  read_list(object, "tenants", ANIC_TENANTS_MAX - 1, read_tenant, policy.tenants);
  read_list(object, "services", ANIC_SERVICES_MAX - 1, read_service, policy.services);
  read_list(object, "dscp", kNoLimit, read_dscp, policy.dscp);
  read_list(object, "control", kNoLimit, read_control, policy.control);
  read_list(object, "management", kNoLimit, read_control, policy.management);
  if (object.has("control_alarm")) {
    constexpr auto kMax = std::numeric_limits<std::uint32_t>::max();
    policy.control_alarm = static_cast<std::uint32_t>(object.integer("control_alarm", 1, kMax));
  }
  if (object.has("fallback")) policy.fallback = read_fallback(object.need("fallback"), object.at("fallback"));
  if (object.has("guardian")) policy.envelope = read_guardian(object.need("guardian"), object.at("guardian"));
  read_list(object, "agents", ANIC_AGENTS_MAX - 1, read_agent, policy.agents);
  if (object.has("napi")) policy.napi = read_napi(object.need("napi"), object.at("napi"));
  return policy;
}

Digest digest_of(const Json& json) {
  Digest digest{};
  const std::string canonical = json.dump();
  crypto_hash_sha256(digest.data(), reinterpret_cast<const unsigned char*>(canonical.data()),
                     canonical.size());
  return digest;
}

}  // namespace

Result<Policy> parse(std::string_view text, const std::string& name) {
  try {
    const Json json = parse_json(text);
    Policy policy = read_policy(json);
    validate(policy);
    policy.digest = digest_of(json);
    return policy;
  } catch (const Fault& fault) {
    return fail(Exit::BadInput, fmt::format("{}: {}", name, fault.text()), fault.hint);
  }
}

Result<Policy> load(const std::string& path) {
  const std::string text = ANIC_TRY(read_file(path, kMaxBytes));
  return parse(text, path);
}

}  // namespace agentnic::policy
