// SPDX-License-Identifier: Apache-2.0
#include "lib/parse.h"

#include <catch2/catch_test_macros.hpp>
#include <cstring>
#include <memory>
#include <random>

#include "lab/packet.hpp"

using namespace agentnic;
using lab::PacketBuilder;

namespace {

/// Parses a copy that ends where its heap block ends, so that a sanitizer sees a read beyond it.
anic_pkt parse(const lab::Frame& frame) {
  const auto copy = std::make_unique<std::byte[]>(frame.size());
  if (!frame.empty()) std::memcpy(copy.get(), frame.data(), frame.size());
  anic_pkt pkt{};
  anic_parse(&pkt, copy.get(), copy.get() + frame.size());
  return pkt;
}

}  // namespace

TEST_CASE("parse: UDP over IPv4, with its offsets and ports") {
  const anic_pkt pkt = parse(PacketBuilder().eth().ipv4().udp(4000, 9000).payload(10).build());
  CHECK(pkt.kind == ANIC_KIND_UDP);
  CHECK(pkt.ip_version == 4);
  CHECK(pkt.l3_off == 14);
  CHECK(pkt.l4_off == 34);
  CHECK(pkt.src_port == 4000);
  CHECK(pkt.dst_port == 9000);
  CHECK(pkt.fragment == ANIC_FRAGMENT_NONE);
}

TEST_CASE("parse: one VLAN tag and IPv4 options move the ports") {
  const anic_pkt pkt = parse(PacketBuilder().eth().vlan(7).ipv4(40).tcp(1, 22).build());
  CHECK(pkt.kind == ANIC_KIND_TCP);
  CHECK(pkt.l3_off == 18);
  CHECK(pkt.l4_off == 18 + 60);
  CHECK(pkt.dst_port == 22);
}

TEST_CASE("parse: UDP over IPv6 in an 802.1ad tag") {
  const anic_pkt pkt = parse(PacketBuilder().eth().vlan(7, 0x88a8).ipv6().udp(1, 53).build());
  CHECK(pkt.kind == ANIC_KIND_UDP);
  CHECK(pkt.ip_version == 6);
  CHECK(pkt.dst_port == 53);
}

TEST_CASE("parse: two VLAN tags and IPv6 extension headers are not understood") {
  CHECK(parse(PacketBuilder().eth().vlan(7).vlan(8).ipv4().udp(1, 2).build()).kind == ANIC_KIND_NONE);
  for (const std::uint8_t extension : {0, 43, 44, 51, 60}) {
    CHECK(
        parse(PacketBuilder().eth(0x86dd).ipv6(extension == 0 ? 255 : extension).payload(40).build()).kind ==
        (extension == 0 ? ANIC_KIND_OTHER : ANIC_KIND_NONE));
  }
}

TEST_CASE("parse: a first fragment has ports, a later one has none") {
  const anic_pkt first = parse(PacketBuilder().eth().ipv4(0, 0x2000).udp(1, 9001).payload(16).build());
  CHECK(first.fragment == ANIC_FRAGMENT_FIRST);
  CHECK(first.dst_port == 9001);
  const anic_pkt later = parse(PacketBuilder().eth().ipv4(0, 0x2010).udp(1, 9001).payload(16).build());
  CHECK(later.fragment == ANIC_FRAGMENT_LATER);
  CHECK(later.kind == ANIC_KIND_UDP);
  CHECK(later.dst_port == 0);
  CHECK(later.l4_off == 0);
}

TEST_CASE("parse: ICMP errors and neighbour discovery are control, echo is not") {
  const auto control = [](PacketBuilder& ip, std::uint8_t type) {
    const anic_pkt pkt = parse(ip.icmp(type).build());
    CHECK(pkt.kind == ANIC_KIND_ICMP);
    return anic_icmp_is_control(&pkt) != 0;
  };
  for (int type = 0; type < 256; ++type) {
    INFO(type);
    PacketBuilder v4;
    CHECK(control(v4.eth().ipv4(), static_cast<std::uint8_t>(type)) ==
          (type == 3 || type == 11 || type == 12));
    PacketBuilder v6;
    CHECK(control(v6.eth().ipv6(), static_cast<std::uint8_t>(type)) ==
          ((type >= 1 && type <= 4) || (type >= 133 && type <= 137)));
  }
}

TEST_CASE("parse: every truncation of every kind of packet is safe and never gains a port") {
  const lab::Frame frames[] = {
      PacketBuilder().eth().vlan(7).ipv4(40).tcp(1, 22).build(),
      PacketBuilder().eth().ipv6().udp(1, 53).build(),
      PacketBuilder().eth().arp().build(),
      PacketBuilder().eth().ipv6().icmp(135).build(),
      PacketBuilder().eth().ipv4().icmp(3).build(),
  };
  for (const lab::Frame& frame : frames) {
    const anic_pkt whole = parse(frame);
    for (std::size_t length = 0; length < frame.size(); ++length) {
      const anic_pkt part =
          parse(lab::Frame(frame.begin(), frame.begin() + static_cast<std::ptrdiff_t>(length)));
      CHECK((part.kind == ANIC_KIND_NONE || part.kind == whole.kind));
      CHECK((part.dst_port == 0 || part.dst_port == whole.dst_port));
    }
  }
}

TEST_CASE("parse: random bytes never read beyond the frame and always fill the result") {
  std::mt19937 random(11);
  for (int i = 0; i < 20000; ++i) {
    lab::Frame frame(random() % 100);
    for (auto& byte : frame) byte = static_cast<std::byte>(random());
    if (frame.size() > 14 && i % 2 == 0) {  // let half of them get as far as IP
      frame[12] = std::byte{0x08};
      frame[13] = std::byte{0x00};
      frame[14] = static_cast<std::byte>(0x40 | (random() % 16));
    }
    const anic_pkt pkt = parse(frame);
    CHECK(pkt.kind < ANIC_KIND__MAX);
    CHECK(pkt.l4_off <= frame.size());
    if (pkt.l4_off != 0) CHECK(pkt.l4_off > pkt.l3_off);
  }
}
