// SPDX-License-Identifier: Apache-2.0
#pragma once

/// UDP datagrams in frames: read, answered in place, built. Pure: no system call, no allocation but for
/// errors.
///
/// A packet lies in one piece or in several of any length, one after the other (AF_XDP with XDP_PKT_CONTD).
/// All of its headers are in the first. Offsets are from its beginning, lengths in bytes, ports in host
/// order.

#include <netinet/in.h>

#include <array>
#include <cstddef>
#include <cstdint>
#include <expected>
#include <optional>
#include <span>
#include <string>

#include "base/result.hpp"
#include "path/sockets/udp.hpp"

namespace agentnic::path {

using Piece = std::span<std::byte>;
using Pieces = std::span<const Piece>;
using Mac = std::array<std::uint8_t, 6>;

/// One end of a datagram. No zone: a link-local address is that of the interface at hand.
struct Endpoint {
  in6_addr address{};  ///< IPv4: mapped (RFC 4291, section 2.5.5.2)
  std::uint16_t port = 0;

  static Endpoint from(const Address& address) noexcept;
  /// `scope`: of a link-local address, the index of its interface.
  [[nodiscard]] Address to_address(std::uint32_t scope = 0) const noexcept;
  [[nodiscard]] bool is_v4() const noexcept { return IN6_IS_ADDR_V4MAPPED(&address); }
  /// Neither a group, nor a broadcast, nor nobody.
  [[nodiscard]] bool is_one_host() const noexcept;
  bool operator==(const Endpoint& other) const noexcept;
};

/// `10.0.0.9` or `2001:db8::9`.
std::string text_of(const in6_addr& address);

enum class Checksum : std::uint8_t {
  Whole,
  Absent,      ///< IPv4 only
  Partial,     ///< CHECKSUM_PARTIAL, as veth hands it over: the field holds the sum of the pseudo header
  Unverified,  ///< the caller did not want to know
};

/// A received datagram.
struct Datagram {
  Endpoint source;
  Endpoint destination;
  std::size_t payload_length = 0;
  std::uint16_t l3_offset = 0;
  std::uint16_t l4_offset = 0;
  std::uint16_t payload_sum = 0;          ///< folded; when the checksum is Whole or Partial
  std::optional<std::uint16_t> vlan_tci;  ///< of the outermost tag
  Checksum checksum = Checksum::Unverified;
  bool is_answerable = false;  ///< from a port of one host to a port of one host

  [[nodiscard]] std::size_t payload_offset() const noexcept { return std::size_t{l4_offset} + 8; }
};

enum class Unread : std::uint8_t {
  NotUdp,       ///< not a whole UDP datagram: another protocol, a fragment, lengths that do not fit
  BadChecksum,  ///< damaged on the way
};

enum class Verify : std::uint8_t {
  Checksums,
  Nothing,  ///< where the device did
};

/// Up to two VLAN tags, IPv4 with options, IPv6 with extension headers (bpf/lib/parse.h). Of the fields of a
/// packet, none is believed that the pieces do not bear out.
std::expected<Datagram, Unread> read_datagram(Pieces packet, Verify verify = Verify::Checksums) noexcept;

/// Addresses a received packet back to its sender, in place, with the payload that it came with, of which
/// nothing is read again: a one's-complement sum does not depend on the order of its words (RFC 1071). A
/// valid checksum stays valid, an absent one absent, and a partial one is completed.
///
/// Addresses and ports are swapped; TTL or hop limit is 64, ECN "not capable". The rest stays: tags, options,
/// extension headers, DSCP, the IPv4 id. The length of the packet, or 0 for one that is_answerable is false
/// for, which is left alone.
std::size_t reply(Pieces packet, const Datagram& received) noexcept;

/// The same with another payload, which stands in `packet` from received.payload_offset() on, with a checksum
/// of its own. The first piece is the one received; there may be more or fewer after it. 0, too, when the
/// payload is longer than the pieces or than IP can say.
std::size_t reply(Pieces packet, const Datagram& received, std::size_t payload_length) noexcept;

/// What each header of a flow says.
struct FlowEnds {
  Mac source_mac{};
  Mac destination_mac{};
  std::optional<std::uint16_t> vlan_tci;  ///< a tag of 802.1Q
  Endpoint source;
  Endpoint destination;
};

/// The headers of all datagrams from one endpoint to another, but for what depends on the payload. IPv4
/// without options and with "don't fragment", TTL or hop limit 64. Copyable, one thread each.
class Flow final {
 public:
  static Result<Flow> make(const FlowEnds& ends);
  /// The way back of a received packet whose first piece this is, with its VLAN tags: for answers in other
  /// frames. Nothing for one that is_answerable is false for.
  static std::optional<Flow> back(Piece first, const Datagram& received) noexcept;

  /// Bytes before the payload, the same for every packet.
  [[nodiscard]] std::size_t headroom() const noexcept { return headroom_; }
  /// The longest payload where the packet from the IP header on is at most `mtu` bytes long.
  [[nodiscard]] std::size_t payload_max(std::size_t mtu) const noexcept;

  /// Writes the headers before a payload that stands in `packet` from headroom() on. The length of the
  /// packet, or 0 when the first piece is shorter than the headers, or the payload longer than the pieces or
  /// than IP can say.
  std::size_t build(Pieces packet, std::size_t payload_length) noexcept;

 private:
  static constexpr std::size_t kHeadersMax = 14 + 2 * 4 + 40 + 8;
  Flow() = default;
  void prepare(std::size_t l3_offset, const Endpoint& source, const Endpoint& destination) noexcept;

  std::array<std::byte, kHeadersMax> headers_{};
  std::uint64_t udp_sum_ = 0;  // pseudo header and ports, without the lengths
  std::uint64_t ip_sum_ = 0;   // IPv4 header without length and id
  std::uint16_t headroom_ = 0;
  std::uint16_t l3_offset_ = 0;
  std::uint16_t next_id_ = 0;
  bool is_v6_ = false;
};

}  // namespace agentnic::path
