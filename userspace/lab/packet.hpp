// SPDX-License-Identifier: Apache-2.0
#pragma once

/// Builds frames, for benchmarks and tests.

#include <cstddef>
#include <cstdint>
#include <vector>

namespace agentnic::lab {

using Frame = std::vector<std::byte>;

/// Layers from the outside in; lengths, protocol numbers and checksums follow from what comes after.
/// Addresses are from documentation blocks, unless others are given: 192.0.2.1 to 192.0.2.2, 2001:db8::1 to
/// 2001:db8::2.
///
///     Frame frame = PacketBuilder().eth().vlan(7).ipv4().udp(4000, 9000).payload(64).build();
///     Frame other = PacketBuilder().eth().ipv6().to("fe80::1").dscp(46).extension(60).tcp(1, 2).build();
class PacketBuilder final {
 public:
  PacketBuilder& eth(std::uint16_t ethertype = 0);  ///< 0: of the next layer
  PacketBuilder& vlan(std::uint16_t id, std::uint16_t tpid = 0x8100);
  /// `option_bytes` must be a multiple of 4, 40 at most; `fragment` is the header's field: flags and offset.
  PacketBuilder& ipv4(std::size_t option_bytes = 0, std::uint16_t fragment = 0, std::uint8_t protocol = 0);
  PacketBuilder& ipv6(std::uint8_t next_header = 0);
  PacketBuilder& from(const char* address);  ///< of the IP header before, in its family's notation
  PacketBuilder& to(const char* address);    ///< likewise
  PacketBuilder& dscp(std::uint8_t value, std::uint8_t ecn = 0);  ///< of the IP header before
  /// An IPv6 extension header, zeros but for its first two bytes. `bytes` must be a multiple of 8 (AH: of 4,
  /// 8 at least).
  PacketBuilder& extension(std::uint8_t type, std::size_t bytes = 8, std::uint8_t next_header = 0);
  PacketBuilder& fragment(std::uint16_t field);  ///< IPv6: the header's field: offset and flag
  PacketBuilder& arp();
  PacketBuilder& udp(std::uint16_t from, std::uint16_t to);
  PacketBuilder& tcp(std::uint16_t from, std::uint16_t to);
  PacketBuilder& icmp(std::uint8_t type);  ///< ICMPv6 after ipv6()
  PacketBuilder& payload(std::size_t bytes);

  [[nodiscard]] Frame build() const;

 private:
  void announce(std::uint16_t ethertype);
  void carry(std::uint8_t protocol);
  void put_address(const char* text, std::size_t index);
  std::byte* grow(std::size_t bytes);

  Frame frame_;
  std::size_t ethertype_at_ = 0;  // where the next layer writes its ethertype; 0: nowhere
  std::size_t protocol_at_ = 0;   // likewise its protocol number
  std::size_t ip_at_ = 0;
  std::size_t ip_bytes_ = 0;
  std::size_t l4_at_ = 0;
  bool is_v6_ = false;
  std::uint8_t l4_ = 0;
};

}  // namespace agentnic::lab
