// SPDX-License-Identifier: Apache-2.0
#pragma once

/// What holds for the packet parser whatever a frame is; for the fuzzer and for the unit tests.

#include <cstddef>
#include <cstring>
#include <memory>
#include <span>

#include "lib/parse.h"

#define ANIC_RULE(cond) \
  if (!(cond)) return #cond

namespace agentnic {

/// The first rule that does not hold for what anic_parse() finds, or nullptr.
inline const char* broken_rule(const anic_pkt& pkt, const std::byte* data, std::size_t size) {
  const bool is_ip = pkt.ip_version != 0;
  const bool is_v6 = pkt.ip_version == 6;
  const bool is_later = pkt.fragment == ANIC_FRAGMENT_LATER;
  const bool has_ports = pkt.kind == ANIC_KIND_UDP || pkt.kind == ANIC_KIND_TCP;
  const bool has_l4 = (has_ports && !is_later) || pkt.kind == ANIC_KIND_ICMP;
  const std::size_t l4_bytes = pkt.kind == ANIC_KIND_TCP ? sizeof(tcphdr) : sizeof(udphdr);  // ICMP: 8, too
  const auto* at = reinterpret_cast<const unsigned char*>(data);
  const auto* ip = at + pkt.l3_off;
  const anic_key& key = pkt.key;

  ANIC_RULE(pkt.kind < ANIC_KIND__MAX);
  ANIC_RULE(!is_ip || pkt.ip_version == 4 || is_v6);
  ANIC_RULE(is_ip || pkt.kind == ANIC_KIND_NONE || pkt.kind == ANIC_KIND_ARP || pkt.kind == ANIC_KIND_OTHER);
  ANIC_RULE(pkt.fragment <= ANIC_FRAGMENT_LATER);
  ANIC_RULE(is_ip || pkt.fragment == ANIC_FRAGMENT_NONE);
  ANIC_RULE(pkt.l3_off == 0 || pkt.l3_off == 14 || pkt.l3_off == 18 || pkt.l3_off == 22);
  ANIC_RULE(pkt.l3_off != 0 || pkt.kind == ANIC_KIND_NONE);
  ANIC_RULE(pkt.l3_off + (is_v6 ? sizeof(ipv6hdr) : is_ip ? sizeof(iphdr) : 0) <= size);
  ANIC_RULE((pkt.l4_off != 0) == has_l4);
  ANIC_RULE(!has_l4 || pkt.l4_off >= pkt.l3_off + (is_v6 ? sizeof(ipv6hdr) : sizeof(iphdr)));
  ANIC_RULE(!has_l4 || pkt.l4_off + l4_bytes <= size);
  ANIC_RULE(pkt.icmp_type == (pkt.kind == ANIC_KIND_ICMP ? at[pkt.l4_off] : 0));
  ANIC_RULE(pkt.len == 0 || (is_ip && pkt.len > pkt.l3_off));
  ANIC_RULE(!anic_is_control(&pkt) || pkt.kind == ANIC_KIND_ICMP || pkt.kind == ANIC_KIND_ARP);

  ANIC_RULE(key.cgroup == 0 && key.mark == 0 && key.generation == 0);
  ANIC_RULE(ANIC_KEY_DIRECTION(key.word) == 0);
  ANIC_RULE(ANIC_KEY_PORTS_BE(key.word) == (has_ports && has_l4 ? anic_load32(at + pkt.l4_off) : 0));
  ANIC_RULE(is_ip || (key.word | key.addresses_be[0]) == 0);
  ANIC_RULE(is_v6 || (key.addresses_be[1] | key.addresses_be[2] | key.addresses_be[3]) == 0);
  ANIC_RULE(!is_ip || std::memcmp(key.addresses_be, ip + (is_v6 ? 8 : 12), is_v6 ? 32 : 8) == 0);
  if (!is_ip || pkt.kind == ANIC_KIND_NONE) return nullptr;  // else the word is complete
  ANIC_RULE(ANIC_KEY_FLAGS(key.word) == ((is_later ? ANIC_KEY_LATER : 0) | (is_v6 ? ANIC_KEY_IPV6 : 0)));
  ANIC_RULE(ANIC_KEY_DSCP(key.word) == (is_v6 ? (ip[0] << 4 | ip[1] >> 4) & 0xff : ip[1]) >> 2);
  ANIC_RULE((ANIC_KEY_PROTOCOL(key.word) == IPPROTO_UDP) == (pkt.kind == ANIC_KIND_UDP));
  ANIC_RULE((ANIC_KEY_PROTOCOL(key.word) == IPPROTO_TCP) == (pkt.kind == ANIC_KIND_TCP));
  return nullptr;
}

/// As above, and what holds between the two parsers.
inline const char* broken_rule(std::span<const std::byte> frame) {
  // The copy ends where its heap block ends, so that a sanitizer sees a read beyond it.
  const auto copy = std::make_unique<std::byte[]>(frame.size());
  if (!frame.empty()) std::memcpy(copy.get(), frame.data(), frame.size());
  const std::byte* data = copy.get();
  const std::byte* end = data + frame.size();

  anic_pkt pkt;
  anic_pkt same;
  std::memset(&pkt, 0x5a, sizeof(pkt));
  std::memset(&same, 0xa5, sizeof(same));
  anic_parse(&pkt, data, end);
  anic_parse(&same, data, end);
  ANIC_RULE(std::memcmp(&pkt, &same, sizeof(pkt)) == 0);  // it fills the whole result
  if (const char* rule = broken_rule(pkt, data, frame.size())) return rule;

  const std::size_t plain_l4 = pkt.ip_version == 6 ? 54 : 34;
  const bool is_plain = (pkt.kind == ANIC_KIND_UDP || pkt.kind == ANIC_KIND_TCP) && pkt.l4_off == plain_l4 &&
                        pkt.l3_off == 14 && pkt.fragment == ANIC_FRAGMENT_NONE && pkt.len != 0 &&
                        plain_l4 + sizeof(tcphdr) <= frame.size();
  anic_pkt plain{};
  ANIC_RULE((anic_parse_plain_ipv4(&plain, data, end) == 1) == (is_plain && pkt.ip_version == 4));
  ANIC_RULE((anic_parse_plain_ipv6(&plain, data, end) == 1) == (is_plain && pkt.ip_version == 6));
  ANIC_RULE(!is_plain || std::memcmp(&plain.key, &pkt.key, sizeof(pkt.key)) == 0);
  ANIC_RULE(!is_plain || plain.len == pkt.len);
  ANIC_RULE(frame.empty() || std::memcmp(data, frame.data(), frame.size()) == 0);  // neither writes
  return nullptr;
}

}  // namespace agentnic

#undef ANIC_RULE
