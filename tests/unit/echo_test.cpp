// SPDX-License-Identifier: Apache-2.0
#include "path/xsk/echo.hpp"

#include <catch2/catch_test_macros.hpp>
#include <cstring>

#include "base/checksum.hpp"
#include "lab/packet.hpp"
#include "lib/parse.h"

using namespace agentnic;
using lab::Frame;
using lab::PacketBuilder;
using path::Turned;

namespace {

std::uint16_t word_at(const Frame& frame, std::size_t at) {
  return static_cast<std::uint16_t>(std::to_integer<unsigned>(frame[at]) << 8U |
                                    std::to_integer<unsigned>(frame[at + 1]));
}

void put_word(Frame& frame, std::size_t at, std::uint16_t value) {
  frame[at] = static_cast<std::byte>(value >> 8U);
  frame[at + 1] = static_cast<std::byte>(value);
}

/// RFC 768 and RFC 8200 word by word, written apart from the code under test.
std::uint16_t udp_checksum(const Frame& frame) {
  anic_pkt pkt{};
  anic_parse(&pkt, frame.data(), frame.data() + frame.size());
  const std::size_t udp = pkt.l4_off;
  const std::size_t length = word_at(frame, udp + 4);
  const std::size_t addresses = pkt.l3_off + (pkt.ip_version == 6 ? 8U : 12U);
  std::uint32_t sum = static_cast<std::uint32_t>(length) + 17;
  for (std::size_t i = 0; i < (pkt.ip_version == 6 ? 32U : 8U); i += 2) sum += word_at(frame, addresses + i);
  for (std::size_t i = 0; i < length; i += 2) {
    if (i == 6) continue;  // the field itself
    sum += i + 1 < length ? word_at(frame, udp + i) : std::to_integer<unsigned>(frame[udp + i]) << 8U;
  }
  while (sum >> 16U) sum = (sum & 0xffffU) + (sum >> 16U);
  const auto value = static_cast<std::uint16_t>(~sum);
  return value == 0 ? 0xffff : value;
}

Frame udp_frame(bool v6, std::size_t payload) {
  PacketBuilder builder;
  builder.eth();
  if (v6) {
    builder.ipv6();
  } else {
    builder.ipv4();
  }
  return builder.udp(4000, 9001).payload(payload).build();
}

Turned turn_around(Frame& frame) {
  const path::Piece piece = frame;
  return path::turn_around({&piece, 1});
}

}  // namespace

TEST_CASE("echo: both addresses and both ports are swapped, the rest stays") {
  const Frame before = PacketBuilder().eth().vlan(9).ipv4().udp(4000, 9001).payload(5).build();
  Frame after = before;
  REQUIRE(turn_around(after) == Turned::Ready);
  CHECK(std::memcmp(after.data(), before.data() + 6, 6) == 0);
  CHECK(std::memcmp(after.data() + 6, before.data(), 6) == 0);
  CHECK(std::memcmp(after.data() + 18 + 12, before.data() + 18 + 16, 4) == 0);
  CHECK(std::memcmp(after.data() + 18 + 16, before.data() + 18 + 12, 4) == 0);
  CHECK(word_at(after, 38) == 9001);
  CHECK(word_at(after, 40) == 4000);
  REQUIRE(turn_around(after) == Turned::Ready);
  CHECK(after == before);
}

TEST_CASE("echo: a valid checksum stays valid, for every length and both families") {
  for (const bool v6 : {false, true}) {
    for (std::size_t payload = 0; payload < 70; ++payload) {
      INFO(v6 << " " << payload);
      Frame frame = udp_frame(v6, payload);
      const std::size_t at = v6 ? 14 + 40 + 6 : 14 + 20 + 6;
      CHECK(word_at(frame, at) == udp_checksum(frame));
      REQUIRE(turn_around(frame) == Turned::Ready);
      CHECK(word_at(frame, at) == udp_checksum(frame));
    }
  }
}

TEST_CASE("echo: a partial checksum, as veth hands it over, is completed") {
  for (const bool v6 : {false, true}) {
    for (std::size_t payload = 1; payload < 70; ++payload) {
      INFO(v6 << " " << payload);
      Frame frame = udp_frame(v6, payload);
      const std::size_t ip = 14;
      const std::size_t udp = v6 ? ip + 40 : ip + 20;
      std::uint64_t pseudo = checksum_add(frame.data() + ip + (v6 ? 8 : 12), v6 ? 32 : 8, 0);
      pseudo += ANIC_BE16(static_cast<std::uint16_t>(8 + payload)) + ANIC_BE16(17);
      const std::uint16_t partial = checksum_fold(pseudo);
      std::memcpy(frame.data() + udp + 6, &partial, 2);
      REQUIRE(turn_around(frame) == Turned::Completed);
      CHECK(word_at(frame, udp + 6) == udp_checksum(frame));
    }
  }
}

TEST_CASE("echo: any flipped bit behind the Ethernet addresses is noticed or harmless") {
  const Frame good = udp_frame(false, 33);
  for (std::size_t at = 34; at < good.size(); ++at) {
    for (unsigned bit = 0; bit < 8; ++bit) {
      Frame frame = good;
      frame[at] ^= static_cast<std::byte>(1U << bit);
      INFO(at << "." << bit);
      CHECK((turn_around(frame) == Turned::BadChecksum || turn_around(frame) == Turned::NotUdp));
    }
  }
}

TEST_CASE("echo: IPv4 without a checksum goes back without one") {
  Frame frame = udp_frame(false, 8);
  put_word(frame, 40, 0);
  REQUIRE(turn_around(frame) == Turned::Ready);
  CHECK(word_at(frame, 40) == 0);
}

TEST_CASE("echo: what is not a whole UDP datagram is refused and left alone") {
  Frame longer = udp_frame(false, 8);
  put_word(longer, 38, 17);  // one byte more than there is
  Frame shorter = udp_frame(false, 8);
  put_word(shorter, 38, 7);
  const Frame cases[] = {longer,
                         shorter,
                         PacketBuilder().eth().ipv4().tcp(1, 2).build(),
                         PacketBuilder().eth().arp().build(),
                         PacketBuilder().eth().ipv4(0, 0x2000).udp(1, 2).payload(8).build(),
                         Frame{}};
  for (const Frame& one : cases) {
    Frame frame = one;
    CHECK(turn_around(frame) == Turned::NotUdp);
    CHECK(frame == one);
  }
}
