// SPDX-License-Identifier: Apache-2.0
//
// Packets and what becomes of them, as data, through the programs of the instance: the verdict, and the
// counters that move, and no others.

#include <catch2/catch_test_macros.hpp>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "instance.hpp"
#include "lab/packet.hpp"

using namespace agentnic;
using lab::Frame;
using lab::PacketBuilder;
using model::Hook;

namespace {

std::string golden_policy(const std::string& faces) {
  return R"({"version": 1, "name": "golden", "faces": ")" + faces + R"(",
  "tenants": [
    {"name": "acme", "prefixes": ["10.1.0.0/16", "2001:db8:1::/48"], "marks": [7], "default_class": "rpc"},
    {"name": "beta", "prefixes": ["10.1.2.0/24", "2001:db8:1:2::/64"], "default_class": "retrieval"},
    {"name": "desk", "local": ["192.0.2.50", "2001:db8:50::/48"], "marks": [9], "default_class": "bulk"}],
  "services": [
    {"name": "web", "protocol": "tcp", "port": 9000, "class": "rpc", "path": "kernel"},
    {"name": "feed", "protocol": "udp", "port": 9001, "role": "client", "class": "retrieval", "path": "kernel"},
    {"name": "peer", "protocol": "udp", "port": 9002, "role": "both", "class": "bulk", "path": "kernel"},
    {"name": "gate", "protocol": "udp", "port": 9003, "class": "rpc", "path": "xsk"},
    {"name": "own", "tenant": "acme", "protocol": "udp", "port": 9002, "class": "retrieval", "path": "kernel"},
    {"name": "ask", "tenant": "acme", "protocol": "udp", "port": 9004, "role": "client", "class": "bulk", "path": "kernel"},
    {"name": "tell", "protocol": "udp", "port": 9005, "class": "rpc", "path": "kernel"}],
  "dscp": [{"value": 46, "class": "rpc"}, {"value": 10, "class": "bulk"}],
  "control": [{"protocol": "tcp", "port": 22}, {"protocol": "udp", "port": 53, "role": "client"},
              {"protocol": "tcp", "port": 179, "role": "both"}],
  "management": [{"protocol": "tcp", "port": 6443}]})";
}

constexpr auto kNone = ANIC_CLASS_DEFAULT;  // the class of traffic that nothing names

struct Golden {
  std::string what;
  Frame frame;
  anic_reason reason;
  anic_class cls;
  const char* tenant = "";
  const char* service = "";
  anic_reason tc_reason = ANIC_REASON_NONE;  ///< at TC ingress, where it differs
  std::uint32_t mark = 0;
  bool xdp_only = false;  ///< BPF_PROG_TEST_RUN makes no skb of it
};

PacketBuilder eth() { return PacketBuilder().eth(); }
PacketBuilder ip4(const char* from = "198.51.100.1", const char* to = "198.51.100.2") {
  return eth().ipv4().from(from).to(to);
}
PacketBuilder ip6(const char* from = "2001:db8:f::1", const char* to = "2001:db8:f::2") {
  return eth().ipv6().from(from).to(to);
}
PacketBuilder options(int headers) {
  PacketBuilder ip = ip6();
  while (headers-- > 0) ip.extension(60);
  return ip;
}
Frame udp(PacketBuilder ip, std::uint16_t from, std::uint16_t to) {
  return ip.udp(from, to).payload(64).build();
}
Frame tcp(PacketBuilder ip, std::uint16_t from, std::uint16_t to) {
  return ip.tcp(from, to).payload(8).build();
}

Frame cut(Frame frame, std::size_t bytes) {
  frame.resize(bytes);
  return frame;
}
Frame with_byte(Frame frame, std::size_t at, int value) {
  frame[at] = static_cast<std::byte>(value);
  return frame;
}
/// Of the xsk service, this long.
Frame gate(std::size_t bytes) { return ip4().udp(1, 9003).payload(bytes - 42).build(); }

std::vector<Golden> headers() {
  std::vector<Golden> all = {
      {"no service", udp(ip4(), 1, 2), ANIC_REASON_PASS_DEFAULT, kNone},
      {"no service, IPv6", udp(ip6(), 1, 2), ANIC_REASON_PASS_DEFAULT, kNone},
      {"GRE", eth().ipv4(0, 0, 47).payload(40).build(), ANIC_REASON_PASS_DEFAULT, kNone},
      {"ESP over IPv6", eth().ipv6(50).payload(40).build(), ANIC_REASON_PASS_DEFAULT, kNone},
      {"LLDP", PacketBuilder().eth(0x88cc).payload(46).build(), ANIC_REASON_PASS_DEFAULT, kNone},
      {"ARP", eth().arp().build(), ANIC_REASON_PASS_CONTROL, ANIC_CLASS_CONTROL},
      {"ICMPv6 over IPv4", eth().ipv4(0, 0, 58).payload(40).build(), ANIC_REASON_PASS_DEFAULT, kNone},
      {"ICMP over IPv6", eth().ipv6(1).payload(40).build(), ANIC_REASON_PASS_DEFAULT, kNone},
      {"three tags", tcp(eth().vlan(1, 0x88a8).vlan(2).vlan(3).ipv4(), 1, 9000), ANIC_REASON_PASS_UNPARSED,
       kNone},
      {"seven extension headers", tcp(options(7), 1, 9000), ANIC_REASON_PASS_UNPARSED, kNone},
      {"extension headers of 2,056 bytes", tcp(ip6().extension(60, 2048).extension(60), 1, 9000),
       ANIC_REASON_PASS_UNPARSED, kNone},
      {"IPv4 header of 16 bytes", with_byte(tcp(ip4(), 1, 9000), 14, 0x44), ANIC_REASON_PASS_UNPARSED, kNone},
      {"IPv4 that says it is 5", with_byte(tcp(ip4(), 1, 9000), 14, 0x55), ANIC_REASON_PASS_UNPARSED, kNone},
      {"IPv6 that says it is 4", with_byte(tcp(ip6(), 1, 9000), 14, 0x40), ANIC_REASON_PASS_UNPARSED, kNone},
      {"IPv4 options cut off", cut(tcp(eth().ipv4(40), 1, 9000), 60), ANIC_REASON_PASS_UNPARSED, kNone},
      {"UDP cut off", cut(udp(ip4(), 1, 9003), 41), ANIC_REASON_PASS_UNPARSED, kNone},
      {"UDP without payload", cut(udp(ip4(), 1, 9002), 42), ANIC_REASON_PASS_SERVICE, ANIC_CLASS_BULK, "",
       "peer"},
      {"TCP cut off", cut(tcp(ip4(), 1, 9000), 53), ANIC_REASON_PASS_UNPARSED, kNone},
      {"TCP over IPv6 cut off", cut(tcp(ip6(), 1, 9000), 73), ANIC_REASON_PASS_UNPARSED, kNone},
      {"ICMP cut off", cut(ip4().icmp(3).build(), 41), ANIC_REASON_PASS_UNPARSED, kNone},
      {"extension header cut off", cut(ip6().extension(60, 64).extension(59).build(), 100),
       ANIC_REASON_PASS_UNPARSED, kNone},
      {"the last extension header cut off", cut(ip6().extension(60, 64, 59).build(), 100),
       ANIC_REASON_PASS_UNPARSED, kNone},
      {"tag cut off", cut(tcp(eth().vlan(1).ipv4(), 1, 9000), 16), ANIC_REASON_PASS_UNPARSED, kNone, "", "",
       ANIC_REASON_NONE, 0, true},
      {"IPv4 header cut off", cut(tcp(ip4(), 1, 9000), 33), ANIC_REASON_PASS_UNPARSED, kNone, "", "",
       ANIC_REASON_NONE, 0, true},
      {"IPv6 header cut off", cut(tcp(ip6(), 1, 9000), 53), ANIC_REASON_PASS_UNPARSED, kNone, "", "",
       ANIC_REASON_NONE, 0, true},
  };
  const auto of_web = [&](const std::string& what, PacketBuilder ip) {
    all.push_back(
        {what, tcp(std::move(ip), 40000, 9000), ANIC_REASON_PASS_SERVICE, ANIC_CLASS_RPC, "", "web"});
  };
  of_web("IPv4", ip4());
  of_web("IPv6", ip6());
  of_web("tag", eth().vlan(5).ipv4());
  of_web("tag, IPv6", eth().vlan(5).ipv6());
  of_web("QinQ", eth().vlan(5, 0x88a8).vlan(6).ipv4());
  of_web("QinQ, IPv6", eth().vlan(5, 0x88a8).vlan(6).ipv6());
  of_web("4 bytes of options", eth().ipv4(4));
  of_web("40 bytes of options", eth().ipv4(40));
  for (const std::uint8_t type : {0, 43, 51, 60, 135, 139, 140}) {
    of_web("extension header " + std::to_string(type), ip6().extension(type));
    of_web("longer extension header " + std::to_string(type), ip6().extension(type, 40));
  }
  of_web("six extension headers",
         ip6().extension(0).extension(60).extension(43).extension(44).extension(51, 24).extension(60));
  of_web("extension header of 160 bytes", ip6().extension(60, 160));
  of_web("don't fragment", eth().ipv4(0, 0x4000));
  of_web("first fragment", eth().ipv4(0, 0x2000));
  of_web("first fragment, IPv6", ip6().fragment(1));
  of_web("the only fragment, IPv6", ip6().fragment(0));
  for (const std::uint8_t type :
       {0, 1, 2, 3, 4, 5, 8, 11, 12, 13, 127, 128, 132, 133, 134, 135, 136, 137, 138, 255}) {
    const auto icmp = [&](const std::string& what, PacketBuilder ip, bool is_control) {
      all.push_back({what + " " + std::to_string(type), ip.icmp(type).payload(28).build(),
                     is_control ? ANIC_REASON_PASS_CONTROL : ANIC_REASON_PASS_DEFAULT,
                     is_control ? ANIC_CLASS_CONTROL : kNone});
    };
    icmp("ICMP", ip4(), type == 3 || type == 11 || type == 12);
    icmp("ICMPv6", ip6(), (type >= 1 && type <= 4) || (type >= 133 && type <= 137));
  }
  return all;
}

/// What comes in from the network.
std::vector<Golden> incoming() {
  const char* const acme = "10.1.1.1";
  const char* const acme6 = "2001:db8:1::1";
  const char* const here = "192.0.2.2";
  return {
      {"server's port as the remote one", tcp(ip4(), 9000, 1), ANIC_REASON_PASS_DEFAULT, kNone},
      {"server's port of the other protocol", udp(ip4(), 1, 9000), ANIC_REASON_PASS_DEFAULT, kNone},
      {"client's port", udp(ip4(), 9001, 1), ANIC_REASON_PASS_SERVICE, ANIC_CLASS_RETRIEVAL, "", "feed"},
      {"client's port as the local one", udp(ip4(), 1, 9001), ANIC_REASON_PASS_DEFAULT, kNone},
      {"port of both, local", udp(ip6(), 1, 9002), ANIC_REASON_PASS_SERVICE, ANIC_CLASS_BULK, "", "peer"},
      {"port of both, remote", udp(ip6(), 9002, 1), ANIC_REASON_PASS_SERVICE, ANIC_CLASS_BULK, "", "peer"},
      {"server before client", udp(ip4(), 9001, 9005), ANIC_REASON_PASS_SERVICE, ANIC_CLASS_RPC, "", "tell"},

      {"tenant by prefix", udp(ip4(acme, here), 1, 2), ANIC_REASON_PASS_DEFAULT, ANIC_CLASS_RPC, "acme"},
      {"tenant by prefix, IPv6", udp(ip6(acme6), 1, 2), ANIC_REASON_PASS_DEFAULT, ANIC_CLASS_RPC, "acme"},
      {"tenant by prefix, v4-mapped", udp(ip6("::ffff:10.1.1.1"), 1, 2), ANIC_REASON_PASS_DEFAULT,
       ANIC_CLASS_RPC, "acme"},
      {"reserved IPv6 address that has the bits of IPv4's key", udp(ip6("0:ffff:a01:101::"), 1, 2),
       ANIC_REASON_PASS_DEFAULT, kNone},
      {"longer prefix", udp(ip4("10.1.2.3"), 1, 2), ANIC_REASON_PASS_DEFAULT, ANIC_CLASS_RETRIEVAL, "beta"},
      {"longer prefix, IPv6", udp(ip6("2001:db8:1:2::1"), 1, 2), ANIC_REASON_PASS_DEFAULT,
       ANIC_CLASS_RETRIEVAL, "beta"},
      {"prefix of the local address", udp(ip4(here, acme), 1, 2), ANIC_REASON_PASS_DEFAULT, kNone},
      {"tenant by local address", udp(ip4(here, "192.0.2.50"), 1, 2), ANIC_REASON_PASS_DEFAULT,
       ANIC_CLASS_BULK, "desk"},
      {"local address before remote", udp(ip4(acme, "192.0.2.50"), 1, 2), ANIC_REASON_PASS_DEFAULT,
       ANIC_CLASS_BULK, "desk"},
      {"local address before remote, IPv6", udp(ip6(acme6, "2001:db8:50::1"), 1, 2), ANIC_REASON_PASS_DEFAULT,
       ANIC_CLASS_BULK, "desk"},
      {"tenant's GRE", eth().ipv4(0, 0, 47).from(acme).payload(40).build(), ANIC_REASON_PASS_DEFAULT,
       ANIC_CLASS_RPC, "acme"},
      {"tenant's echo", ip6(acme6).icmp(128).build(), ANIC_REASON_PASS_DEFAULT, ANIC_CLASS_RPC, "acme"},
      {"tenant's any service", tcp(ip4("10.1.2.3"), 1, 9000), ANIC_REASON_PASS_SERVICE, ANIC_CLASS_RPC,
       "beta", "web"},
      {"tenant's own service", udp(ip4(acme), 1, 9002), ANIC_REASON_PASS_SERVICE, ANIC_CLASS_RETRIEVAL,
       "acme", "own"},
      {"its other end is anybody's", udp(ip4(acme), 9002, 1), ANIC_REASON_PASS_SERVICE, ANIC_CLASS_BULK,
       "acme", "peer"},
      {"another tenant's own service", udp(ip4("10.1.2.3"), 1, 9002), ANIC_REASON_PASS_SERVICE,
       ANIC_CLASS_BULK, "beta", "peer"},
      {"own as client before any as server", udp(ip4(acme), 9004, 9005), ANIC_REASON_PASS_SERVICE,
       ANIC_CLASS_BULK, "acme", "ask"},
      {"own as server before own as client", udp(ip4(acme), 9004, 9002), ANIC_REASON_PASS_SERVICE,
       ANIC_CLASS_RETRIEVAL, "acme", "own"},

      {"DSCP", udp(ip4().dscp(46), 1, 2), ANIC_REASON_PASS_DSCP, ANIC_CLASS_RPC},
      {"DSCP with ECN", udp(ip4().dscp(46, 3), 1, 2), ANIC_REASON_PASS_DSCP, ANIC_CLASS_RPC},
      {"DSCP, IPv6", udp(ip6().dscp(10, 1), 1, 2), ANIC_REASON_PASS_DSCP, ANIC_CLASS_BULK},
      {"DSCP of no class", udp(ip6().dscp(11), 1, 2), ANIC_REASON_PASS_DEFAULT, kNone},
      {"DSCP of an echo", ip4().dscp(10).icmp(8).build(), ANIC_REASON_PASS_DSCP, ANIC_CLASS_BULK},
      {"tenant's DSCP", udp(ip4(acme).dscp(10), 1, 2), ANIC_REASON_PASS_DSCP, ANIC_CLASS_BULK, "acme"},
      {"service before DSCP", tcp(ip4().dscp(10), 1, 9000), ANIC_REASON_PASS_SERVICE, ANIC_CLASS_RPC, "",
       "web"},

      {"RoCEv2", udp(ip4(), 50000, 4791), ANIC_REASON_PASS_ROCE, ANIC_CLASS_BULK},
      {"RoCEv2, IPv6, of a tenant", udp(ip6(acme6).dscp(46), 50000, 4791), ANIC_REASON_PASS_ROCE,
       ANIC_CLASS_BULK, "acme"},
      {"RoCEv2's port as a source", udp(ip4(), 4791, 50000), ANIC_REASON_PASS_DEFAULT, kNone},
      {"RoCEv2's port of TCP", tcp(ip4(), 50000, 4791), ANIC_REASON_PASS_DEFAULT, kNone},

      {"control", tcp(ip4(), 1, 22), ANIC_REASON_PASS_CONTROL, ANIC_CLASS_CONTROL},
      {"control of a tenant", tcp(ip6(acme6), 1, 22), ANIC_REASON_PASS_CONTROL, ANIC_CLASS_CONTROL},
      {"control as server, remote port", tcp(ip4(), 22, 1), ANIC_REASON_PASS_DEFAULT, kNone},
      {"control of the other protocol", udp(ip4(), 1, 22), ANIC_REASON_PASS_DEFAULT, kNone},
      {"control as client", udp(ip4(), 53, 1), ANIC_REASON_PASS_CONTROL, ANIC_CLASS_CONTROL},
      {"control as client, local port", udp(ip4(), 1, 53), ANIC_REASON_PASS_DEFAULT, kNone},
      {"control at both, local", tcp(ip4(), 1, 179), ANIC_REASON_PASS_CONTROL, ANIC_CLASS_CONTROL},
      {"control at both, remote", tcp(ip6(), 179, 1), ANIC_REASON_PASS_CONTROL, ANIC_CLASS_CONTROL},
      {"control before service", udp(ip4(), 53, 9003), ANIC_REASON_PASS_CONTROL, ANIC_CLASS_CONTROL},
      {"control before RoCEv2", udp(ip4(), 53, 4791), ANIC_REASON_PASS_CONTROL, ANIC_CLASS_CONTROL},
      {"management", tcp(ip4(), 1, 6443), ANIC_REASON_PASS_CONTROL, ANIC_CLASS_CONTROL},
      {"control, first fragment", tcp(eth().ipv4(0, 0x2000), 1, 22), ANIC_REASON_PASS_CONTROL,
       ANIC_CLASS_CONTROL},
      {"control, later fragment", tcp(eth().ipv4(0, 0x00b9), 1, 22), ANIC_REASON_PASS_FRAGMENT, kNone},

      {"later fragment", udp(eth().ipv4(0, 0x00b9), 1, 9003), ANIC_REASON_PASS_FRAGMENT, kNone},
      {"later fragment, IPv6", udp(ip6().fragment(0x0501), 1, 9003), ANIC_REASON_PASS_FRAGMENT, kNone},
      {"later fragment of a tenant with a DSCP", udp(eth().ipv4(0, 0x20b9).from(acme).dscp(10), 1, 9002),
       ANIC_REASON_PASS_FRAGMENT, ANIC_CLASS_RPC, "acme"},
      {"later fragment of an ICMP error", eth().ipv4(0, 0x00b9).icmp(3).payload(8).build(),
       ANIC_REASON_PASS_FRAGMENT, kNone},
      {"later fragment to RoCEv2's port", udp(ip6().fragment(8), 1, 4791), ANIC_REASON_PASS_FRAGMENT, kNone},
      {"xsk service, first fragment", udp(eth().ipv4(0, 0x2000), 1, 9003), ANIC_REASON_PASS_FRAGMENT,
       ANIC_CLASS_RPC, "", "gate"},
      {"xsk service, first fragment, IPv6", udp(ip6().fragment(1), 1, 9003), ANIC_REASON_PASS_FRAGMENT,
       ANIC_CLASS_RPC, "", "gate"},

      {"xsk service", gate(106), ANIC_REASON_PASS_NO_SOCKET, ANIC_CLASS_RPC, "", "gate",
       ANIC_REASON_PASS_NO_XDP},
      {"xsk service, IPv6 of a tenant", udp(ip6(acme6), 1, 9003), ANIC_REASON_PASS_NO_SOCKET, ANIC_CLASS_RPC,
       "acme", "gate", ANIC_REASON_PASS_NO_XDP},
      {"xsk service, QinQ", udp(eth().vlan(1, 0x88a8).vlan(2).ipv4(), 1, 9003), ANIC_REASON_PASS_NO_SOCKET,
       ANIC_CLASS_RPC, "", "gate", ANIC_REASON_PASS_NO_XDP},
      {"xsk service, just not too long", gate(1792), ANIC_REASON_PASS_NO_SOCKET, ANIC_CLASS_RPC, "", "gate",
       ANIC_REASON_PASS_NO_XDP},
      {"xsk service, too long", gate(1793), ANIC_REASON_PASS_TOO_LONG, ANIC_CLASS_RPC, "", "gate",
       ANIC_REASON_PASS_NO_XDP},
      {"xsk service, of several buffers", gate(9000), ANIC_REASON_PASS_TOO_LONG, ANIC_CLASS_RPC, "", "gate",
       ANIC_REASON_NONE, 0, true},
      {"of several buffers", ip6().extension(60).tcp(1, 9000).payload(8900).build(), ANIC_REASON_PASS_SERVICE,
       ANIC_CLASS_RPC, "", "web", ANIC_REASON_NONE, 0, true},
      {"not IP, of several buffers", PacketBuilder().eth(0x88cc).payload(8000).build(),
       ANIC_REASON_PASS_DEFAULT, kNone, "", "", ANIC_REASON_NONE, 0, true},
  };
}

/// What leaves for the network.
std::vector<Golden> outgoing() {
  const char* const acme = "10.1.1.1";
  const char* const here = "192.0.2.2";
  const auto same = ANIC_REASON_NONE;
  return {
      {"server's answer", tcp(ip4(), 9000, 1), ANIC_REASON_PASS_SERVICE, ANIC_CLASS_RPC, "", "web"},
      {"server's port as the remote one", tcp(ip4(), 1, 9000), ANIC_REASON_PASS_DEFAULT, kNone},
      {"client's request", udp(ip6(), 1, 9001), ANIC_REASON_PASS_SERVICE, ANIC_CLASS_RETRIEVAL, "", "feed"},
      {"xsk service", udp(ip4(), 9003, 1), ANIC_REASON_PASS_SERVICE, ANIC_CLASS_RPC, "", "gate"},
      {"xsk service, first fragment", udp(eth().ipv4(0, 0x2000), 9003, 1), ANIC_REASON_PASS_SERVICE,
       ANIC_CLASS_RPC, "", "gate"},
      {"RoCEv2", udp(ip4(), 50000, 4791), ANIC_REASON_PASS_ROCE, ANIC_CLASS_BULK},
      {"control", tcp(ip4(), 22, 1), ANIC_REASON_PASS_CONTROL, ANIC_CLASS_CONTROL},
      {"control as server, remote port", tcp(ip4(), 1, 22), ANIC_REASON_PASS_DEFAULT, kNone},
      {"control as client", udp(ip4(), 1, 53), ANIC_REASON_PASS_CONTROL, ANIC_CLASS_CONTROL},
      {"tenant by remote address", udp(ip4(here, acme), 1, 2), ANIC_REASON_PASS_DEFAULT, ANIC_CLASS_RPC,
       "acme"},
      {"tenant by local address", udp(ip4("192.0.2.50", acme), 1, 2), ANIC_REASON_PASS_DEFAULT,
       ANIC_CLASS_BULK, "desk"},
      {"prefix of the local address", udp(ip4(acme, here), 1, 2), ANIC_REASON_PASS_DEFAULT, kNone},
      {"tenant's own service", udp(ip4(here, acme), 9002, 1), ANIC_REASON_PASS_SERVICE, ANIC_CLASS_RETRIEVAL,
       "acme", "own"},
      {"tenant by mark", udp(ip4(), 1, 2), ANIC_REASON_PASS_DEFAULT, ANIC_CLASS_RPC, "acme", "", same, 7},
      {"mark before addresses", udp(ip4("192.0.2.50", acme), 1, 2), ANIC_REASON_PASS_DEFAULT, ANIC_CLASS_RPC,
       "acme", "", same, 7},
      {"another mark, same flow", udp(ip4("192.0.2.50", acme), 1, 2), ANIC_REASON_PASS_DEFAULT,
       ANIC_CLASS_BULK, "desk", "", same, 9},
      {"nobody's mark", udp(ip4(here, acme), 1, 2), ANIC_REASON_PASS_DEFAULT, ANIC_CLASS_RPC, "acme", "",
       same, 8},
      {"own service by mark", udp(ip6(), 9002, 1), ANIC_REASON_PASS_SERVICE, ANIC_CLASS_RETRIEVAL, "acme",
       "own", same, 7},
      {"RoCEv2 by mark", udp(ip6(), 1, 4791), ANIC_REASON_PASS_ROCE, ANIC_CLASS_BULK, "acme", "", same, 7},
      {"later fragment by mark", udp(eth().ipv4(0, 0x00b9), 9002, 1), ANIC_REASON_PASS_FRAGMENT,
       ANIC_CLASS_RPC, "acme", "", same, 7},
      {"control with a mark", eth().arp().build(), ANIC_REASON_PASS_CONTROL, ANIC_CLASS_CONTROL, "", "", same,
       7},
      {"not IP with a mark", PacketBuilder().eth(0x88cc).payload(46).build(), ANIC_REASON_PASS_DEFAULT, kNone,
       "", "", same, 7},
  };
}

/// What comes in from a workload: what outgoing() has, but for path B and marks.
std::vector<Golden> from_workload() {
  std::vector<Golden> all = outgoing();
  std::erase_if(all, [](const Golden& golden) {
    return golden.mark != 0 || std::string_view(golden.service) == "gate";
  });
  all.push_back({"xsk service", udp(ip4(), 9003, 1), ANIC_REASON_PASS_NO_SOCKET, ANIC_CLASS_RPC, "", "gate",
                 ANIC_REASON_PASS_NO_XDP});
  return all;
}

/// What leaves for a workload: what incoming() has, but for path B.
std::vector<Golden> to_workload() {
  std::vector<Golden> all = incoming();
  std::erase_if(all, [](const Golden& golden) {
    return golden.xdp_only || std::string_view(golden.service) == "gate";
  });
  return all;
}

void check(const char* faces, Hook hook, const std::vector<Golden>& goldens) {
  Instance instance;
  const policy::Ids ids = instance.install(golden_policy(faces));
  const auto expected = instance.counters();
  const int way = hook == Hook::TcOut ? ANIC_DIRECTION_OUT : ANIC_DIRECTION_IN;
  for (const Golden& golden : goldens) {
    INFO(golden.what);
    if (golden.xdp_only && hook != Hook::Xdp) continue;
    CHECK(instance.pass(hook, golden.frame, golden.mark) == passed(hook));

    const bool differs = hook == Hook::TcIn && golden.tc_reason != ANIC_REASON_NONE;
    const anic_reason reason = differs ? golden.tc_reason : golden.reason;
    const std::uint32_t tenant = *golden.tenant != '\0' ? ids.tenants.find(golden.tenant)->second : 0;
    anic_lane_count& lane = expected->lanes[way][ANIC_LANE(tenant, static_cast<unsigned>(golden.cls))];
    ++lane.seen;
    ++lane.by_reason[ANIC_REASON_AT(reason)].packets;
    lane.by_reason[ANIC_REASON_AT(reason)].bytes += golden.frame.size();
    ++expected->queues[way][0].by_reason[ANIC_REASON_AT(reason)];
    const std::uint32_t id = *golden.service != '\0' ? ids.services.find(golden.service)->second : 0;
    anic_count& service = expected->services[way][id];
    ++service.packets;
    service.bytes += golden.frame.size();
    const auto found = instance.counters();
    CHECK(counter_differences(*expected, *found) == "");
    *expected = *found;
  }
}

}  // namespace

TEST_CASE("xdp: headers are understood, or their packet is passed and counted", "[smoke]") {
  check("network", Hook::Xdp, headers());
}

TEST_CASE("tc: headers are understood, or their packet is passed and counted") {
  check("network", Hook::TcIn, headers());
}

TEST_CASE("xdp: every packet gets what the policy says, and moves its counters and no others", "[smoke]") {
  check("network", Hook::Xdp, incoming());
}

TEST_CASE("tc ingress: every packet gets what the policy says, and moves its counters and no others",
          "[smoke]") {
  check("network", Hook::TcIn, incoming());
}

TEST_CASE("tc egress: every packet gets what the policy says, and moves its counters and no others",
          "[smoke]") {
  check("network", Hook::TcOut, outgoing());
}

TEST_CASE("classify: an interface that faces a workload swaps local and remote") {
  check("workload", Hook::Xdp, from_workload());
  check("workload", Hook::TcIn, from_workload());
  check("workload", Hook::TcOut, to_workload());
}
