// SPDX-License-Identifier: Apache-2.0
#include "path/xsk/datagram.hpp"

#include <arpa/inet.h>
#include <fmt/format.h>
#include <linux/if_ether.h>

#include <algorithm>
#include <bit>
#include <cstring>

#include "base/checksum.hpp"
#include "lib/parse.h"

namespace agentnic::path {
namespace {

constexpr std::uint8_t kHops = 64;  // IPDEFTTL
constexpr std::uint16_t kDontFragment = 0x4000;
constexpr std::size_t kLengthMax = 0xffff;
constexpr std::byte kMapped[12] = {{}, {}, {}, {}, {}, {}, {}, {}, {}, {}, std::byte{0xff}, std::byte{0xff}};

std::uint16_t get16(const std::byte* at) noexcept {
  std::uint16_t value = 0;
  std::memcpy(&value, at, sizeof(value));
  return value;
}

void put16(std::byte* at, std::uint16_t value) noexcept { std::memcpy(at, &value, sizeof(value)); }

std::uint16_t be16(std::size_t value) noexcept { return htons(static_cast<std::uint16_t>(value)); }

/// What stands in the UDP header for a sum; 0 there means that there is none (RFC 768).
std::uint16_t udp_check(std::uint64_t sum) noexcept {
  const auto check = static_cast<std::uint16_t>(~checksum_fold(sum));
  return check == 0 ? std::uint16_t{0xffff} : check;
}

/// Of the pseudo header of RFC 768 or RFC 8200, section 8.1, without the length.
std::uint64_t pseudo_sum(const std::byte* ip, bool is_v6) noexcept {
  const std::uint64_t sum = is_v6 ? checksum_add(ip + offsetof(ipv6hdr, saddr), 32, 0)
                                  : checksum_add(ip + offsetof(iphdr, saddr), 8, 0);
  return sum + be16(IPPROTO_UDP);
}

void check_ipv4(std::byte* ip, std::size_t size) noexcept {
  put16(ip + offsetof(iphdr, check), 0);
  put16(ip + offsetof(iphdr, check), static_cast<std::uint16_t>(~checksum_fold(checksum_add(ip, size, 0))));
}

std::size_t size_of(Pieces packet) noexcept {
  std::size_t size = 0;
  for (const Piece piece : packet) size += piece.size();
  return size;
}

/// The sum of `size` bytes from `offset` on.
std::uint64_t sum_of(Pieces packet, std::size_t offset, std::size_t size) noexcept {
  std::uint64_t sum = 0;
  bool is_odd = false;
  for (const Piece piece : packet) {
    if (size == 0) break;
    const std::size_t skipped = std::min(offset, piece.size());
    const std::size_t count = std::min(piece.size() - skipped, size);
    offset -= skipped;
    if (count == 0) continue;
    const std::byte* data = piece.data() + skipped;
    sum = is_odd ? checksum_add_odd(data, count, sum) : checksum_add(data, count, sum);
    is_odd ^= count % 2 != 0;
    size -= count;
  }
  return sum;
}

in6_addr address_at(const std::byte* at, bool is_v6) noexcept {
  in6_addr address{};
  if (is_v6) {
    std::memcpy(&address, at, sizeof(address));
  } else {
    std::memcpy(&address, kMapped, sizeof(kMapped));
    std::memcpy(address.s6_addr + sizeof(kMapped), at, sizeof(in_addr));
  }
  return address;
}

/// From a packet whose UDP header is there: the two ends, and whether they are such.
bool read_ends(const std::byte* ip, const std::byte* l4, bool is_v6, Datagram& datagram) noexcept {
  const std::byte* source = ip + (is_v6 ? offsetof(ipv6hdr, saddr) : offsetof(iphdr, saddr));
  datagram.source = {address_at(source, is_v6), ntohs(get16(l4))};
  datagram.destination = {address_at(source + (is_v6 ? sizeof(in6_addr) : sizeof(in_addr)), is_v6),
                          ntohs(get16(l4 + offsetof(udphdr, dest)))};
  // Such addresses are not for the wire; taken, they would be those of IPv4 hosts.
  return !is_v6 || (!datagram.source.is_v4() && !datagram.destination.is_v4());
}

/// Fills checksum and payload_sum; false for a damaged packet.
bool read_checksum(Pieces packet, bool is_v6, Verify verify, Datagram& datagram) noexcept {
  const std::byte* ip = packet.front().data() + datagram.l3_offset;
  const std::byte* l4 = packet.front().data() + datagram.l4_offset;
  if (verify == Verify::Checksums && !is_v6) {
    const std::size_t ip_bytes = datagram.l4_offset - datagram.l3_offset;
    if (checksum_fold(checksum_add(ip, ip_bytes, 0)) != 0xffff) return false;
  }
  const std::uint16_t check = get16(l4 + offsetof(udphdr, check));
  if (check == 0) {
    datagram.checksum = Checksum::Absent;
    return !is_v6;  // RFC 8200, section 8.1
  }
  const std::uint64_t pseudo = pseudo_sum(ip, is_v6) + get16(l4 + offsetof(udphdr, len));
  const bool may_be_partial = check == checksum_fold(pseudo);
  if (verify == Verify::Nothing && !may_be_partial) return true;
  datagram.payload_sum = checksum_fold(sum_of(packet, datagram.payload_offset(), datagram.payload_length));
  const std::uint64_t whole = pseudo + checksum_add(l4, sizeof(udphdr), datagram.payload_sum);
  if (checksum_fold(whole) == 0xffff) {
    datagram.checksum = Checksum::Whole;
    return true;
  }
  datagram.checksum = Checksum::Partial;
  return may_be_partial;
}

/// All of a reply but lengths and checksums.
void address_back(std::byte* frame, const Datagram& received) noexcept {
  const bool is_v6 = !received.source.is_v4();
  std::byte* ip = frame + received.l3_offset;
  std::byte* l4 = frame + received.l4_offset;
  std::swap_ranges(frame, frame + ETH_ALEN, frame + ETH_ALEN);
  const std::size_t address_bytes = is_v6 ? sizeof(in6_addr) : sizeof(in_addr);
  std::byte* source = ip + (is_v6 ? offsetof(ipv6hdr, saddr) : offsetof(iphdr, saddr));
  std::swap_ranges(source, source + address_bytes, source + address_bytes);
  std::swap_ranges(l4, l4 + sizeof(std::uint16_t), l4 + sizeof(std::uint16_t));
  if (is_v6) {
    ip[1] &= std::byte{0xcf};
    ip[offsetof(ipv6hdr, hop_limit)] = std::byte{kHops};
  } else {
    ip[offsetof(iphdr, tos)] &= std::byte{0xfc};
    ip[offsetof(iphdr, ttl)] = std::byte{kHops};
  }
}

}  // namespace

Endpoint Endpoint::from(const Address& address) noexcept {
  Endpoint made;
  if (address.storage.ss_family == AF_INET) {
    const auto* in = reinterpret_cast<const sockaddr_in*>(&address.storage);
    made.address = address_at(reinterpret_cast<const std::byte*>(&in->sin_addr), false);
    made.port = ntohs(in->sin_port);
  } else {
    const auto* in6 = reinterpret_cast<const sockaddr_in6*>(&address.storage);
    made.address = in6->sin6_addr;
    made.port = ntohs(in6->sin6_port);
  }
  return made;
}

Address Endpoint::to_address(std::uint32_t scope) const noexcept {
  Address made;
  if (is_v4()) {
    auto* in = reinterpret_cast<sockaddr_in*>(&made.storage);
    in->sin_family = AF_INET;
    in->sin_port = htons(port);
    std::memcpy(&in->sin_addr, address.s6_addr + sizeof(kMapped), sizeof(in->sin_addr));
    made.length = sizeof(*in);
  } else {
    auto* in6 = reinterpret_cast<sockaddr_in6*>(&made.storage);
    in6->sin6_family = AF_INET6;
    in6->sin6_port = htons(port);
    in6->sin6_addr = address;
    in6->sin6_scope_id = IN6_IS_ADDR_LINKLOCAL(&address) ? scope : 0;
    made.length = sizeof(*in6);
  }
  return made;
}

bool Endpoint::is_one_host() const noexcept {
  if (!is_v4()) return !IN6_IS_ADDR_MULTICAST(&address) && !IN6_IS_ADDR_UNSPECIFIED(&address);
  // 0.0.0.0/8 is nobody, 224.0.0.0/4 are groups, 240.0.0.0/4 is not in use but for the broadcast.
  const std::uint8_t first = address.s6_addr[sizeof(kMapped)];
  return first != 0 && first < 224;
}

bool Endpoint::operator==(const Endpoint& other) const noexcept {
  return port == other.port && std::memcmp(&address, &other.address, sizeof(address)) == 0;
}

std::string text_of(const in6_addr& address) {
  char text[INET6_ADDRSTRLEN] = {};
  if (IN6_IS_ADDR_V4MAPPED(&address)) {
    ::inet_ntop(AF_INET, address.s6_addr + sizeof(kMapped), text, sizeof(text));
  } else {
    ::inet_ntop(AF_INET6, &address, text, sizeof(text));
  }
  return text;
}

std::expected<Datagram, Unread> read_datagram(Pieces packet, Verify verify) noexcept {
  if (packet.empty() || packet.front().size() < sizeof(ethhdr)) return std::unexpected(Unread::NotUdp);
  const Piece first = packet.front();
  anic_pkt pkt{};
  anic_parse(&pkt, first.data(), first.data() + first.size());
  // A length of 0 is one that the IP header cannot say, and then UDP cannot either.
  if (pkt.kind != ANIC_KIND_UDP || pkt.fragment != ANIC_FRAGMENT_NONE || pkt.len == 0 ||
      pkt.len > size_of(packet))
    return std::unexpected(Unread::NotUdp);
  const std::byte* ip = first.data() + pkt.l3_off;
  const std::byte* l4 = first.data() + pkt.l4_off;
  const std::size_t udp_length = ntohs(get16(l4 + offsetof(udphdr, len)));
  if (udp_length < sizeof(udphdr) || pkt.l4_off + udp_length > pkt.len)
    return std::unexpected(Unread::NotUdp);

  Datagram datagram;
  datagram.payload_length = udp_length - sizeof(udphdr);
  datagram.l3_offset = pkt.l3_off;
  datagram.l4_offset = pkt.l4_off;
  if (pkt.l3_off > sizeof(ethhdr)) datagram.vlan_tci = ntohs(get16(first.data() + sizeof(ethhdr)));
  const bool is_v6 = pkt.ip_version == 6;
  if (!read_ends(ip, l4, is_v6, datagram)) return std::unexpected(Unread::NotUdp);
  if (!read_checksum(packet, is_v6, verify, datagram)) return std::unexpected(Unread::BadChecksum);
  const std::byte group_bit = (first[0] | first[ETH_ALEN]) & std::byte{1};
  datagram.is_answerable = group_bit == std::byte{} && datagram.source.is_one_host() &&
                           datagram.destination.is_one_host() && datagram.source.port != 0 &&
                           datagram.destination.port != 0;
  return datagram;
}

std::size_t reply(Pieces packet, const Datagram& received) noexcept {
  if (!received.is_answerable) return 0;
  const bool is_v6 = !received.source.is_v4();
  std::byte* frame = packet.front().data();
  std::byte* ip = frame + received.l3_offset;
  std::byte* l4 = frame + received.l4_offset;
  address_back(frame, received);
  if (!is_v6) check_ipv4(ip, received.l4_offset - received.l3_offset);
  if (received.checksum == Checksum::Partial) {
    put16(l4 + offsetof(udphdr, check), 0);
    const std::uint64_t pseudo = pseudo_sum(ip, is_v6) + get16(l4 + offsetof(udphdr, len));
    put16(l4 + offsetof(udphdr, check),
          udp_check(pseudo + checksum_add(l4, sizeof(udphdr), received.payload_sum)));
  }
  return received.payload_offset() + received.payload_length;
}

std::size_t reply(Pieces packet, const Datagram& received, std::size_t payload_length) noexcept {
  const bool is_v6 = !received.source.is_v4();
  const std::size_t length = received.payload_offset() + payload_length;
  const std::size_t ip_length = length - received.l3_offset - (is_v6 ? sizeof(ipv6hdr) : 0);
  const std::size_t udp_length = sizeof(udphdr) + payload_length;
  if (!received.is_answerable || payload_length > kLengthMax || ip_length > kLengthMax ||
      length > size_of(packet))
    return 0;
  std::byte* frame = packet.front().data();
  std::byte* ip = frame + received.l3_offset;
  std::byte* l4 = frame + received.l4_offset;
  address_back(frame, received);
  put16(ip + (is_v6 ? offsetof(ipv6hdr, payload_len) : offsetof(iphdr, tot_len)), be16(ip_length));
  if (!is_v6) check_ipv4(ip, received.l4_offset - received.l3_offset);
  put16(l4 + offsetof(udphdr, len), be16(udp_length));
  put16(l4 + offsetof(udphdr, check), 0);
  const std::uint64_t sum =
      pseudo_sum(ip, is_v6) + be16(udp_length) + sum_of(packet, received.payload_offset(), payload_length);
  put16(l4 + offsetof(udphdr, check), udp_check(checksum_add(l4, sizeof(udphdr), sum)));
  return length;
}

Result<Flow> Flow::make(const FlowEnds& ends) {
  const std::string what = fmt::format("make headers from {} to {}, port {}", text_of(ends.source.address),
                                       text_of(ends.destination.address), ends.destination.port);
  if (ends.source.is_v4() != ends.destination.is_v4())
    return fail(Exit::BadInput, what + ": one is IPv4, the other IPv6");
  if (ends.destination.port == 0) return fail(Exit::BadInput, what + ": no datagram can go to port 0");
  Flow flow;
  std::byte* at = flow.headers_.data();
  std::memcpy(at, ends.destination_mac.data(), ETH_ALEN);
  std::memcpy(at + ETH_ALEN, ends.source_mac.data(), ETH_ALEN);
  std::size_t l3_offset = sizeof(ethhdr);
  if (ends.vlan_tci) {
    put16(at + 2 * ETH_ALEN, be16(ETH_P_8021Q));
    put16(at + sizeof(ethhdr), be16(*ends.vlan_tci));
    l3_offset += sizeof(anic_vlan);
  }
  flow.prepare(l3_offset, ends.source, ends.destination);
  return flow;
}

std::optional<Flow> Flow::back(Piece first, const Datagram& received) noexcept {
  if (!received.is_answerable) return std::nullopt;
  Flow flow;
  std::byte* at = flow.headers_.data();
  std::memcpy(at, first.data(), received.l3_offset);
  std::swap_ranges(at, at + ETH_ALEN, at + ETH_ALEN);
  flow.prepare(received.l3_offset, received.destination, received.source);
  return flow;
}

/// After the addresses of Ethernet and the tags.
void Flow::prepare(std::size_t l3_offset, const Endpoint& source, const Endpoint& destination) noexcept {
  is_v6_ = !source.is_v4();
  l3_offset_ = static_cast<std::uint16_t>(l3_offset);
  std::byte* ip = headers_.data() + l3_offset;
  put16(ip - sizeof(std::uint16_t), be16(is_v6_ ? ETH_P_IPV6 : ETH_P_IP));
  if (is_v6_) {
    ip[0] = std::byte{6U << 4U};
    ip[offsetof(ipv6hdr, nexthdr)] = std::byte{IPPROTO_UDP};
    ip[offsetof(ipv6hdr, hop_limit)] = std::byte{kHops};
    std::memcpy(ip + offsetof(ipv6hdr, saddr), &source.address, sizeof(in6_addr));
    std::memcpy(ip + offsetof(ipv6hdr, daddr), &destination.address, sizeof(in6_addr));
  } else {
    ip[0] = std::byte{4U << 4U | sizeof(iphdr) / 4};
    put16(ip + offsetof(iphdr, frag_off), be16(kDontFragment));
    ip[offsetof(iphdr, ttl)] = std::byte{kHops};
    ip[offsetof(iphdr, protocol)] = std::byte{IPPROTO_UDP};
    std::memcpy(ip + offsetof(iphdr, saddr), source.address.s6_addr + sizeof(kMapped), sizeof(in_addr));
    std::memcpy(ip + offsetof(iphdr, daddr), destination.address.s6_addr + sizeof(kMapped), sizeof(in_addr));
    ip_sum_ = checksum_add(ip, sizeof(iphdr), 0);
  }
  std::byte* l4 = ip + (is_v6_ ? sizeof(ipv6hdr) : sizeof(iphdr));
  put16(l4, be16(source.port));
  put16(l4 + offsetof(udphdr, dest), be16(destination.port));
  udp_sum_ = pseudo_sum(ip, is_v6_) + checksum_add(l4, sizeof(udphdr), 0);
  headroom_ = static_cast<std::uint16_t>(l4 + sizeof(udphdr) - headers_.data());
}

std::size_t Flow::payload_max(std::size_t mtu) const noexcept {
  const std::size_t headers = headroom_ - l3_offset_;
  const std::size_t ip_max = kLengthMax + (is_v6_ ? sizeof(ipv6hdr) : 0);
  return std::max(std::min(mtu, ip_max), headers) - headers;
}

std::size_t Flow::build(Pieces packet, std::size_t payload_length) noexcept {
  const std::size_t length = headroom_ + payload_length;
  if (packet.empty() || packet.front().size() < headroom_ || payload_length > payload_max(kLengthMax * 2) ||
      length > size_of(packet))
    return 0;
  std::byte* ip = packet.front().data() + l3_offset_;
  std::byte* l4 = packet.front().data() + headroom_ - sizeof(udphdr);
  std::memcpy(packet.front().data(), headers_.data(), headroom_);
  const std::uint16_t udp_length = be16(sizeof(udphdr) + payload_length);
  if (is_v6_) {
    put16(ip + offsetof(ipv6hdr, payload_len), udp_length);
  } else {
    const std::uint16_t ip_length = be16(length - l3_offset_);
    const std::uint16_t id = be16(next_id_++);
    put16(ip + offsetof(iphdr, tot_len), ip_length);
    put16(ip + offsetof(iphdr, id), id);
    put16(ip + offsetof(iphdr, check), static_cast<std::uint16_t>(~checksum_fold(ip_sum_ + ip_length + id)));
  }
  put16(l4 + offsetof(udphdr, len), udp_length);
  // The length is in the pseudo header and in the header.
  const std::uint64_t sum =
      udp_sum_ + 2 * std::uint64_t{udp_length} + sum_of(packet, headroom_, payload_length);
  put16(l4 + offsetof(udphdr, check), udp_check(sum));
  return length;
}

}  // namespace agentnic::path
