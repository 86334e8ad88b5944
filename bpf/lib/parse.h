/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * The packet parser: Ethernet, at most one VLAN tag, IPv4 with options, IPv6 without extension headers, UDP,
 * TCP, ICMP.
 *
 * Pure C without a BPF helper, so that the programs, the userspace endpoints and the unit tests share it.
 * It reads only between data and end, never writes there, and always fills the whole result. What it does
 * not understand is ANIC_KIND_NONE; later fragments keep their protocol and have no ports.
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

#if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
#define ANIC_BE16(x) __builtin_bswap16(x)
#else
#define ANIC_BE16(x) (x)
#endif

#define ANIC_INLINE static inline __attribute__((always_inline))

#define ANIC_IP_MORE_FRAGMENTS 0x2000
#define ANIC_IP_OFFSET_MASK 0x1fff

/* ICMP: RFC 792; ICMPv6: RFC 4443; neighbour discovery: RFC 4861. <linux/icmp.h> drags in libc. */
#define ANIC_ICMP_HEADER_LEN 8
#define ANIC_ICMP4_UNREACHABLE 3
#define ANIC_ICMP4_TIME_EXCEEDED 11
#define ANIC_ICMP4_PARAMETER_PROBLEM 12
#define ANIC_ICMP6_ERROR_FIRST 1 /* destination unreachable */
#define ANIC_ICMP6_ERROR_LAST 4	 /* parameter problem */
#define ANIC_ICMP6_ND_FIRST 133	 /* router solicitation */
#define ANIC_ICMP6_ND_LAST 137	 /* redirect */

struct anic_vlan {
	__be16 tci_be;
	__be16 proto_be;
};

/* Fills kind, l4_off and ports or ICMP type from the transport header at pos. */
ANIC_INLINE void anic_parse_l4(struct anic_pkt *pkt, const unsigned char *data, const unsigned char *pos,
			       const unsigned char *end, __u8 protocol)
{
	if (protocol == IPPROTO_UDP || protocol == IPPROTO_TCP) {
		const struct udphdr *ports = (const struct udphdr *)pos; /* TCP begins with the same two */

		if (pkt->fragment != ANIC_FRAGMENT_LATER) {
			if (pos + (protocol == IPPROTO_UDP ? sizeof(struct udphdr) : sizeof(struct tcphdr)) >
			    end)
				return;
			pkt->src_port = ANIC_BE16(ports->source);
			pkt->dst_port = ANIC_BE16(ports->dest);
			pkt->l4_off = (__u16)(pos - data);
		}
		pkt->kind = protocol == IPPROTO_UDP ? ANIC_KIND_UDP : ANIC_KIND_TCP;
		return;
	}
	if (protocol == (pkt->ip_version == 6 ? (int)IPPROTO_ICMPV6 : (int)IPPROTO_ICMP) &&
	    pkt->fragment != ANIC_FRAGMENT_LATER) {
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
	const struct iphdr *ip = (const struct iphdr *)pos;
	__u16 frag;
	__u32 header_len;

	if (pos + sizeof(*ip) > end || ip->version != 4)
		return;
	header_len = ip->ihl * 4u;
	if (header_len < sizeof(*ip) || pos + header_len > end)
		return;
	pkt->ip_version = 4;
	frag = ANIC_BE16(ip->frag_off);
	if (frag & ANIC_IP_OFFSET_MASK)
		pkt->fragment = ANIC_FRAGMENT_LATER;
	else if (frag & ANIC_IP_MORE_FRAGMENTS)
		pkt->fragment = ANIC_FRAGMENT_FIRST;
	anic_parse_l4(pkt, data, pos + header_len, end, ip->protocol);
}

ANIC_INLINE void anic_parse_ipv6(struct anic_pkt *pkt, const unsigned char *data, const unsigned char *pos,
				 const unsigned char *end)
{
	const struct ipv6hdr *ip = (const struct ipv6hdr *)pos;

	if (pos + sizeof(*ip) > end || ip->version != 6)
		return;
	switch (ip->nexthdr) {
	case IPPROTO_HOPOPTS:
	case IPPROTO_ROUTING:
	case IPPROTO_FRAGMENT:
	case IPPROTO_DSTOPTS:
	case IPPROTO_AH:
		return; /* extension headers are not walked yet */
	}
	pkt->ip_version = 6;
	anic_parse_l4(pkt, data, pos + sizeof(*ip), end, ip->nexthdr);
}

ANIC_INLINE void anic_parse(struct anic_pkt *pkt, const void *frame, const void *frame_end)
{
	const unsigned char *data = (const unsigned char *)frame;
	const unsigned char *end = (const unsigned char *)frame_end;
	const unsigned char *pos = data + sizeof(struct ethhdr);
	__u16 proto;

	pkt->l3_off = 0;
	pkt->l4_off = 0;
	pkt->src_port = 0;
	pkt->dst_port = 0;
	pkt->kind = ANIC_KIND_NONE;
	pkt->ip_version = 0;
	pkt->fragment = ANIC_FRAGMENT_NONE;
	pkt->icmp_type = 0;

	if (pos > end)
		return;
	proto = ANIC_BE16(((const struct ethhdr *)data)->h_proto);
	if (proto == ETH_P_8021Q || proto == ETH_P_8021AD) {
		if (pos + sizeof(struct anic_vlan) > end)
			return;
		proto = ANIC_BE16(((const struct anic_vlan *)pos)->proto_be);
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
		return; /* a second tag */
	}
	pkt->kind = ANIC_KIND_OTHER;
}

/* Whether the network stops working when this ICMP message is lost: errors, and neighbour discovery. */
ANIC_INLINE int anic_icmp_is_control(const struct anic_pkt *pkt)
{
	if (pkt->ip_version == 6)
		return (pkt->icmp_type >= ANIC_ICMP6_ERROR_FIRST &&
			pkt->icmp_type <= ANIC_ICMP6_ERROR_LAST) ||
		       (pkt->icmp_type >= ANIC_ICMP6_ND_FIRST && pkt->icmp_type <= ANIC_ICMP6_ND_LAST);
	return pkt->icmp_type == ANIC_ICMP4_UNREACHABLE || pkt->icmp_type == ANIC_ICMP4_TIME_EXCEEDED ||
	       pkt->icmp_type == ANIC_ICMP4_PARAMETER_PROBLEM;
}

#endif
