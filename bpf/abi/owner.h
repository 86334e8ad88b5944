/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * The page of who owns the AF_XDP socket of a queue: what was redirected to it, and what it has taken of
 * that. Its owner maps it and can write all of it; in copy mode, what is wrong in it loses frames of this
 * queue's xsk services, and nothing of anybody else. docs/afxdp.md says what comes of it.
 */
#ifndef ANIC_ABI_OWNER_H
#define ANIC_ABI_OWNER_H

#include "abi/types.h"

/* What waits for an owner that long, while it gives no sign of life, has met one that is stalled. */
#define ANIC_OWNER_STALE_NS 50000000
#define ANIC_OWNER_STEP_NS 10000000 /* of the time that is waited, a tick counts for no more */

/*
 * How long frames take from XDP to what their owner answers, by samples. XDP takes the time of one frame in
 * ANIC_OWNER_SAMPLE_EVERY, unless a sample is outstanding; the owner says with `sampled` that it has taken
 * or given up the last one.
 */
#define ANIC_OWNER_SAMPLE_EVERY 16
#define ANIC_OWNER_TURNS 24
#define ANIC_OWNER_TURN_LOG2 6 /* bucket b: from 2^(b + 6) ns on; the first has what is less, too */

/*
 * Lines of 64 bytes, each with one writer and one rate: what XDP writes for each frame is not what the owner
 * looks at while it waits, and what the owner writes at each look is not what XDP reads for each frame.
 */
struct anic_owner {
	/* written at XDP, by the one CPU whose queue it is, or by several; for each frame */
	__u64 sent;	 /* frames that were redirected */
	__u64 beats;	 /* the owner's sign of life, as XDP saw it last ... */
	__u64 alive_ns;	 /* ... and since when it is the same, or nothing waited; of anic_state.tick_ns */
	__u64 limit;	 /* `sent` may become that much, by what the owner said when XDP looked last ... */
	__u64 looked_ns; /* ... which was at this tick */
	__u64 _pad1[3];
	/* at XDP, now and then */
	__u64 refused;	 /* frames that took path A because the owner did not keep up */
	__u64 sample_at; /* `sent` with the frame that is sampled; 0: none was yet */
	__u64 sample_ns; /* CLOCK_MONOTONIC: when that came; written before sample_at */
	__u64 _pad2[5];
	/* by the owner, at each look at its ring */
	__u64 consumed;	   /* of `sent`: received, or lost after the verdict (XDP_STATISTICS) */
	__u64 lost;	   /* of those: lost; for people */
	__u64 beat;	   /* changes with each look at the ring */
	__u64 transmitted; /* frames that it has given to the device; for people */
	__u32 room;	   /* frames that it has buffers for */
	__u32 _pad3;
	__u64 _pad4[3];
	/* by the owner, once */
	__u32 longest; /* bytes of a frame that it has room for; 0: ANIC_XSK_FRAME_MAX */
	__u32 pid;     /* for people: in its own namespace */
	__u64 _pad5[7];
	/* by the owner, with each sample */
	__u64 sampled;	 /* the sample_at that it has taken or given up; one that differs is outstanding */
	__u64 samples;	 /* that it has taken; for people, as what follows */
	__u64 turned_ns; /* all of them together */
	__u32 turns[ANIC_OWNER_TURNS]; /* how many took how long */
	__u64 _pad6;
};
ANIC_ASSERT(sizeof(struct anic_owner) == 384);

#endif
