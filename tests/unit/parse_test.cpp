// SPDX-License-Identifier: Apache-2.0
#include "lib/parse.h"

#include <algorithm>
#include <catch2/catch_get_random_seed.hpp>
#include <catch2/catch_test_macros.hpp>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <random>
#include <vector>

#include "../fuzz/parse_rules.hpp"
#include "lab/packet.hpp"

using namespace agentnic;
using lab::Frame;
using lab::PacketBuilder;

namespace {

constexpr std::uint8_t kHopByHop = IPPROTO_HOPOPTS;
constexpr std::uint8_t kRouting = IPPROTO_ROUTING;
constexpr std::uint8_t kAh = IPPROTO_AH;
constexpr std::uint8_t kOptions = IPPROTO_DSTOPTS;
constexpr std::uint8_t kGre = IPPROTO_GRE;

/// A frame and what is to be found in it. UDP and TCP go from port 4000 to 9000.
struct Case {
  const char* name;  ///< also of its file in the fuzzer's corpus
  Frame frame;
  anic_kind kind;
  int protocol = 0;  ///< of the key; where there is none, 0
  int l3_off = 14;
  int l4_off = 0;
  anic_fragment fragment = ANIC_FRAGMENT_NONE;
  bool plain = false;
};

PacketBuilder ipv4() { return PacketBuilder().eth().ipv4(); }
PacketBuilder ipv6() { return PacketBuilder().eth().ipv6(); }
Frame udp(PacketBuilder builder, std::size_t payload = 26) {
  return builder.udp(4000, 9000).payload(payload).build();
}
Frame tcp(PacketBuilder builder) { return builder.tcp(4000, 9000).payload(26).build(); }

/// The frame with other bytes from `at` on.
Frame patched(Frame frame, std::size_t at, std::initializer_list<std::uint8_t> bytes) {
  for (const std::uint8_t byte : bytes) frame[at++] = std::byte{byte};
  return frame;
}

Frame first_bytes(const Frame& frame, std::size_t count) {
  return {frame.begin(), frame.begin() + static_cast<std::ptrdiff_t>(count)};
}

Frame extensions(int count) {
  PacketBuilder builder = ipv6();
  for (int i = 0; i < count; ++i) builder.extension(i == 0 ? kHopByHop : kOptions, i % 2 == 0 ? 8 : 16);
  return udp(builder);
}

/// Of each kind one.
std::vector<Case> cases() {
  constexpr auto kNone = ANIC_KIND_NONE;
  constexpr auto kArp = ANIC_KIND_ARP;
  constexpr auto kIcmp = ANIC_KIND_ICMP;
  constexpr auto kUdp = ANIC_KIND_UDP;
  constexpr auto kTcp = ANIC_KIND_TCP;
  constexpr auto kOther = ANIC_KIND_OTHER;
  constexpr auto kWhole = ANIC_FRAGMENT_NONE;
  constexpr auto kFirst = ANIC_FRAGMENT_FIRST;
  constexpr auto kLater = ANIC_FRAGMENT_LATER;
  const auto eth = [] { return PacketBuilder().eth(); };
  return {
      {"ipv4-udp", udp(ipv4()), kUdp, 17, 14, 34, kWhole, true},
      {"ipv4-tcp", tcp(ipv4()), kTcp, 6, 14, 34, kWhole, true},
      {"ipv4-udp-empty", udp(ipv4(), 0), kUdp, 17, 14, 34},
      {"ipv4-udp-dont-fragment", udp(eth().ipv4(0, 0x4000)), kUdp, 17, 14, 34, kWhole, true},
      {"ipv4-rocev2", ipv4().udp(4000, ANIC_ROCE_PORT).payload(12 + 64 + 4).build(), kUdp, 17, 14, 34, kWhole,
       true},
      {"ipv4-options-udp", udp(eth().ipv4(4)), kUdp, 17, 14, 38},
      {"ipv4-most-options-tcp", tcp(eth().ipv4(40)), kTcp, 6, 14, 74},
      {"ipv4-no-length", patched(udp(ipv4()), 16, {0, 0}), kUdp, 17, 14, 34},
      {"ipv4-ihl-4", patched(udp(ipv4()), 14, {0x44}), kNone},
      {"ipv4-ihl-beyond-the-frame", patched(udp(ipv4(), 0), 14, {0x4f}), kNone},
      {"ipv4-version-6", patched(udp(ipv4()), 14, {0x65}), kNone},
      {"ipv4-icmp-echo", ipv4().icmp(8).payload(26).build(), kIcmp, 1, 14, 34},
      {"ipv4-icmp-unreachable", ipv4().icmp(3).payload(26).build(), kIcmp, 1, 14, 34},
      {"ipv4-gre", eth().ipv4(0, 0, kGre).payload(40).build(), kOther, 47},
      {"ipv4-icmpv6", eth().ipv4(0, 0, 58).payload(40).build(), kOther, 58},
      {"ipv4-first-fragment-udp", udp(eth().ipv4(0, 0x2000)), kUdp, 17, 14, 34, kFirst},
      {"ipv4-later-fragment-udp", udp(eth().ipv4(0, 0x2010)), kUdp, 17, 14, 0, kLater},
      {"ipv4-last-fragment-tcp", tcp(eth().ipv4(0, 0x0010)), kTcp, 6, 14, 0, kLater},
      {"ipv4-highest-fragment-udp", udp(eth().ipv4(0, 0x1fff), 0), kUdp, 17, 14, 0, kLater},
      {"ipv4-first-fragment-icmp", eth().ipv4(0, 0x2000).icmp(8).payload(8).build(), kIcmp, 1, 14, 34,
       kFirst},
      {"ipv4-later-fragment-icmp", eth().ipv4(0, 1).icmp(3).payload(8).build(), kOther, 1, 14, 0, kLater},
      {"ipv6-udp", udp(ipv6()), kUdp, 17, 14, 54, kWhole, true},
      {"ipv6-tcp", tcp(ipv6()), kTcp, 6, 14, 54, kWhole, true},
      {"ipv6-tcp-dscp", tcp(ipv6().dscp(46, 3)), kTcp, 6, 14, 54, kWhole, true},
      {"ipv6-no-length", patched(tcp(ipv6()), 18, {0, 0}), kTcp, 6, 14, 54},
      {"ipv6-version-4", patched(udp(ipv6()), 14, {0x45}), kNone},
      {"ipv6-icmp-echo", ipv6().icmp(128).payload(26).build(), kIcmp, 58, 14, 54},
      {"ipv6-neighbour-solicitation", ipv6().icmp(135).payload(24).build(), kIcmp, 58, 14, 54},
      {"ipv6-icmpv4", eth().ipv6(1).payload(26).build(), kOther, 1},
      {"ipv6-esp", eth().ipv6(50).payload(26).build(), kOther, 50},
      {"ipv6-no-next-header", eth().ipv6(59).build(), kOther, 59},
      {"ipv6-hop-by-hop-icmp", ipv6().extension(kHopByHop).icmp(143).payload(20).build(), kIcmp, 58, 14, 62},
      {"ipv6-routing-tcp", tcp(ipv6().extension(kRouting, 24)), kTcp, 6, 14, 78},
      {"ipv6-options-udp", udp(ipv6().extension(kOptions, 16)), kUdp, 17, 14, 70},
      {"ipv6-ah-tcp", tcp(ipv6().extension(kAh, 24)), kTcp, 6, 14, 78},
      {"ipv6-shortest-ah-tcp", tcp(ipv6().extension(kAh, 8)), kTcp, 6, 14, 62},
      {"ipv6-mobility-udp", udp(ipv6().extension(135, 16)), kUdp, 17, 14, 70},
      {"ipv6-hip-udp", udp(ipv6().extension(139, 40)), kUdp, 17, 14, 94},
      {"ipv6-shim6-udp", udp(ipv6().extension(140)), kUdp, 17, 14, 62},
      {"ipv6-options-gre", ipv6().extension(kOptions, 8, kGre).payload(8).build(), kOther, 47},
      {"ipv6-most-extensions", extensions(ANIC_IPV6_EXTENSIONS_MAX), kUdp, 17, 14, 54 + 3 * 8 + 3 * 16},
      {"ipv6-too-many-extensions", extensions(ANIC_IPV6_EXTENSIONS_MAX + 1), kNone},
      {"ipv6-longest-extension", udp(ipv6().extension(kOptions, 2048)), kUdp, 17, 14, 54 + 2048},
      {"ipv6-too-long-extensions", udp(ipv6().extension(kOptions, 2048).extension(kOptions)), kNone},
      {"ipv6-atomic-fragment-udp", udp(ipv6().fragment(0)), kUdp, 17, 14, 62},
      {"ipv6-half-a-fragment-header", first_bytes(udp(ipv6().fragment(0)), 54 + 3), kNone},
      {"ipv6-first-fragment-udp", udp(ipv6().fragment(1)), kUdp, 17, 14, 62, kFirst},
      {"ipv6-later-fragment-udp", udp(ipv6().fragment(9)), kUdp, 17, 14, 0, kLater},
      {"ipv6-last-fragment-tcp", tcp(ipv6().fragment(0xfff8)), kTcp, 6, 14, 0, kLater},
      {"ipv6-later-fragment-icmp", ipv6().fragment(8).icmp(135).build(), kOther, 58, 14, 0, kLater},
      // What it begins with is no header, whatever the number says.
      {"ipv6-later-fragment-options", udp(ipv6().fragment(8).extension(kOptions)), kOther, 60, 14, 0, kLater},
      {"ipv6-options-first-fragment-ah-tcp",
       tcp(ipv6().extension(kHopByHop).extension(kRouting).fragment(1).extension(kAh, 12).extension(
           kOptions)),
       kTcp, 6, 14, 54 + 8 + 8 + 8 + 12 + 8, kFirst},
      {"vlan-ipv4-udp", udp(eth().vlan(7).ipv4()), kUdp, 17, 18, 38},
      {"vlan-arp", eth().vlan(7).arp().build(), kArp, 0, 18},
      {"qinq-ipv6-tcp", tcp(eth().vlan(7, 0x88a8).vlan(8).ipv6()), kTcp, 6, 22, 62},
      {"three-vlans-ipv4-udp", udp(eth().vlan(7, 0x88a8).vlan(8).vlan(9).ipv4()), kNone, 0, 22},
      {"arp", eth().arp().build(), kArp},
      {"lldp", PacketBuilder().eth(0x88cc).payload(46).build(), kOther},
      {"llc", PacketBuilder().eth(46).payload(46).build(), kOther},
  };
}

anic_pkt parse(const Frame& frame) {
  anic_pkt pkt{};
  anic_parse(&pkt, frame.data(), frame.data() + frame.size());
  return pkt;
}

/// Whether the key's addresses are these bytes.
bool has_addresses(const anic_pkt& pkt, std::initializer_list<unsigned char> bytes) {
  return std::memcmp(pkt.key.addresses_be, std::data(bytes), bytes.size()) == 0;
}

}  // namespace

TEST_CASE("parse: each kind of packet, its layers and whether it is plain") {
  for (const Case& one : cases()) {
    INFO(one.name);
    const anic_pkt pkt = parse(one.frame);
    CHECK(pkt.kind == one.kind);
    CHECK(pkt.l3_off == one.l3_off);
    CHECK(pkt.l4_off == one.l4_off);
    CHECK(pkt.fragment == one.fragment);
    CHECK(ANIC_KEY_PROTOCOL(pkt.key.word) == one.protocol);
    CHECK(broken_rule(one.frame) == nullptr);
    const auto* end = one.frame.data() + one.frame.size();
    anic_pkt plain{};
    CHECK((anic_parse_plain_ipv4(&plain, one.frame.data(), end) ||
           anic_parse_plain_ipv6(&plain, one.frame.data(), end)) == one.plain);
  }
}

TEST_CASE("parse: the key has addresses, ports, protocol, DSCP and flags, as they stand in the header") {
  constexpr unsigned char kPorts[] = {4000 >> 8, 4000 & 0xff, 9000 >> 8, 9000 & 0xff};
  for (const std::uint8_t dscp : {0, 1, 46, 63}) {
    const anic_pkt v4 = parse(udp(ipv4().from("10.1.2.3").to("203.0.113.200").dscp(dscp, 3)));
    CHECK(has_addresses(v4, {10, 1, 2, 3, 203, 0, 113, 200}));
    CHECK(v4.key.word == ANIC_KEY_WORD(anic_load32(kPorts), IPPROTO_UDP, dscp, 0, 0));
    const anic_pkt v6 =
        parse(tcp(ipv6().from("fe80::1:2").to("2001:db8:ffff::8000:0:1").dscp(dscp, 3).extension(kOptions)));
    CHECK(has_addresses(v6, {0xfe, 0x80, 0,    0,    0,    0,    0, 0, 0, 0, 0,    0, 0, 1, 0, 2,  //
                             0x20, 1,    0x0d, 0xb8, 0xff, 0xff, 0, 0, 0, 0, 0x80, 0, 0, 0, 0, 1}));
    CHECK(v6.key.word == ANIC_KEY_WORD(anic_load32(kPorts), IPPROTO_TCP, dscp, 0, ANIC_KEY_IPV6));
  }
  CHECK(parse(udp(ipv6().fragment(8))).key.word ==
        ANIC_KEY_WORD(0, IPPROTO_UDP, 0, 0, ANIC_KEY_IPV6 | ANIC_KEY_LATER));
  CHECK(parse(udp(PacketBuilder().eth().ipv4(0, 8))).key.word ==
        ANIC_KEY_WORD(0, IPPROTO_UDP, 0, 0, ANIC_KEY_LATER));
}

TEST_CASE("parse: the length is the IP header's, padding and missing bytes or not") {
  for (const Frame& frame : {udp(ipv4()), udp(ipv6()), udp(PacketBuilder().eth().vlan(7).ipv4(8)),
                             udp(PacketBuilder().eth().vlan(7).vlan(8).ipv6().extension(kHopByHop))}) {
    CHECK(parse(frame).len == frame.size());
    CHECK(parse(first_bytes(frame, frame.size() - 20)).len == frame.size());
    Frame padded = frame;
    padded.resize(frame.size() + 20);
    CHECK(parse(padded).len == frame.size());
  }
  CHECK(parse(patched(udp(ipv4()), 16, {0xff, 0xff})).len == 14 + 65535);
  CHECK(parse(patched(udp(ipv6()), 18, {0xff, 0xff})).len == 54 + 65535);
  CHECK(parse(patched(udp(ipv4()), 16, {0, 0})).len == 0);  // longer than the field can say
  CHECK(parse(patched(udp(ipv6()), 18, {0, 0})).len == 0);
  CHECK(parse(patched(udp(ipv6().extension(kHopByHop)), 18, {0, 0})).len == 0);
  CHECK(parse(PacketBuilder().eth().arp().build()).len == 0);
}

TEST_CASE("parse: ARP, ICMP errors and neighbour discovery are control, all else is not") {
  const auto control = [](PacketBuilder ip, int type) {
    const anic_pkt pkt = parse(ip.icmp(static_cast<std::uint8_t>(type)).build());
    CHECK(pkt.kind == ANIC_KIND_ICMP);
    CHECK(pkt.icmp_type == type);
    return anic_is_control(&pkt) != 0;
  };
  for (int type = 0; type < 256; ++type) {
    INFO(type);
    CHECK(control(ipv4(), type) == (type == 3 || type == 11 || type == 12));
    CHECK(control(ipv6().extension(kHopByHop), type) ==
          ((type >= 1 && type <= 4) || (type >= 133 && type <= 137)));
  }
  for (const Case& one : cases()) {
    INFO(one.name);
    const anic_pkt pkt = parse(one.frame);
    if (pkt.kind != ANIC_KIND_ICMP) CHECK((anic_is_control(&pkt) != 0) == (pkt.kind == ANIC_KIND_ARP));
  }
}

TEST_CASE("parse: a frame cut off anywhere is what it was, or not understood; it never gains a port") {
  for (const Case& one : cases()) {
    const anic_pkt whole = parse(one.frame);
    bool understood = false;
    for (std::size_t size = 0; size < one.frame.size(); ++size) {
      INFO(one.name << " " << size);
      const Frame cut = first_bytes(one.frame, size);
      const anic_pkt part = parse(cut);
      CHECK(broken_rule(cut) == nullptr);
      if (part.kind == ANIC_KIND_NONE) {
        CHECK(!understood);
        CHECK(ANIC_KEY_PORTS_BE(part.key.word) == 0);
      } else {
        understood = true;
        CHECK(std::memcmp(&part, &whole, sizeof(whole)) == 0);
      }
    }
  }
}

TEST_CASE("parse: an extension header that is not all there is not understood, whatever would follow") {
  const Frame frame = ipv6().extension(kOptions, 64, kGre).payload(8).build();
  CHECK(parse(first_bytes(frame, 54 + 64)).kind == ANIC_KIND_OTHER);
  CHECK(parse(first_bytes(frame, 54 + 63)).kind == ANIC_KIND_NONE);
  CHECK(parse(first_bytes(frame, 54 + 8)).kind == ANIC_KIND_NONE);
}

TEST_CASE("parse: damaged frames break no rule") {
  const std::vector<Case> whole = cases();
  INFO("--rng-seed " << Catch::getSeed());
  std::mt19937 random(Catch::getSeed());
  for (int i = 0; i < 200000; ++i) {
    Frame frame = whole[random() % whole.size()].frame;
    if (random() % 4 == 0) frame.resize(random() % (frame.size() + 1));
    for (std::size_t flips = random() % 6; flips > 0 && !frame.empty(); --flips) {
      // Most of what decides stands in front.
      frame[random() % std::min<std::size_t>(frame.size(), 80)] ^= static_cast<std::byte>(1U << random() % 8);
    }
    if (const char* rule = broken_rule(frame)) FAIL(rule << ", frame " << i);
  }
}

// Run by hand, when a kind of packet is new: .build/bin/test-unit '[.corpus]'
TEST_CASE("parse: write each kind of packet to the fuzzer's corpus", "[.corpus]") {
  REQUIRE(std::filesystem::exists("tests/fuzz/corpus/parse"));
  for (const Case& one : cases()) {
    std::ofstream file(std::string("tests/fuzz/corpus/parse/") + one.name, std::ios::binary);
    file.write(reinterpret_cast<const char*>(one.frame.data()),
               static_cast<std::streamsize>(one.frame.size()));
    CHECK(file.good());
  }
}
