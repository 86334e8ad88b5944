/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * Turnaround: how long answers take. A sample begins with a request and ends with the first data of its
 * answer; docs/turnaround.md says which packets those are, and which requests are looked at.
 */
#ifndef ANIC_ABI_TURN_H
#define ANIC_ABI_TURN_H

#include "abi/lane.h"

#define ANIC_TURN_SLOTS_LOG2 4
#define ANIC_TURN_SLOTS (1 << ANIC_TURN_SLOTS_LOG2) /* of a lane: samples at a time */
#define ANIC_TURN_WANTED 16 /* packets of a lane and direction that may begin one, until the next tick */
#define ANIC_TURN_GIVE_UP_NS 1000000000	 /* a request is missed after this, where no SLO is stated */
#define ANIC_TURN_KEEP_NS 1000000000	 /* ... and an answer to it is still waited for so long */
#define ANIC_TURN_LEFT_OUT_NS 1000000000 /* no sample of a flow that sent ahead begins for so long */

/*
 * The histogram is log-linear: ANIC_TURN_PARTS buckets for each power of two, the first of which holds 0. A
 * bucket is ANIC_TURN_UNIT_NS wide at least. Number i holds what is less than ANIC_TURN_BUCKET_END_NS(i), and
 * not in one before. The last holds all that is longer, too.
 */
#define ANIC_TURN_UNIT_LOG2 6
#define ANIC_TURN_PARTS_LOG2 4
#define ANIC_TURN_TOP_LOG2 29 /* of units: 34 s */
#define ANIC_TURN_PARTS (1 << ANIC_TURN_PARTS_LOG2)
#define ANIC_TURN_BUCKETS ((ANIC_TURN_TOP_LOG2 - ANIC_TURN_PARTS_LOG2 + 1) << ANIC_TURN_PARTS_LOG2)
#define ANIC_TURN_SHIFT(i) ((i) < 2 * ANIC_TURN_PARTS ? 0 : (i) / ANIC_TURN_PARTS - 1)
#define ANIC_TURN_BUCKET_END_NS(i)                                                                           \
	(((__u64)(i) - (__u64)ANIC_TURN_SHIFT(i) * ANIC_TURN_PARTS + 1)                                      \
	 << (ANIC_TURN_SHIFT(i) + ANIC_TURN_UNIT_LOG2))

/* What becomes of the request in a slot. */
enum anic_turn_state {
	ANIC_TURN_NONE = 0,
	ANIC_TURN_WAITING = 1,	/* for its answer */
	ANIC_TURN_MISSED = 2,	/* counted as such; an answer is still waited for */
	ANIC_TURN_LEFT_OUT = 3, /* its flow sends ahead: nobody has the slot for a while */
	ANIC_TURN__MAX = 4,
};

#define ANIC_TURN_FREE 0 /* flows that are none */
#define ANIC_TURN_BUSY 1 /* somebody writes to the slot, or reads it to free it: nobody else may */

struct anic_turn_slot {
	__u64 flow;	/* keyed hash of the two ends, either way; or one of the above */
	__u64 asked_ns; /* CLOCK_MONOTONIC: of the request; ANIC_TURN_LEFT_OUT: of when it was seen to be */
	__u32 end;	/* TCP: the sequence number after the request */
	__u32 ack;	/* ... and the one at which its answer begins */
	__u32 state;	/* enum anic_turn_state */
	__u32 _pad;
};
ANIC_ASSERT(sizeof(struct anic_turn_slot) == 32);

/*
 * The value of anic_turns, indexed by lane id. BPF programs alone write it, all CPUs the same.
 *
 * A request that was looked at is counted once: in samples, answered or missed, or in ambiguous. What is over
 * the SLO, and what was missed, is among the samples. The histogram counts answers, those to missed
 * requests too.
 */
struct anic_turn_lane {
	__u32 wanted[ANIC_DIRECTION__MAX]; /* packets that may begin a sample until the next tick */
	__u32 outstanding;		   /* slots that wait for an answer */
	__u32 _pad[13];			   /* a packet that finds all zero reads one cache line */
	struct anic_turn_slot slots[ANIC_TURN_SLOTS];
	__u64 samples;
	__u64 over_slo;	   /* took longer than the SLO of the lane, if one is stated */
	__u64 misses;	   /* had no answer within the SLO, or ANIC_TURN_GIVE_UP_NS */
	__u64 ambiguous;   /* nobody can tell which answer is theirs */
	__u64 srtt_us_sum; /* what TCP made of round trips, at each sample that it sent a packet of */
	__u64 srtt_count;
	__u64 _pad_counts[2];
	__u64 histogram[ANIC_TURN_BUCKETS];
};
ANIC_ASSERT(sizeof(struct anic_turn_lane) == 64 + 32 * ANIC_TURN_SLOTS + 64 + 8 * ANIC_TURN_BUCKETS);
/* Not a multiple of what one way of a first-level cache holds: the first lines of lanes would share a set. */
ANIC_ASSERT(sizeof(struct anic_turn_lane) % 64 == 0 && sizeof(struct anic_turn_lane) % 4096);

#endif
