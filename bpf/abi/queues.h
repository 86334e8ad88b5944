/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * The pinned record of receive queues that are set aside for AF_XDP zero-copy: what the NIC was like before,
 * and what was or may have been changed. Written before the first change, gone after the last is undone, so
 * that whoever was killed in between leaves what detach can undo. No BPF program reads it, and only an
 * instance with such queues has it.
 *
 * Its layout never changes, so that any version can undo what another has done: another layout would be
 * another map.
 */
#ifndef ANIC_ABI_QUEUES_H
#define ANIC_ABI_QUEUES_H

#include "abi/types.h"

#define ANIC_ASIDE_TABLE_MAX 4096 /* entries of an RSS indirection table */
#define ANIC_ASIDE_RULES_MAX 512

#define ANIC_LOCATION_NONE 0xffffffffU /* the NIC chooses: it is found by what it matches */

/* A flow rule: of UDP or TCP packets whose ports are these in the bits of the masks, all go to the queue. */
struct anic_aside_rule {
	__u32 location; /* or ANIC_LOCATION_NONE */
	__u16 source_port;
	__u16 source_mask;
	__u16 destination_port;
	__u16 destination_mask;
	__u16 queue;
	__u8 protocol; /* IPPROTO_UDP or IPPROTO_TCP */
	__u8 version;  /* of IP: 4 or 6 */
};
ANIC_ASSERT(sizeof(struct anic_aside_rule) == 16);

struct anic_aside {
	__u64 netns_cookie; /* SO_NETNS_COOKIE */
	__u32 ifindex;
	__u32 done;		/* 1: all of it is in place */
	__u32 turned_ntuple_on; /* 1: it was off */
	__u32 table_size;	/* 0: the table was not changed */
	__u32 table_is_default; /* 1: it was the driver's own */
	__u32 rules_count;
	__u64 queues[ANIC_QUEUES_MAX / 64]; /* a bit for each that is set aside */
	struct anic_aside_rule rules[ANIC_ASIDE_RULES_MAX];
	__u16 before[ANIC_ASIDE_TABLE_MAX]; /* the indirection table */
	__u16 after[ANIC_ASIDE_TABLE_MAX];
};
ANIC_ASSERT(sizeof(struct anic_aside) == 64 + 16 * ANIC_ASIDE_RULES_MAX + 4 * ANIC_ASIDE_TABLE_MAX);

#endif
