// SPDX-License-Identifier: Apache-2.0
#include "model.hpp"

#include <algorithm>
#include <iterator>

namespace agentnic::model {
namespace {

// Numbers as IANA lists them.
constexpr std::uint16_t kIpv4 = 0x0800;
constexpr std::uint16_t kArp = 0x0806;
constexpr std::uint16_t kIpv6 = 0x86dd;
constexpr std::uint16_t kVlan = 0x8100;
constexpr std::uint16_t kServiceVlan = 0x88a8;
constexpr std::uint8_t kIcmp = 1;
constexpr std::uint8_t kTcp = 6;
constexpr std::uint8_t kUdp = 17;
constexpr std::uint8_t kIpv6Fragment = 44;
constexpr std::uint8_t kAuthentication = 51;
constexpr std::uint8_t kIcmpv6 = 58;
// Hop-by-hop, routing, destination options, mobility, HIP, shim6: as long as their second byte says, in units
// of 8 bytes beyond the first 8.
constexpr std::uint8_t kIpv6Options[] = {0, 43, 60, 135, 139, 140};

constexpr std::size_t kMaxTags = 2;
constexpr std::size_t kMaxExtensions = 6;
constexpr std::size_t kMaxExtensionBytes = 2048;

/// What makes a frame one that cannot be parsed.
struct NotUnderstood {};

void require(bool condition) {
  if (!condition) throw NotUnderstood{};
}

/// A frame from somewhere on. Each access that is not in it is NotUnderstood.
class Bytes {
 public:
  explicit Bytes(std::span<const std::byte> bytes) : bytes_(bytes) {}

  [[nodiscard]] std::uint8_t u8(std::size_t at) const {
    require(at < bytes_.size());
    return static_cast<std::uint8_t>(bytes_[at]);
  }
  [[nodiscard]] std::uint16_t u16(std::size_t at) const {
    return static_cast<std::uint16_t>(u8(at) << 8U | u8(at + 1));
  }
  /// What comes after a header of this many bytes, all of which are there.
  [[nodiscard]] Bytes after(std::size_t header) const {
    require(header <= bytes_.size());
    return Bytes(bytes_.subspan(header));
  }
  template <typename Out>
  void copy(std::size_t at, std::size_t count, Out out) const {
    for (std::size_t i = 0; i < count; ++i) *out++ = u8(at + i);
  }

 private:
  std::span<const std::byte> bytes_;
};

void parse_transport(Packet& packet, const Bytes& at) {
  const bool later = packet.fragment == Fragment::Later;
  if (packet.protocol == kUdp || packet.protocol == kTcp) {
    packet.kind = Kind::Ports;
    if (later) return;
    (void)at.after(packet.protocol == kUdp ? 8 : 20);
    packet.src_port = at.u16(0);
    packet.dst_port = at.u16(2);
  } else if (packet.protocol == (packet.is_ipv6 ? kIcmpv6 : kIcmp) && !later) {
    packet.kind = Kind::Icmp;
    (void)at.after(8);
    packet.icmp_type = at.u8(0);
  }
}

Packet parse_ipv4(const Bytes& at) {
  Packet packet{.is_ip = true};
  require(at.u8(0) >> 4U == 4);
  const std::size_t header = (at.u8(0) & 15U) * std::size_t{4};
  require(header >= 20);
  const Bytes rest = at.after(header);
  packet.dscp = static_cast<std::uint8_t>(at.u8(1) >> 2U);
  const std::uint16_t flags_and_offset = at.u16(6);
  if ((flags_and_offset & 0x1fffU) != 0) {
    packet.fragment = Fragment::Later;
  } else if ((flags_and_offset & 0x2000U) != 0) {
    packet.fragment = Fragment::First;
  }
  packet.protocol = at.u8(9);
  for (Address* address : {&packet.src, &packet.dst}) (*address)[10] = (*address)[11] = 0xff;
  at.copy(12, 4, packet.src.begin() + 12);
  at.copy(16, 4, packet.dst.begin() + 12);
  parse_transport(packet, rest);
  return packet;
}

Packet parse_ipv6(const Bytes& at) {
  Packet packet{.is_ip = true, .is_ipv6 = true};
  require(at.u8(0) >> 4U == 6);
  Bytes rest = at.after(40);
  packet.dscp = static_cast<std::uint8_t>((at.u16(0) >> 6U) & 63U);
  packet.protocol = at.u8(6);
  at.copy(8, 16, packet.src.begin());
  at.copy(24, 16, packet.dst.begin());

  std::size_t count = 0;
  std::size_t bytes = 0;
  while (packet.fragment != Fragment::Later) {  // of which the rest is the middle of something
    std::size_t header = 0;
    if (packet.protocol == kIpv6Fragment) {
      const std::uint16_t offset_and_flag = rest.u16(2);
      if ((offset_and_flag & 0xfff8U) != 0) {
        packet.fragment = Fragment::Later;
      } else if ((offset_and_flag & 1U) != 0) {
        packet.fragment = Fragment::First;
      }
      header = 8;
    } else if (packet.protocol == kAuthentication) {
      header = (rest.u8(1) + std::size_t{2}) * 4;
    } else if (std::ranges::find(kIpv6Options, packet.protocol) != std::end(kIpv6Options)) {
      header = (rest.u8(1) + std::size_t{1}) * 8;
    } else {
      break;
    }
    require(++count <= kMaxExtensions && (bytes += header) <= kMaxExtensionBytes);
    packet.protocol = rest.u8(0);
    rest = rest.after(header);
  }
  parse_transport(packet, rest);
  return packet;
}

Packet parse_ethernet(const Bytes& frame) {
  std::uint16_t type = frame.u16(12);
  Bytes rest = frame.after(14);
  const auto is_tag = [&] { return type == kVlan || type == kServiceVlan; };
  for (std::size_t i = 0; i < kMaxTags && is_tag(); ++i) {
    type = rest.u16(2);
    rest = rest.after(4);
  }
  require(!is_tag());
  if (type == kIpv4) return parse_ipv4(rest);
  if (type == kIpv6) return parse_ipv6(rest);
  return {.kind = type == kArp ? Kind::Arp : Kind::Other};
}

}  // namespace

std::optional<Packet> parse(std::span<const std::byte> frame) {
  try {
    return parse_ethernet(Bytes(frame));
  } catch (const NotUnderstood&) {
    return std::nullopt;
  }
}

}  // namespace agentnic::model
