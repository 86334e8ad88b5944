// SPDX-License-Identifier: Apache-2.0
#include "random.hpp"

#include <fmt/format.h>
#include <fmt/ranges.h>
#include <netinet/in.h>

#include <algorithm>
#include <array>
#include <set>
#include <tuple>
#include <utility>

#include "abi/stats.h"
#include "policy/prefix.hpp"

namespace agentnic::model {
namespace {

constexpr std::array kIpv4 = {"10.1.1.1", "10.1.1.2", "10.1.2.1", "10.2.1.1", "192.0.2.1", "0.0.0.0"};
constexpr std::array kIpv6 = {"2001:db8:1:1::1", "2001:db8:1:1::2", "2001:db8:1:2::1",
                              "2001:db8:2::1",   "fe80::1",         "::ffff:10.1.1.1"};
constexpr std::array kReserved = {"::1", "0:ffff:a01:101::", "0:ffff::1"};  // which no longer prefix has
constexpr std::array kIpv4Lengths = {0, 8, 15, 16, 24, 31, 32};
constexpr std::array kIpv6Lengths = {0, 16, 33, 48, 64, 96, 127, 128};
constexpr std::array<std::uint16_t, 8> kPorts = {22, 53, 179, 4791, 9000, 9001, 40000, 65535};
constexpr std::array<std::uint64_t, 5> kLinkRates = {64'000, 1'000'000, 10'000'000, 1'000'000'000,
                                                     400'000'000'000};
constexpr std::array<std::uint8_t, 4> kDscps = {0, 10, 46, 63};
constexpr std::array<std::uint8_t, 12> kExtensions = {0, 43, 44, 44, 44, 51, 60, 60, 135, 139, 140, 59};
constexpr std::array<std::uint8_t, 12> kIcmpTypes = {0, 3, 5, 8, 11, 12, 1, 4, 128, 133, 137, 138};
constexpr std::array<std::uint16_t, 6> kFragments = {0x2000, 0x00b9, 0x2001, 0x4000, 0x8000, 0x1fff};
constexpr std::array<std::uint16_t, 6> kIpv6Fragments = {0, 1, 8, 0x0501, 0xfff8, 6};
constexpr std::array<std::uint16_t, 3> kTpids = {0x8100, 0x88a8, 0x9100};
constexpr std::array<std::uint8_t, 6> kOtherProtocols = {1, 47, 50, 58, 132, 0};
constexpr std::uint16_t kRocePort = 4791;
constexpr std::size_t kShortFrame = 14;

/// The first `length` bits of an address.
anic_prefix masked(const char* address, unsigned length) {
  anic_prefix prefix = policy::parse_prefix(address).value();
  const bool is_ipv4 = prefix.address_be[0] == htonl(ANIC_PREFIX_IPV4);
  prefix.length = is_ipv4 ? ANIC_PREFIX_IPV4_BITS + std::min(length, 32U) : length;
  auto* bytes = reinterpret_cast<std::uint8_t*>(prefix.address_be);
  for (unsigned bit = prefix.length; bit < 128; ++bit)
    bytes[bit / 8] = static_cast<std::uint8_t>(bytes[bit / 8] & ~(0x80U >> bit % 8));
  return prefix;
}

}  // namespace

anic_prefix Random::prefix() {
  if (one_in(2)) return masked(kIpv4[below(kIpv4.size())], kIpv4Lengths[below(kIpv4Lengths.size())]);
  return masked(kIpv6[below(kIpv6.size())], kIpv6Lengths[below(kIpv6Lengths.size())]);
}

anic_class Random::any_class() { return policy::kClasses[below(policy::kClasses.size())]; }
std::uint8_t Random::protocol() { return one_in(2) ? IPPROTO_UDP : IPPROTO_TCP; }
std::uint16_t Random::port() { return kPorts[below(kPorts.size())]; }
anic_role Random::role() { return static_cast<anic_role>(ANIC_ROLE_SERVER + below(3)); }

void Random::add_tenants(policy::Policy& policy) {
  using Prefix = std::pair<std::string, std::uint32_t>;
  std::set<Prefix> remotes;
  std::set<Prefix> locals;
  std::set<std::uint32_t> marks;
  const auto add_prefix = [&](std::vector<anic_prefix>& list, std::set<Prefix>& taken) {
    const anic_prefix prefix = this->prefix();
    if (taken.emplace(policy::prefix_text(prefix), prefix.length).second) list.push_back(prefix);
  };
  const bool has_locals = one_in(2);
  const bool has_marks = one_in(2);
  for (std::uint32_t i = 0; i < 7; ++i) {
    if (one_in(3)) continue;
    policy::Tenant tenant;
    tenant.name = fmt::format("tenant-{}", i);
    tenant.default_class = any_class();
    for (std::uint32_t j = below(5); j > 0; --j) add_prefix(tenant.remotes, remotes);
    for (std::uint32_t j = has_locals ? below(3) : 0; j > 0; --j) add_prefix(tenant.locals, locals);
    const std::uint32_t mark = 1 + below(5);
    if (has_marks && marks.insert(mark).second) tenant.marks.push_back(mark);
    policy.tenants.push_back(std::move(tenant));
  }
  std::ranges::shuffle(policy.tenants, engine_);
}

void Random::add_ports(policy::Policy& policy) {
  std::set<std::tuple<std::string, std::uint8_t, std::uint16_t, int>> taken;
  const auto is_free = [&](const std::string& tenant, const auto& port) {
    return std::ranges::none_of(taken, [&](const auto& end) {
      const auto& [owner, protocol, number, role] = end;
      return protocol == port.protocol && number == port.port && (role & port.role) != 0 &&
             (owner == tenant || owner == "control");
    });
  };
  const auto claim = [&](const std::string& owner, const auto& port) {
    taken.emplace(owner, port.protocol, port.port, port.role);
  };
  for (auto* list : {&policy.control, &policy.management}) {
    for (std::uint32_t i = below(3); i > 0; --i) {
      const policy::ControlPort port{.protocol = protocol(), .port = this->port(), .role = role()};
      if (!is_free("control", port)) continue;
      claim("control", port);
      list->push_back(port);
    }
  }
  const bool has_xsk = !one_in(3);
  for (std::uint32_t i = 0; i < 24; ++i) {
    policy::Service service;
    service.name = fmt::format("service-{}", i);
    if (!policy.tenants.empty() && !one_in(3))
      service.tenant = policy.tenants[below(policy.tenants.size())].name;
    service.protocol = protocol();
    service.port = port();
    service.role = role();
    service.cls = any_class();
    service.path = has_xsk && service.protocol == IPPROTO_UDP && one_in(2) ? ANIC_PATH_XSK : ANIC_PATH_KERNEL;
    const bool is_roce = service.protocol == IPPROTO_UDP && service.port == kRocePort;
    if (is_roce || one_in(3) || !is_free(service.tenant, service)) continue;
    claim(service.tenant, service);
    policy.services.push_back(std::move(service));
  }
  std::ranges::shuffle(policy.services, engine_);
}

/// Some of them so little that random packets meet every limit.
void Random::add_budgets(policy::Policy& policy) {
  if (one_in(3)) return;
  policy.link_rate_bps = kLinkRates[below(kLinkRates.size())];
  const std::uint64_t share = policy.link_rate_bps / 8;
  const auto rate = [&](std::uint64_t most) { return one_in(2) ? 0 : 1 + most * below(1000) / 1000; };
  for (const anic_class cls : policy::kClasses) {
    if (one_in(2)) policy.classes[cls].floor_percent = static_cast<std::uint16_t>(below(26));
    if (one_in(2)) policy.classes[cls].weight = static_cast<std::uint16_t>(1 + below(ANIC_WEIGHT_MAX));
  }
  for (policy::Tenant& tenant : policy.tenants) {
    policy::Budget& budget = tenant.budget;
    budget.minimum_bps = rate(share);
    if (one_in(2)) budget.ceiling_bps = share + rate(policy.link_rate_bps - share);
    if (one_in(3)) budget.bulk_bps = share / 2 + rate(share / 2);
    if (one_in(2)) budget.weight = static_cast<std::uint16_t>(1 + below(ANIC_WEIGHT_MAX));
  }
}

/// Over the first two CPUs, where no xsk service forbids it.
void Random::add_cpus(policy::Policy& policy) {
  const auto spread = [&](policy::StatedTerms& terms) {
    if (!one_in(2)) return;
    terms.cpus.emplace();
    for (std::uint16_t cpu = 0; cpu < 2; ++cpu) {
      if (one_in(2)) terms.cpus->push_back(cpu);
    }
    if (one_in(2)) std::ranges::reverse(*terms.cpus);
  };
  for (const anic_class cls : policy::kClasses) {
    const bool has_xsk = std::ranges::any_of(policy.services, [&](const policy::Service& service) {
      return service.cls == cls && service.path == ANIC_PATH_XSK;
    });
    if (has_xsk) continue;
    spread(policy.classes[cls]);
    for (policy::Tenant& tenant : policy.tenants) spread(tenant.classes[cls]);
  }
}

policy::Policy Random::policy() {
  policy::Policy policy;
  policy.name = "random";
  policy.faces_workload = one_in(2);
  policy.control_alarm = one_in(3) ? 0 : 1 + below(100);
  add_tenants(policy);
  add_ports(policy);
  add_budgets(policy);
  add_cpus(policy);
  for (const std::uint8_t value : kDscps) {
    if (one_in(3)) policy.dscp.push_back({.value = value, .cls = any_class()});
  }
  return policy;
}

void Random::add_extensions(lab::PacketBuilder& builder) {
  for (std::uint32_t i = one_in(2) ? below(8) : 0; i > 0; --i) {
    const std::uint8_t type = kExtensions[below(kExtensions.size())];
    if (type == IPPROTO_FRAGMENT) {
      builder.fragment(kIpv6Fragments[below(kIpv6Fragments.size())]);
    } else {
      builder.extension(type, 8 * (1 + below(one_in(20) ? 60 : 3)));
    }
  }
}

void Random::add_transport(lab::PacketBuilder& builder, bool is_ipv6) {
  const std::uint32_t kind = below(10);
  if (kind < 4) {
    builder.udp(port(), port());
  } else if (kind < 7) {
    builder.tcp(port(), port());
  } else if (kind < 9) {
    builder.icmp(kIcmpTypes[below(kIcmpTypes.size())]);
  } else if (is_ipv6) {
    builder.extension(59);  // no next header
  }
}

void Random::add_ip(lab::PacketBuilder& builder) {
  const bool is_ipv6 = one_in(2);
  const std::uint8_t other = one_in(12) ? kOtherProtocols[below(kOtherProtocols.size())] : std::uint8_t{0};
  const auto address = [&] {
    return is_ipv6 ? one_in(16) ? kReserved[below(kReserved.size())] : kIpv6[below(kIpv6.size())]
                   : kIpv4[below(kIpv4.size())];
  };
  if (is_ipv6) {
    builder.ipv6(other);
  } else {
    const std::size_t options = one_in(6) ? 4 * below(11) : 0;
    const std::uint16_t fragment = one_in(5) ? kFragments[below(kFragments.size())] : std::uint16_t{0};
    builder.ipv4(options, fragment, other);
  }
  builder.from(address()).to(address());
  if (one_in(2)) builder.dscp(kDscps[below(kDscps.size())], static_cast<std::uint8_t>(below(4)));
  if (is_ipv6) add_extensions(builder);
  add_transport(builder, is_ipv6);
}

lab::Frame Random::frame() {
  lab::PacketBuilder builder;
  const bool is_other = one_in(40);
  builder.eth(is_other ? std::uint16_t{0x88cc} : std::uint16_t{0});
  if (!is_other) {
    for (std::uint32_t i = one_in(5) ? below(4) : 0; i > 0; --i)
      builder.vlan(static_cast<std::uint16_t>(i), kTpids[below(one_in(8) ? 3 : 2)]);
    if (one_in(30)) {
      builder.arp();
    } else {
      add_ip(builder);
    }
  }
  builder.payload(one_in(12) ? 1600 + below(400) : below(64));
  lab::Frame frame = builder.build();
  if (one_in(5)) {
    for (std::uint32_t i = 1 + below(3); i > 0; --i)
      frame[12 + below(std::min<std::size_t>(frame.size() - 12, 70))] = static_cast<std::byte>(below(256));
  }
  if (one_in(20)) frame.resize(ANIC_XSK_FRAME_MAX - 2 + below(5));  // padding counts too
  if (one_in(5))
    frame.resize(kShortFrame + below(std::min<std::size_t>(frame.size() - kShortFrame, 120) + 1));
  return frame;
}

std::string policy_text(const policy::Policy& policy) {
  std::string text = fmt::format("{{\"faces\": \"{}\", \"control_alarm\": {}\n",
                                 policy.faces_workload ? "workload" : "network", policy.control_alarm);
  const auto prefixes = [](const std::vector<anic_prefix>& list) {
    std::string names;
    for (const anic_prefix& prefix : list) names += policy::prefix_text(prefix) + " ";
    return names;
  };
  const auto cpus = [&](const std::string& whose, const policy::ByClass<policy::StatedTerms>& classes) {
    for (const anic_class cls : policy::kClasses) {
      if (classes[cls].cpus)
        text += fmt::format(" {} {}: cpus {}\n", whose, policy::class_name(cls),
                            fmt::join(*classes[cls].cpus, " "));
    }
  };
  cpus("all", policy.classes);
  for (const policy::Tenant& tenant : policy.tenants) {
    cpus(tenant.name, tenant.classes);
    text += fmt::format(" tenant {}: prefixes {}local {}marks", tenant.name, prefixes(tenant.remotes),
                        prefixes(tenant.locals));
    for (const std::uint32_t mark : tenant.marks) text += fmt::format(" {}", mark);
    text += fmt::format(", default {}\n", policy::class_name(tenant.default_class));
  }
  for (const policy::Service& service : policy.services) {
    text +=
        fmt::format(" service {} of {}: {} {} {}, {}, {}\n", service.name,
                    service.tenant.empty() ? "any" : service.tenant, policy::protocol_name(service.protocol),
                    service.port, policy::role_name(service.role), policy::class_name(service.cls),
                    policy::path_name(service.path));
  }
  for (const auto* list : {&policy.control, &policy.management}) {
    for (const policy::ControlPort& port : *list)
      text += fmt::format(" control {} {} {}\n", policy::protocol_name(port.protocol), port.port,
                          policy::role_name(port.role));
  }
  for (const policy::DscpRule& rule : policy.dscp)
    text += fmt::format(" dscp {}: {}\n", rule.value, policy::class_name(rule.cls));
  return text + "}";
}

}  // namespace agentnic::model
