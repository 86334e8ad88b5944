// SPDX-License-Identifier: Apache-2.0
//
// One packet, one verdict, one counter: fixtures as data, through the real programs by BPF_PROG_TEST_RUN.

#include <bpf/bpf.h>
#include <linux/bpf.h>
#include <linux/pkt_cls.h>

#include <catch2/catch_test_macros.hpp>
#include <cstring>
#include <numeric>
#include <vector>

#include "abi/stats.h"
#include "kern/object.hpp"
#include "kern/test_run.hpp"
#include "lab/packet.hpp"
#include "policy/compile.hpp"
#include "policy/parse.hpp"

using namespace agentnic;
using lab::PacketBuilder;

namespace {

constexpr const char* kPolicy = R"({"version": 1, "name": "fixtures", "services": [
  {"name": "rpc", "protocol": "udp", "port": 9000, "class": "rpc", "path": "kernel"},
  {"name": "gateway", "protocol": "udp", "port": 9001, "class": "retrieval", "path": "xsk"},
  {"name": "sync", "protocol": "tcp", "port": 9000, "class": "bulk", "path": "kernel"}],
  "control": [{"protocol": "tcp", "port": 22}, {"protocol": "udp", "port": 65535}]})";

struct Fixture {
  const char* what;
  lab::Frame frame;
  anic_reason reason;
  anic_class cls;
  unsigned service = 0;
  /// At TC, where it differs.
  anic_reason tc_reason = ANIC_REASON_NONE;
  /// BPF_PROG_TEST_RUN itself refuses to make an skb of it.
  bool xdp_only = false;
};

std::vector<Fixture> fixtures() {
  const auto ip4 = [] { return PacketBuilder().eth().ipv4(); };
  const auto ip6 = [] { return PacketBuilder().eth().ipv6(); };
  return {
      {"udp service on path A", ip4().udp(40000, 9000).payload(64).build(), ANIC_REASON_PASS_SERVICE,
       ANIC_CLASS_RPC, 1},
      {"the same over IPv6", ip6().udp(40000, 9000).payload(64).build(), ANIC_REASON_PASS_SERVICE,
       ANIC_CLASS_RPC, 1},
      {"the same with a VLAN tag", PacketBuilder().eth().vlan(5).ipv4().udp(1, 9000).payload(64).build(),
       ANIC_REASON_PASS_SERVICE, ANIC_CLASS_RPC, 1},
      {"the same with IPv4 options", PacketBuilder().eth().ipv4(40).udp(1, 9000).payload(64).build(),
       ANIC_REASON_PASS_SERVICE, ANIC_CLASS_RPC, 1},
      {"tcp service on the same port number", ip4().tcp(40000, 9000).build(), ANIC_REASON_PASS_SERVICE,
       ANIC_CLASS_BULK, 3},
      {"xsk service, nobody owns the queue", ip4().udp(1, 9001).payload(64).build(),
       ANIC_REASON_PASS_NO_SOCKET, ANIC_CLASS_RETRIEVAL, 2, ANIC_REASON_PASS_NO_XDP},
      {"the same over IPv6", ip6().udp(1, 9001).payload(64).build(), ANIC_REASON_PASS_NO_SOCKET,
       ANIC_CLASS_RETRIEVAL, 2, ANIC_REASON_PASS_NO_XDP},
      {"xsk service, first fragment", PacketBuilder().eth().ipv4(0, 0x2000).udp(1, 9001).payload(64).build(),
       ANIC_REASON_PASS_FRAGMENT, ANIC_CLASS_RETRIEVAL, 2},
      {"xsk service, later fragment", PacketBuilder().eth().ipv4(0, 0x00b9).udp(1, 9001).payload(64).build(),
       ANIC_REASON_PASS_FRAGMENT, ANIC_CLASS_DEFAULT},
      {"path A service, first fragment",
       PacketBuilder().eth().ipv4(0, 0x2000).udp(1, 9000).payload(64).build(), ANIC_REASON_PASS_SERVICE,
       ANIC_CLASS_RPC, 1},
      {"the port as a source does not count", ip4().udp(9000, 40000).payload(64).build(),
       ANIC_REASON_PASS_DEFAULT, ANIC_CLASS_DEFAULT},
      {"no service has the port", ip4().udp(1, 8999).payload(64).build(), ANIC_REASON_PASS_DEFAULT,
       ANIC_CLASS_DEFAULT},
      {"control by policy, tcp", ip4().tcp(40000, 22).build(), ANIC_REASON_PASS_CONTROL, ANIC_CLASS_CONTROL},
      {"control by policy, the last port", ip4().udp(40000, 65535).payload(64).build(),
       ANIC_REASON_PASS_CONTROL, ANIC_CLASS_CONTROL},
      {"the control port of the other protocol", ip4().udp(40000, 22).payload(64).build(),
       ANIC_REASON_PASS_DEFAULT, ANIC_CLASS_DEFAULT},
      {"arp", PacketBuilder().eth().arp().build(), ANIC_REASON_PASS_CONTROL, ANIC_CLASS_CONTROL},
      {"icmp unreachable", ip4().icmp(3).payload(28).build(), ANIC_REASON_PASS_CONTROL, ANIC_CLASS_CONTROL},
      {"icmp echo", ip4().icmp(8).payload(56).build(), ANIC_REASON_PASS_DEFAULT, ANIC_CLASS_DEFAULT},
      {"neighbour solicitation", ip6().icmp(135).payload(24).build(), ANIC_REASON_PASS_CONTROL,
       ANIC_CLASS_CONTROL},
      {"packet too big", ip6().icmp(2).payload(48).build(), ANIC_REASON_PASS_CONTROL, ANIC_CLASS_CONTROL},
      {"icmpv6 echo", ip6().icmp(128).payload(56).build(), ANIC_REASON_PASS_DEFAULT, ANIC_CLASS_DEFAULT},
      {"another IP protocol", PacketBuilder().eth().ipv4(0, 0, 47).payload(40).build(),
       ANIC_REASON_PASS_DEFAULT, ANIC_CLASS_DEFAULT},
      {"not IP", PacketBuilder().eth(0x88cc).payload(46).build(), ANIC_REASON_PASS_DEFAULT,
       ANIC_CLASS_DEFAULT},
      {"two VLAN tags", PacketBuilder().eth().vlan(1).vlan(2).ipv4().udp(1, 9000).payload(64).build(),
       ANIC_REASON_PASS_UNPARSED, ANIC_CLASS_DEFAULT},
      {"IPv6 fragment header", PacketBuilder().eth().ipv6(44).payload(64).build(), ANIC_REASON_PASS_UNPARSED,
       ANIC_CLASS_DEFAULT},
      {"IPv4 with a header length of 16",
       [] {
         lab::Frame frame = PacketBuilder().eth().ipv4().udp(1, 9000).payload(64).build();
         frame[14] = std::byte{0x44};
         return frame;
       }(),
       ANIC_REASON_PASS_UNPARSED, ANIC_CLASS_DEFAULT},
      {"IPv4 header cut off", PacketBuilder().eth(0x0800).payload(15).build(), ANIC_REASON_PASS_UNPARSED,
       ANIC_CLASS_DEFAULT, 0, ANIC_REASON_NONE, true},
  };
}

kern::Object loaded() {
  auto object = kern::Object::load();
  if (!object) FAIL(object.error().text());
  REQUIRE(object->fill(policy::compile(policy::parse(kPolicy, "fixtures").value())));
  return std::move(*object);
}

anic_counters counters_of(const kern::Object& object) {
  std::vector<anic_counters> per_cpu(kern::possible_cpus());
  const std::uint32_t zero = 0;
  REQUIRE(bpf_map_lookup_elem(object.counters_fd(), &zero, per_cpu.data()) == 0);
  anic_counters sum{};
  auto* words = reinterpret_cast<std::uint64_t*>(&sum);
  for (const auto& cpu : per_cpu) {
    const auto* from = reinterpret_cast<const std::uint64_t*>(&cpu);
    for (std::size_t i = 0; i < sizeof(sum) / sizeof(*words); ++i) words[i] += from[i];
  }
  return sum;
}

/// Exactly these counters moved, by one packet of this many bytes.
void check_counters(const anic_counters& before, const anic_counters& after, const Fixture& fixture,
                    anic_reason reason, std::size_t bytes) {
  const auto check = [&](const anic_count& b, const anic_count& a, bool expected) {
    CHECK(a.packets - b.packets == (expected ? 1 : 0));
    CHECK(a.bytes - b.bytes == (expected ? bytes : 0));
  };
  for (unsigned i = 0; i < ANIC_REASON__MAX; ++i) check(before.by_reason[i], after.by_reason[i], i == reason);
  for (unsigned i = 0; i < ANIC_CLASS__MAX; ++i)
    check(before.by_class[i], after.by_class[i], i == fixture.cls);
  for (unsigned i = 0; i < ANIC_SERVICES_MAX; ++i)
    check(before.by_service[i], after.by_service[i], i == fixture.service && i != 0);
}

}  // namespace

TEST_CASE("xdp: every fixture gets its verdict and moves its counters, and no others", "[smoke]") {
  const auto object = loaded();
  for (const Fixture& fixture : fixtures()) {
    INFO(fixture.what);
    const auto before = counters_of(object);
    CHECK(kern::run_once(object.xdp_fd(), fixture.frame).value() == XDP_PASS);
    check_counters(before, counters_of(object), fixture, fixture.reason, fixture.frame.size());
  }
}

TEST_CASE("tc: every fixture goes on to the next program and moves its counters, and no others", "[smoke]") {
  const auto object = loaded();
  for (const Fixture& fixture : fixtures()) {
    INFO(fixture.what);
    if (fixture.xdp_only) continue;
    const auto before = counters_of(object);
    CHECK(static_cast<std::int32_t>(kern::run_once(object.tc_fd(), fixture.frame).value()) == TC_ACT_UNSPEC);
    check_counters(before, counters_of(object), fixture,
                   fixture.tc_reason != ANIC_REASON_NONE ? fixture.tc_reason : fixture.reason,
                   fixture.frame.size());
  }
}

TEST_CASE("xdp: an empty policy passes everything to the kernel", "[smoke]") {
  auto object = kern::Object::load();
  REQUIRE(object);
  for (const Fixture& fixture : fixtures()) {
    INFO(fixture.what);
    CHECK(kern::run_once(object->xdp_fd(), fixture.frame).value() == XDP_PASS);
  }
  const auto counters = counters_of(*object);
  CHECK(counters.by_reason[ANIC_REASON_PASS_SERVICE].packets == 0);
  CHECK(counters.by_reason[ANIC_REASON_NONE].packets == 0);
}

TEST_CASE("xdp: reasons and classes both add up to what was seen", "[smoke]") {
  const auto object = loaded();
  std::uint64_t seen = 0;
  for (const Fixture& fixture : fixtures()) {
    REQUIRE(kern::run_once(object.xdp_fd(), fixture.frame));
    ++seen;
  }
  const auto counters = counters_of(object);
  const auto sum = [](const auto& counts) {
    return std::accumulate(std::begin(counts), std::end(counts), std::uint64_t{0},
                           [](std::uint64_t total, const anic_count& one) { return total + one.packets; });
  };
  CHECK(sum(counters.by_reason) == seen);
  CHECK(sum(counters.by_class) == seen);
}

TEST_CASE("maps: programs cannot write what only userspace may", "[smoke]") {
  // BPF_F_RDONLY_PROG of maps.bpf.h, as the kernel has it.
  const auto object = loaded();
  bpf_prog_info prog{};
  std::uint32_t ids[16] = {};
  prog.nr_map_ids = std::size(ids);
  prog.map_ids = reinterpret_cast<std::uintptr_t>(ids);
  std::uint32_t size = sizeof(prog);
  REQUIRE(bpf_prog_get_info_by_fd(object.xdp_fd(), &prog, &size) == 0);
  bool found = false;
  for (std::uint32_t i = 0; i < prog.nr_map_ids; ++i) {
    const UniqueFd fd(bpf_map_get_fd_by_id(ids[i]));
    bpf_map_info info{};
    size = sizeof(info);
    REQUIRE(bpf_map_get_info_by_fd(fd.get(), &info, &size) == 0);
    if (std::strcmp(info.name, "anic_ports") != 0) continue;
    found = true;
    CHECK((info.map_flags & BPF_F_RDONLY_PROG) != 0);
  }
  CHECK(found);
}
