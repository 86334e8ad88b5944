/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/* What the parser finds in a packet, and what a port means under the policy in force. */
#ifndef ANIC_ABI_FLOW_H
#define ANIC_ABI_FLOW_H

#include "abi/types.h"

/* The kind of packet, as far as classification cares. */
enum anic_kind {
	ANIC_KIND_NONE = 0, /* could not be parsed: passed and counted */
	ANIC_KIND_ARP = 1,
	ANIC_KIND_ICMP = 2,  /* icmp_type is valid; ICMPv6 when ip_version is 6 */
	ANIC_KIND_UDP = 3,   /* ports are valid unless this is a later fragment */
	ANIC_KIND_TCP = 4,   /* likewise */
	ANIC_KIND_OTHER = 5, /* well-formed, and nothing that the policy can name */
	ANIC_KIND__MAX = 6,
};

enum anic_fragment {
	ANIC_FRAGMENT_NONE = 0,
	ANIC_FRAGMENT_FIRST = 1,
	ANIC_FRAGMENT_LATER = 2, /* no transport header in this packet */
};

struct anic_pkt {
	__u16 l3_off; /* bytes from the start of the frame to the IP header */
	__u16 l4_off; /* ... to the transport header; 0 when there is none */
	__u16 src_port;
	__u16 dst_port;
	__u8 kind;	 /* enum anic_kind */
	__u8 ip_version; /* 4, 6, or 0 */
	__u8 fragment;	 /* enum anic_fragment */
	__u8 icmp_type;
};
ANIC_ASSERT(sizeof(struct anic_pkt) == 12);

/*
 * The value of the anic_ports map. Its index is the destination port, plus ANIC_PORTS for TCP. A zeroed
 * entry is a port that the policy does not name.
 */
#define ANIC_PORTS 65536

struct anic_port {
	__u8 cls;     /* enum anic_class; ANIC_CLASS_NONE: not named */
	__u8 path;    /* enum anic_path */
	__u8 service; /* id; 0 for control traffic */
	__u8 _pad[5];
};
ANIC_ASSERT(sizeof(struct anic_port) == 8);

/* The value of the anic_services map, indexed by service id: for people and tools, never read per packet. */
struct anic_service {
	char name[ANIC_NAME_LEN];
	__u16 port;
	__u8 protocol; /* IPPROTO_UDP or IPPROTO_TCP */
	__u8 cls;      /* enum anic_class */
	__u8 path;     /* enum anic_path */
	__u8 _pad[3];
};
ANIC_ASSERT(sizeof(struct anic_service) == ANIC_NAME_LEN + 8);

#endif
