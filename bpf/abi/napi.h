/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * The pinned record of how the kernel is to poll an interface: what was set in its NAPIs, and what they had
 * before. Written before the first change, gone after the last is undone, so that whoever was killed in
 * between leaves what detach can undo. No BPF program reads it, and only an instance whose policy has such
 * settings has it.
 *
 * Its layout never changes, so that any version can undo what another has done: another layout would be
 * another map.
 */
#ifndef ANIC_ABI_NAPI_H
#define ANIC_ABI_NAPI_H

#include "abi/types.h"

#define ANIC_NAPIS_MAX 1024

enum anic_napi_setting {
	ANIC_NAPI_NONE = 0,
	ANIC_NAPI_DEFER_HARD_IRQS = 1,	   /* polls without a packet, before interrupts are turned on */
	ANIC_NAPI_GRO_FLUSH_TIMEOUT = 2,   /* ns */
	ANIC_NAPI_IRQ_SUSPEND_TIMEOUT = 3, /* ns */
	ANIC_NAPI_THREADED = 4,		   /* 0: in softirqs; else enum netdev_napi_threaded of the kernel */
	ANIC_NAPI__MAX = 5,
};

struct anic_napi {
	__u32 id; /* as the kernel gave it, unique in its namespace */
	__u32 _pad;
	__u64 before[ANIC_NAPI__MAX]; /* by enum anic_napi_setting */
};
ANIC_ASSERT(sizeof(struct anic_napi) == 48);

struct anic_napi_record {
	__u64 netns_cookie; /* SO_NETNS_COOKIE */
	__u32 ifindex;
	__u32 done;  /* 1: all of it is in place */
	__u32 set;   /* a bit for each enum anic_napi_setting that was set */
	__u32 count; /* of napis */
	__u64 after[ANIC_NAPI__MAX];
	struct anic_napi napis[ANIC_NAPIS_MAX];
};
ANIC_ASSERT(sizeof(struct anic_napi_record) == 64 + 48 * ANIC_NAPIS_MAX);

#endif
