/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * The pinned meta map: who pinned this instance, for which interface. Whoever opens the other pins reads
 * this first and refuses another version. The first two fields never move.
 */
#ifndef ANIC_ABI_META_H
#define ANIC_ABI_META_H

#include "abi/types.h"

#define ANIC_DIGEST_LEN 32 /* SHA-256 */

struct anic_meta {
	__u32 abi_version;    /* ANIC_ABI_VERSION of the loader */
	__u32 meta_size;      /* sizeof(struct anic_meta) of the loader */
	__u64 netns_cookie;   /* SO_NETNS_COOKIE: unlike the inode, never reused */
	__u64 attached_at_ns; /* wall clock, since 1970 */
	__u32 ifindex;
	__u32 queues; /* receive queues when it was attached */
	__u8 hook;    /* enum anic_hook */
	__u8 mode;    /* enum anic_mode */
	__u8 _pad[6];
	__u8 policy_digest[ANIC_DIGEST_LEN]; /* SHA-256 of the policy in canonical form */
	char policy_name[ANIC_NAME_LEN];
	char ifname[16]; /* the name then; interfaces are renamed */
};
ANIC_ASSERT(sizeof(struct anic_meta) == 120);

#endif
