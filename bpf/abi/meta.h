/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * The pinned meta map: who pinned this instance, for which interface. Whoever opens the other pins reads
 * this first and refuses another version. The fields up to mode never move: any version can detach another's
 * instance.
 */
#ifndef ANIC_ABI_META_H
#define ANIC_ABI_META_H

#include "abi/types.h"

struct anic_meta {
	__u32 abi_version;    /* ANIC_ABI_VERSION of the loader */
	__u32 meta_size;      /* sizeof(struct anic_meta) of the loader */
	__u64 netns_cookie;   /* SO_NETNS_COOKIE: unlike the inode, never reused */
	__u64 attached_at_ns; /* wall clock, since 1970 */
	__u32 ifindex;
	__u32 queues;	     /* receive queues when it was attached */
	__u8 hook;	     /* enum anic_hook, of the ingress program */
	__u8 mode;	     /* enum anic_mode */
	__u8 egress_hook;    /* enum anic_hook */
	__u8 clsact_is_ours; /* 1: the attach made the clsact qdisc, and detach removes it if nobody else uses
				it */
	__u8 vlan_offload_off; /* 1: the attach turned VLAN receive offload off, and detach turns it on */
	__u8 _pad[3];
	__u64 upgraded_at_ns; /* wall clock, or 0 */
	char ifname[16];      /* the name then; interfaces are renamed */
};
ANIC_ASSERT(sizeof(struct anic_meta) == 64);

#endif
