/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * The pinned record of a NIC's header/data split that was stated for zero-copy receive: what it was like
 * before. Written before the change, gone after it is undone, beside the record of the queues (abi/queues.h)
 * and no part of it. No BPF program reads it, and only an instance with queues set aside for zero-copy
 * receive has it.
 *
 * Its layout never changes, so that any version can undo what another has done: another layout would be
 * another map.
 */
#ifndef ANIC_ABI_HEADER_SPLIT_H
#define ANIC_ABI_HEADER_SPLIT_H

#include "abi/types.h"

struct anic_split {
	__u64 netns_cookie; /* SO_NETNS_COOKIE */
	__u32 ifindex;
	__u32 was_on;		 /* 1: the driver split headers already, and may not have been told to */
	__u32 threshold_changed; /* 1: to 0 */
	__u32 threshold_before;	 /* bytes */
};
ANIC_ASSERT(sizeof(struct anic_split) == 24);

#endif
