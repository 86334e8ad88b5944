/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * The packet parser: Ethernet, up to two VLAN tags (802.1Q, 802.1ad), IPv4 with options, IPv6 with extension
 * headers, fragments, UDP, TCP, ICMP.
 *
 * Pure C without a BPF helper, so that the programs, the userspace endpoints, the unit tests and the fuzzer
 * share it. It reads only between data and end, never writes there, and always fills the whole result. What
 * it does not understand is ANIC_KIND_NONE; later fragments keep their protocol and have no ports.
 */
#ifndef ANIC_LIB_PARSE_H
#define ANIC_LIB_PARSE_H

#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/ip.h>
#include <linux/ipv6.h>
#include <linux/tcp.h>
#include <linux/udp.h>

#include "abi/flow.h"

#define ANIC_INLINE static inline __attribute__((always_inline))

#if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
#define ANIC_BE16(x) __builtin_bswap16(x)
#define ANIC_FIRST_HALF(word) ((__u32)(word)) /* of what was loaded as 64 bits, as it stands in memory */
#define ANIC_SECOND_HALF(word) ((__u32)((word) >> 32))
#else
#define ANIC_BE16(x) (x)
#define ANIC_FIRST_HALF(word) ((__u32)((word) >> 32))
#define ANIC_SECOND_HALF(word) ((__u32)(word))
#endif

#define ANIC_VLAN_TAGS_MAX 2
#define ANIC_IPV6_EXTENSIONS_MAX 6 /* more in one packet are not walked: nothing sane has them */
#define ANIC_IPV6_EXTENSIONS_LEN_MAX 2048
#define ANIC_IPV6_MOBILITY 135 /* RFC 6275 */
#define ANIC_IPV6_HIP 139      /* RFC 7401 */
#define ANIC_IPV6_SHIM6 140    /* RFC 5533 */
#define ANIC_IP_MORE_FRAGMENTS 0x2000
#define ANIC_IP_OFFSET_MASK 0x1fff
#define ANIC_IPV6_MORE_FRAGMENTS 0x0001
#define ANIC_IPV6_OFFSET_MASK 0xfff8

/* ICMP: RFC 792; ICMPv6: RFC 4443; neighbour discovery: RFC 4861. <linux/icmp.h> drags in libc. */
#define ANIC_ICMP_HEADER_LEN 8
#define ANIC_ICMP4_UNREACHABLE 3
#define ANIC_ICMP4_TIME_EXCEEDED 11
#define ANIC_ICMP4_PARAMETER_PROBLEM 12
#define ANIC_ICMP6_ERROR_FIRST 1 /* destination unreachable */
#define ANIC_ICMP6_ERROR_LAST 4	 /* parameter problem */
#define ANIC_ICMP6_ND_FIRST 133	 /* router solicitation */
#define ANIC_ICMP6_ND_LAST 137	 /* redirect */

/* Loads of what has no alignment. The BPF back end would take a memcpy apart into bytes. */
#ifdef __bpf__
ANIC_INLINE __u16 anic_load16(const unsigned char *at)
{
	return *(const __u16 *)at;
}
ANIC_INLINE __u32 anic_load32(const unsigned char *at)
{
	return *(const __u32 *)at;
}
ANIC_INLINE __u64 anic_load64(const unsigned char *at)
{
	return *(const __u64 *)at;
}
#else
ANIC_INLINE __u16 anic_load16(const unsigned char *at)
{
	__u16 value;

	__builtin_memcpy(&value, at, sizeof(value));
	return value;
}
ANIC_INLINE __u32 anic_load32(const unsigned char *at)
{
	__u32 value;

	__builtin_memcpy(&value, at, sizeof(value));
	return value;
}
ANIC_INLINE __u64 anic_load64(const unsigned char *at)
{
	__u64 value;

	__builtin_memcpy(&value, at, sizeof(value));
	return value;
}
#endif

/* A length field of an IP header as that of the frame: 0 means that the packet is longer than the field can
 * say (RFC 2675; GRO and GSO above 64 KB, IPv4 too). */
ANIC_INLINE __u32 anic_frame_len(__u32 before, __be16 field_be)
{
	return field_be ? before + ANIC_BE16(field_be) : 0;
}

struct anic_vlan {
	__be16 tci_be;
	__be16 proto_be;
};

ANIC_INLINE int anic_has_ports(__u8 protocol)
{
	return protocol == IPPROTO_UDP || protocol == IPPROTO_TCP;
}

/* Fills kind, l4_off and the key's word from the transport header at pos. */
ANIC_INLINE void anic_parse_l4(struct anic_pkt *pkt, const unsigned char *data, const unsigned char *pos,
			       const unsigned char *end, __u8 protocol, __u8 dscp)
{
	int later = pkt->fragment == ANIC_FRAGMENT_LATER;

	pkt->key.word =
		ANIC_KEY_WORD(0, protocol, dscp, 0,
			      (later ? ANIC_KEY_LATER : 0) | (pkt->ip_version == 6 ? ANIC_KEY_IPV6 : 0));
	if (anic_has_ports(protocol)) {
		if (!later) {
			if (pos + (protocol == IPPROTO_UDP ? sizeof(struct udphdr) : sizeof(struct tcphdr)) >
			    end)
				return;
			/* both headers begin with the two ports */
			pkt->key.word |= (__u64)anic_load32(pos) << 32;
			pkt->l4_off = (__u16)(pos - data);
		}
		pkt->kind = protocol == IPPROTO_UDP ? ANIC_KIND_UDP : ANIC_KIND_TCP;
		return;
	}
	if (protocol == (pkt->ip_version == 6 ? (int)IPPROTO_ICMPV6 : (int)IPPROTO_ICMP) && !later) {
		if (pos + ANIC_ICMP_HEADER_LEN > end)
			return;
		pkt->icmp_type = *pos;
		pkt->l4_off = (__u16)(pos - data);
		pkt->kind = ANIC_KIND_ICMP;
		return;
	}
	pkt->kind = ANIC_KIND_OTHER;
}

ANIC_INLINE void anic_parse_ipv4(struct anic_pkt *pkt, const unsigned char *data, const unsigned char *pos,
				 const unsigned char *end)
{
	__u32 header_len;
	__u16 frag;

	if (pos + sizeof(struct iphdr) > end || pos[0] >> 4 != 4)
		return;
	header_len = (pos[0] & 15u) * 4;
	if (header_len < sizeof(struct iphdr) || pos + header_len > end)
		return;
	pkt->ip_version = 4;
	pkt->len = anic_frame_len((__u32)(pos - data), anic_load16(pos + 2));
	pkt->key.addresses_be[0] = anic_load64(pos + 12);
	frag = ANIC_BE16(anic_load16(pos + 6));
	if (frag & ANIC_IP_OFFSET_MASK)
		pkt->fragment = ANIC_FRAGMENT_LATER;
	else if (frag & ANIC_IP_MORE_FRAGMENTS)
		pkt->fragment = ANIC_FRAGMENT_FIRST;
	anic_parse_l4(pkt, data, pos + header_len, end, pos[9], pos[1] >> 2);
}

/* Bytes of an IPv6 extension header that begins with these two (RFC 8200, 4; AH: RFC 4302, 2.2), or 0 for
 * what is none. */
ANIC_INLINE __u32 anic_ipv6_extension_len(__u8 type, __u8 len)
{
	switch (type) {
	case IPPROTO_HOPOPTS:
	case IPPROTO_ROUTING:
	case IPPROTO_DSTOPTS:
	case ANIC_IPV6_MOBILITY:
	case ANIC_IPV6_HIP:
	case ANIC_IPV6_SHIM6:
		return (len + 1u) * 8;
	case IPPROTO_AH:
		return (len + 2u) * 4;
	case IPPROTO_FRAGMENT:
		return 8;
	}
	return 0;
}

/*
 * Skips IPv6 extension headers: the transport header, or NULL when there are too many, too long ones, or none
 * but a part. Fills fragment, and type with that of the header that follows.
 *
 * The position is kept as a number that the verifier knows nothing of but its limit: else it would follow
 * each way through each number of headers to the end of the program.
 */
ANIC_INLINE const unsigned char *anic_skip_extensions(struct anic_pkt *pkt, const unsigned char *start,
						      const unsigned char *end, __u8 *type)
{
	const unsigned char *pos = start;
	__u64 off;
	__u16 frag;
	int i;

	for (i = 0; i <= ANIC_IPV6_EXTENSIONS_MAX; i++) {
		if (pkt->fragment == ANIC_FRAGMENT_LATER || !anic_ipv6_extension_len(*type, 0))
			return pos; /* of a later fragment, the middle of something */
		if (pos + 8 > end)
			return 0;
		if (*type == IPPROTO_FRAGMENT) {
			frag = ANIC_BE16(anic_load16(pos + 2));
			if (frag & ANIC_IPV6_OFFSET_MASK)
				pkt->fragment = ANIC_FRAGMENT_LATER;
			else if (frag & ANIC_IPV6_MORE_FRAGMENTS)
				pkt->fragment = ANIC_FRAGMENT_FIRST;
		}
		off = (__u64)(pos - start) + anic_ipv6_extension_len(*type, pos[1]);
		*type = pos[0];
		__asm__ volatile("" : "+r"(off));
		if (off > ANIC_IPV6_EXTENSIONS_LEN_MAX)
			return 0;
		pos = start + off;
		if (pos > end)
			return 0;
	}
	return 0;
}

ANIC_INLINE void anic_parse_ipv6(struct anic_pkt *pkt, const unsigned char *data, const unsigned char *pos,
				 const unsigned char *end)
{
	__u8 dscp, type;

	if (pos + sizeof(struct ipv6hdr) > end || pos[0] >> 4 != 6)
		return;
	pkt->len = anic_frame_len((__u32)(pos - data) + sizeof(struct ipv6hdr), anic_load16(pos + 4));
	pkt->key.addresses_be[0] = anic_load64(pos + 8);
	pkt->key.addresses_be[1] = anic_load64(pos + 16);
	pkt->key.addresses_be[2] = anic_load64(pos + 24);
	pkt->key.addresses_be[3] = anic_load64(pos + 32);
	dscp = (__u8)((pos[0] & 15u) << 2 | pos[1] >> 6);
	type = pos[6];
	pkt->ip_version = 6;
	pos += sizeof(struct ipv6hdr);
	if (anic_ipv6_extension_len(type, 0)) {
		pos = anic_skip_extensions(pkt, pos, end, &type);
		if (!pos)
			return;
	}
	anic_parse_l4(pkt, data, pos, end, type, dscp);
}

ANIC_INLINE void anic_parse(struct anic_pkt *pkt, const void *frame, const void *frame_end)
{
	const unsigned char *data = (const unsigned char *)frame;
	const unsigned char *end = (const unsigned char *)frame_end;
	const unsigned char *pos = data + sizeof(struct ethhdr);
	__u16 proto;
	int i;

	__builtin_memset(pkt, 0, sizeof(*pkt));
	if (pos > end)
		return;
	proto = ANIC_BE16(anic_load16(pos - 2));
	for (i = 0; i < ANIC_VLAN_TAGS_MAX && (proto == ETH_P_8021Q || proto == ETH_P_8021AD); i++) {
		if (pos + sizeof(struct anic_vlan) > end)
			return;
		proto = ANIC_BE16(anic_load16(pos + 2));
		pos += sizeof(struct anic_vlan);
	}
	pkt->l3_off = (__u16)(pos - data);
	switch (proto) {
	case ETH_P_IP:
		anic_parse_ipv4(pkt, data, pos, end);
		return;
	case ETH_P_IPV6:
		anic_parse_ipv6(pkt, data, pos, end);
		return;
	case ETH_P_ARP:
		pkt->kind = ANIC_KIND_ARP;
		return;
	case ETH_P_8021Q:
	case ETH_P_8021AD:
		return; /* a third tag */
	}
	pkt->kind = ANIC_KIND_OTHER;
}

/*
 * anic_parse() of most packets: UDP or TCP, right after an IPv4 header without options, no VLAN tag, no
 * fragment, and a length in the IP header. Of the result it fills the key and the length alone. 0 for all
 * others.
 */
ANIC_INLINE int anic_parse_plain_ipv4(struct anic_pkt *pkt, const void *frame, const void *frame_end)
{
	const unsigned char *ip = (const unsigned char *)frame + sizeof(struct ethhdr);
	const unsigned char *l4 = ip + sizeof(struct iphdr);

	if (l4 + sizeof(struct tcphdr) > (const unsigned char *)frame_end ||
	    anic_load16(ip - 2) != ANIC_BE16(ETH_P_IP) || ip[0] != 0x45 ||
	    anic_load16(ip + 6) & ANIC_BE16(ANIC_IP_MORE_FRAGMENTS | ANIC_IP_OFFSET_MASK) ||
	    !anic_has_ports(ip[9]) || !anic_load16(ip + 2))
		return 0;
	pkt->key.word = ANIC_KEY_WORD(anic_load32(l4), ip[9], ip[1] >> 2, 0, 0);
	pkt->len = anic_frame_len(sizeof(struct ethhdr), anic_load16(ip + 2));
	pkt->key.addresses_be[0] = anic_load64(ip + 12);
	return 1;
}

/* The same right after an IPv6 header. */
ANIC_INLINE int anic_parse_plain_ipv6(struct anic_pkt *pkt, const void *frame, const void *frame_end)
{
	const unsigned char *ip = (const unsigned char *)frame + sizeof(struct ethhdr);
	const unsigned char *l4 = ip + sizeof(struct ipv6hdr);

	if (l4 + sizeof(struct tcphdr) > (const unsigned char *)frame_end ||
	    anic_load16(ip - 2) != ANIC_BE16(ETH_P_IPV6) || ip[0] >> 4 != 6 || !anic_has_ports(ip[6]) ||
	    !anic_load16(ip + 4))
		return 0;
	pkt->key.word = ANIC_KEY_WORD(anic_load32(l4), ip[6], (__u8)((ip[0] & 15u) << 2 | ip[1] >> 6), 0,
				      ANIC_KEY_IPV6);
	pkt->len = anic_frame_len(sizeof(struct ethhdr) + sizeof(struct ipv6hdr), anic_load16(ip + 4));
	pkt->key.addresses_be[0] = anic_load64(ip + 8);
	pkt->key.addresses_be[1] = anic_load64(ip + 16);
	pkt->key.addresses_be[2] = anic_load64(ip + 24);
	pkt->key.addresses_be[3] = anic_load64(ip + 32);
	return 1;
}

/* Whether the network stops working when this packet is lost: ARP, ICMP errors, and neighbour discovery. */
ANIC_INLINE int anic_is_control(const struct anic_pkt *pkt)
{
	if (pkt->kind != ANIC_KIND_ICMP)
		return pkt->kind == ANIC_KIND_ARP;
	if (pkt->ip_version == 6)
		return (pkt->icmp_type >= ANIC_ICMP6_ERROR_FIRST &&
			pkt->icmp_type <= ANIC_ICMP6_ERROR_LAST) ||
		       (pkt->icmp_type >= ANIC_ICMP6_ND_FIRST && pkt->icmp_type <= ANIC_ICMP6_ND_LAST);
	return pkt->icmp_type == ANIC_ICMP4_UNREACHABLE || pkt->icmp_type == ANIC_ICMP4_TIME_EXCEEDED ||
	       pkt->icmp_type == ANIC_ICMP4_PARAMETER_PROBLEM;
}

#endif
