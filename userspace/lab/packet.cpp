// SPDX-License-Identifier: Apache-2.0
#include "lab/packet.hpp"

#include <arpa/inet.h>
#include <linux/if_ether.h>
#include <linux/ip.h>
#include <linux/ipv6.h>
#include <linux/tcp.h>
#include <linux/udp.h>
#include <netinet/in.h>

#include <cassert>
#include <cstring>

#include "base/checksum.hpp"

namespace agentnic::lab {
namespace {

constexpr std::uint8_t kEth[] = {2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1, 0, 0};
constexpr std::uint8_t kIpv4[] = {192, 0, 2, 1, 192, 0, 2, 2};
constexpr std::uint8_t kIpv6[] = {0x20, 1, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1,
                                  0x20, 1, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2};
constexpr std::size_t kArpBytes = 28;
constexpr std::size_t kIcmpBytes = 8;

template <typename Header>
void put(std::byte* at, const Header& header) {
  std::memcpy(at, &header, sizeof(header));
}

void put16(std::byte* at, std::uint16_t value) { put(at, htons(value)); }

}  // namespace

std::byte* PacketBuilder::grow(std::size_t bytes) {
  frame_.resize(frame_.size() + bytes);
  return frame_.data() + frame_.size() - bytes;
}

void PacketBuilder::announce(std::uint16_t ethertype) {
  if (ethertype_at_ != 0) put16(frame_.data() + ethertype_at_, ethertype);
  ethertype_at_ = 0;
}

void PacketBuilder::carry(std::uint8_t protocol) {
  if (protocol_at_ != 0) frame_[protocol_at_] = static_cast<std::byte>(protocol);
  protocol_at_ = 0;
  l4_ = protocol;
  l4_at_ = frame_.size();
}

PacketBuilder& PacketBuilder::eth(std::uint16_t ethertype) {
  std::memcpy(grow(sizeof(kEth)), kEth, sizeof(kEth));
  ethertype_at_ = frame_.size() - 2;
  if (ethertype != 0) announce(ethertype);
  return *this;
}

PacketBuilder& PacketBuilder::vlan(std::uint16_t id, std::uint16_t tpid) {
  announce(tpid);
  put16(grow(4), id);
  ethertype_at_ = frame_.size() - 2;
  return *this;
}

PacketBuilder& PacketBuilder::ipv4(std::size_t option_bytes, std::uint16_t fragment, std::uint8_t protocol) {
  announce(ETH_P_IP);
  ip_at_ = frame_.size();
  ip_bytes_ = sizeof(iphdr) + option_bytes;
  std::byte* at = grow(ip_bytes_);
  iphdr header{};
  header.version = 4;
  header.ihl = static_cast<unsigned>(ip_bytes_ / 4) & 0xfU;
  header.ttl = 64;
  header.frag_off = htons(fragment);
  header.protocol = protocol;
  std::memcpy(&header.saddr, kIpv4, sizeof(kIpv4));
  put(at, header);
  for (std::size_t i = 0; i < option_bytes; ++i)
    at[sizeof(iphdr) + i] = std::byte{1};  // no-operation, RFC 791
  protocol_at_ = protocol == 0 ? ip_at_ + offsetof(iphdr, protocol) : 0;
  return *this;
}

PacketBuilder& PacketBuilder::ipv6(std::uint8_t next_header) {
  announce(ETH_P_IPV6);
  is_v6_ = true;
  ip_at_ = frame_.size();
  ip_bytes_ = sizeof(ipv6hdr);
  ipv6hdr header{};
  header.version = 6;
  header.hop_limit = 64;
  header.nexthdr = next_header;
  std::memcpy(&header.saddr, kIpv6, sizeof(kIpv6));
  put(grow(ip_bytes_), header);
  protocol_at_ = next_header == 0 ? ip_at_ + offsetof(ipv6hdr, nexthdr) : 0;
  return *this;
}

void PacketBuilder::put_address(const char* text, std::size_t index) {
  std::byte* at = frame_.data() + ip_at_ + (is_v6_ ? offsetof(ipv6hdr, saddr) : offsetof(iphdr, saddr));
  [[maybe_unused]] const int understood = inet_pton(
      is_v6_ ? AF_INET6 : AF_INET, text, at + index * (is_v6_ ? sizeof(in6_addr) : sizeof(in_addr)));
  assert(understood == 1);
}

PacketBuilder& PacketBuilder::from(const char* address) {
  put_address(address, 0);
  return *this;
}

PacketBuilder& PacketBuilder::to(const char* address) {
  put_address(address, 1);
  return *this;
}

PacketBuilder& PacketBuilder::dscp(std::uint8_t value, std::uint8_t ecn) {
  const unsigned both = value << 2U | ecn;
  if (is_v6_) {
    put16(frame_.data() + ip_at_, static_cast<std::uint16_t>(6U << 12U | both << 4U));
  } else {
    frame_[ip_at_ + offsetof(iphdr, tos)] = static_cast<std::byte>(both);
  }
  return *this;
}

PacketBuilder& PacketBuilder::extension(std::uint8_t type, std::size_t bytes, std::uint8_t next_header) {
  carry(type);
  std::byte* at = grow(bytes);
  at[0] = static_cast<std::byte>(next_header);
  at[1] = static_cast<std::byte>(type == IPPROTO_AH ? bytes / 4 - 2 : bytes / 8 - 1);
  protocol_at_ = next_header == 0 ? l4_at_ : 0;
  return *this;
}

PacketBuilder& PacketBuilder::fragment(std::uint16_t field) {
  extension(IPPROTO_FRAGMENT);
  put16(frame_.data() + l4_at_ + 2, field);
  return *this;
}

PacketBuilder& PacketBuilder::arp() {
  announce(ETH_P_ARP);
  grow(kArpBytes);
  return *this;
}

PacketBuilder& PacketBuilder::udp(std::uint16_t from, std::uint16_t to) {
  carry(IPPROTO_UDP);
  udphdr header{};
  header.source = htons(from);
  header.dest = htons(to);
  put(grow(sizeof(header)), header);
  return *this;
}

PacketBuilder& PacketBuilder::tcp(std::uint16_t from, std::uint16_t to) {
  carry(IPPROTO_TCP);
  tcphdr header{};
  header.source = htons(from);
  header.dest = htons(to);
  header.doff = sizeof(header) / 4;
  header.ack = 1;
  put(grow(sizeof(header)), header);
  return *this;
}

PacketBuilder& PacketBuilder::icmp(std::uint8_t type) {
  carry(is_v6_ ? std::uint8_t{IPPROTO_ICMPV6} : std::uint8_t{IPPROTO_ICMP});
  *grow(kIcmpBytes) = static_cast<std::byte>(type);
  return *this;
}

PacketBuilder& PacketBuilder::payload(std::size_t bytes) {
  std::byte* at = grow(bytes);
  for (std::size_t i = 0; i < bytes; ++i) at[i] = static_cast<std::byte>(i * 7 + 1);
  return *this;
}

Frame PacketBuilder::build() const {
  Frame frame = frame_;
  if (ip_at_ == 0) return frame;
  std::byte* ip = frame.data() + ip_at_;
  const std::size_t ip_payload = frame.size() - ip_at_ - ip_bytes_;
  if (is_v6_) {
    put16(ip + offsetof(ipv6hdr, payload_len), static_cast<std::uint16_t>(ip_payload));
  } else {
    put16(ip + offsetof(iphdr, tot_len), static_cast<std::uint16_t>(ip_bytes_ + ip_payload));
    put(ip + offsetof(iphdr, check),
        static_cast<std::uint16_t>(~checksum_fold(checksum_add(ip, ip_bytes_, 0))));
  }
  if (l4_ != IPPROTO_UDP) return frame;
  std::byte* udp = frame.data() + l4_at_;
  const std::size_t udp_bytes = frame.size() - l4_at_;
  put16(udp + offsetof(udphdr, len), static_cast<std::uint16_t>(udp_bytes));
  const std::byte* addresses = ip + (is_v6_ ? offsetof(ipv6hdr, saddr) : offsetof(iphdr, saddr));
  std::uint64_t sum = checksum_add(addresses, is_v6_ ? sizeof(kIpv6) : sizeof(kIpv4), 0);
  sum += htons(static_cast<std::uint16_t>(udp_bytes));
  sum += htons(IPPROTO_UDP);
  const auto check = static_cast<std::uint16_t>(~checksum_fold(checksum_add(udp, udp_bytes, sum)));
  put(udp + offsetof(udphdr, check), check == 0 ? std::uint16_t{0xffff} : check);
  return frame;
}

}  // namespace agentnic::lab
