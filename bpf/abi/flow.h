/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/* What the parser finds in a packet, what the classifier makes of it, and how the flow cache keeps that. */
#ifndef ANIC_ABI_FLOW_H
#define ANIC_ABI_FLOW_H

#include "abi/lane.h"

/* The kind of packet, as far as classification cares. */
enum anic_kind {
	ANIC_KIND_NONE = 0, /* could not be parsed: passed and counted */
	ANIC_KIND_ARP = 1,
	ANIC_KIND_ICMP = 2,  /* icmp_type is valid; ICMPv6 when ip_version is 6 */
	ANIC_KIND_UDP = 3,   /* ports are valid unless this is a later fragment */
	ANIC_KIND_TCP = 4,   /* likewise */
	ANIC_KIND_OTHER = 5, /* well-formed, and without ports */
	ANIC_KIND__MAX = 6,
};

enum anic_fragment {
	ANIC_FRAGMENT_NONE = 0,
	ANIC_FRAGMENT_FIRST = 1,
	ANIC_FRAGMENT_LATER = 2, /* no transport header in this packet */
};

/* RoCEv2 is UDP to this port (InfiniBand Architecture Specification, annex A17). */
#define ANIC_ROCE_PORT 4791

/*
 * All that a verdict depends on, but for the policy: packets with equal keys are treated alike. Whole 64-bit
 * words, because it is hashed and compared on every packet. What is not IP has no key.
 */
struct anic_key {
	__u64 word;	       /* see ANIC_KEY_WORD */
	__u64 addresses_be[4]; /* source and destination as they stand in the header: [0] for IPv4, all for
				  IPv6 */
	__u64 cgroup; /* at egress, if the policy names cgroups: the cgroup2 id of the sender's socket */
	__u32 mark;   /* at egress, if the policy names marks: the skb's */
	__u32 generation;
};
ANIC_ASSERT(sizeof(struct anic_key) == 56);

/*
 * The word of a key: ports as they stand in the header (0 in later fragments, and where there are none), the
 * protocol of the transport header (extension headers are skipped), DSCP (RFC 2474), enum anic_direction, and
 * ANIC_KEY_* flags.
 */
#define ANIC_KEY_WORD(ports_be, protocol, dscp, direction, flags)                                            \
	((__u64)(ports_be) << 32 | (__u64)(protocol) << 24 | (__u64)(dscp) << 18 | (__u64)(direction) << 8 | \
	 (__u64)(flags))
#define ANIC_KEY_LATER 1 /* a later fragment */
#define ANIC_KEY_IPV6 2
#define ANIC_KEY_PORTS_BE(word) ((__u32)((word) >> 32)) /* in memory the source comes first */
#define ANIC_KEY_PROTOCOL(word) ((__u8)((word) >> 24))
#define ANIC_KEY_DSCP(word) ((__u8)((word) >> 18 & 0x3f))
#define ANIC_KEY_DIRECTION(word) ((__u8)((word) >> 8))
#define ANIC_KEY_FLAGS(word) ((__u8)(word))

struct anic_pkt {
	struct anic_key key; /* of IP; generation, cgroup, mark and direction are 0 */
	__u16 l3_off;	     /* bytes from the start of the frame to the IP header */
	__u16 l4_off;	     /* ... to the transport header; 0 when there is none */
	__u32 len; /* of the frame up to the end of the IP packet, as the IP header says; 0: it does not */
	__u8 kind; /* enum anic_kind */
	__u8 ip_version; /* 4, 6, or 0 */
	__u8 fragment;	 /* enum anic_fragment */
	__u8 icmp_type;
	__u8 _pad[4];
};
ANIC_ASSERT(sizeof(struct anic_pkt) == 72);

/*
 * What the policy makes of a key: service in bits 0 to 13, lane in 14 to 22 (abi/lane.h), reason in 23 to 26,
 * and in bit 27 whether its lane is spread over CPUs. Never 0. The reason of what wants path B is
 * ANIC_REASON_REDIRECT_XSK. What else a packet meets (its length, an empty AF_XDP slot, the lane's path) is
 * decided for each.
 */
#define ANIC_VERDICT(service, lane, reason) ((__u32)(service) | (__u32)(lane) << 14 | (__u32)(reason) << 23)
#define ANIC_VERDICT_SPREAD (1U << 27)
#define ANIC_VERDICT_SERVICE(v) ((v) & 0x3fffU)
#define ANIC_VERDICT_LANE(v) ((v) >> 14 & 0x1ffU)
#define ANIC_VERDICT_REASON(v) ((v) >> 23 & 0xfU)
ANIC_ASSERT(ANIC_SERVICES_MAX <= 1 << 14 && ANIC_LANES_MAX <= 1 << 9);

/*
 * A cached verdict: one cache line, shared by all CPUs and written without a lock. The tag, the key's hash
 * xor its generation, is written together with the verdict in one word: it gives away a key that came from
 * another write.
 */
struct anic_flow {
	struct anic_key key; /* generation 0: empty */
	__u64 word;	     /* see ANIC_FLOW_WORD */
};
ANIC_ASSERT(sizeof(struct anic_flow) == 64);

/* The word of a flow: the verdict in 28 bits, the confidence in 4 and the tag in 32. */
#define ANIC_FLOW_WORD(verdict, confidence, tag) ((__u64)(tag) << 32 | (__u32)(confidence) << 28 | (verdict))
#define ANIC_FLOW_VERDICT(word) ((__u32)(word) & 0xfffffffU)
#define ANIC_FLOW_CONFIDENCE(word) ((__u32)(word) >> 28)

/* The value of anic_flows, indexed by a keyed hash of the key. */
#define ANIC_FLOW_WAYS 2
#define ANIC_FLOW_SETS_LOG2 15
#define ANIC_FLOW_SETS (1 << ANIC_FLOW_SETS_LOG2) /* 4 MiB */
#define ANIC_FLOW_CONFIDENCE_MAX 15		  /* misses that a flow in use survives */

struct anic_flow_set {
	struct anic_flow ways[ANIC_FLOW_WAYS];
};
ANIC_ASSERT(sizeof(struct anic_flow_set) == 128);

#endif
