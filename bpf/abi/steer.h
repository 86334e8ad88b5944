/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * Steering: which CPU the flows of a lane go on, on path A. A flow is in one of ANIC_BUCKETS buckets, by its
 * addresses, ports, protocol and DSCP. docs/steering.md says what is kept in order, and what is not.
 */
#ifndef ANIC_ABI_STEER_H
#define ANIC_ABI_STEER_H

#include "abi/lane.h"

#define ANIC_STEER_BUCKETS_LOG2 7
#define ANIC_STEER_BUCKETS (1 << ANIC_STEER_BUCKETS_LOG2)
#define ANIC_CPUS_MAX 8192 /* CPUs have numbers below this */

/* The value of anic_spread, by lane id: what anic_commit copies into anic_steering. */
struct anic_spread {
	__u16 cpu[ANIC_STEER_BUCKETS]; /* plus 1; 0: where the queue's interrupt comes */
};
ANIC_ASSERT(sizeof(struct anic_spread) == 256);

/* The value of anic_steering, by lane id. BPF programs alone write it. */
struct anic_steering {
	struct anic_spread to;
	struct anic_spread stated;	/* `to` as the policy has it */
	__u64 last[ANIC_STEER_BUCKETS]; /* see ANIC_STEERED */
	__u64 used;			/* 1: the policy spreads this lane */
	__u64 _pad[7];
};
ANIC_ASSERT(sizeof(struct anic_steering) == 1600);

/*
 * Where the last packet of a bucket went: CPU plus 1 (0: it stayed) in bits 48 to 63, in bits 32 to 47 the
 * time, in ANIC_STEER_TIME_LOG2, since which the bucket waits to move (0: it does not), and its number among
 * all that went to that CPU in the rest.
 */
#define ANIC_STEERED(cpu, since, number) ((__u64)(cpu) << 48 | (__u64)(__u16)(since) << 32 | (__u32)(number))
#define ANIC_STEERED_CPU(word) ((__u32)((word) >> 48))
#define ANIC_STEERED_SINCE(word) ((__u16)((word) >> 32))
#define ANIC_STEERED_NUMBER(word) ((__u32)(word))
#define ANIC_STEER_TIME_LOG2 20 /* ns: about 1 ms */
#define ANIC_STEER_WAIT 100	/* of those; after that a bucket moves, whatever is still under way */

#define ANIC_STEER_QUEUE 2048 /* packets that wait for one CPU; what comes then is lost */
/*
 * A CPU hands packets over at the end of its NAPI poll, a few at once. Meanwhile another may hand over some
 * with higher numbers: no more than this, it is assumed.
 */
#define ANIC_STEER_MARGIN 1024

/* The value of anic_cpus, by CPU: those who send to it, and the CPU itself, write lines of their own. */
struct anic_cpu {
	__u64 sent;	   /* packets that were redirected to it */
	__u64 moved;	   /* buckets that left it when all of theirs had arrived */
	__u64 moved_early; /* ... after ANIC_STEER_WAIT, so that packets may have changed places */
	__u64 _pad[5];
	__u64 arrived; /* packets, as it counted them itself */
	__u64 lost;    /* sent, and known not to come: exact once it was quiet for ANIC_STEER_QUIET ticks */
	__u64 sent_before; /* at the last tick; the rest is the tick's own too */
	__u64 arrived_before;
	__u64 quiet; /* ticks without a change */
	__u64 _pad2[3];
};
ANIC_ASSERT(sizeof(struct anic_cpu) == 128);
#define ANIC_STEER_QUIET 100 /* ticks: a second */

#endif
