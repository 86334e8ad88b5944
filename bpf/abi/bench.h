/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/* What the programs of bpf/bench run on. */
#ifndef ANIC_ABI_BENCH_H
#define ANIC_ABI_BENCH_H

#include "abi/types.h"

/* The one entry of bench_setup. */
struct anic_bench {
	__u32 flows;  /* how many there are, 1 to 2^24 */
	__u32 base;   /* the number of the first */
	__u32 random; /* 1: drawn, 0: one after the other */
	__u32 next;   /* counted up by every run */
	__u32 peers;  /* source addresses that the flows have, a power of 2, 2^24 at most */
	__u32 _pad;
};
ANIC_ASSERT(sizeof(struct anic_bench) == 24);

#endif
