/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * Quotas: what each lane may send or receive a second, and how that is kept. docs/quotas.md says how rates
 * are shared out; each direction has a set of its own.
 */
#ifndef ANIC_ABI_SHARE_H
#define ANIC_ABI_SHARE_H

#include "abi/lane.h"

/*
 * Wire bytes: what a frame keeps an Ethernet link busy for (IEEE 802.3: preamble and start 8, FCS 4, gap 12;
 * 64 with the FCS at least).
 */
#define ANIC_WIRE_EXTRA 24
#define ANIC_WIRE_FRAME_MIN 60

/* Times of buckets are in 1/64 ns of CLOCK_MONOTONIC: they wrap after 9 years, and are compared by sign. */
#define ANIC_TICK_LOG2 6
#define ANIC_TICKS(ns) ((__u64)(ns) << ANIC_TICK_LOG2)

/* The cost of a byte is in ticks, a fixed-point number: 84,000 at 400 Gbit/s, 3,355 at 10 Tbit/s. */
#define ANIC_COST_LOG2 16
#define ANIC_COST(rate_bps) ((ANIC_TICKS(8000000000) << ANIC_COST_LOG2) / (rate_bps))
#define ANIC_RATE_MIN_BPS 8000 /* what is less counts as this: nothing is taken off the schedule */

#define ANIC_BURST_BYTES 73728	   /* a bucket holds this: the packets of the largest TSO aggregate, 64 KiB */
#define ANIC_BURST_NS 5000000	   /* ... or this long, where it polices and that is more */
#define ANIC_LEASE_NS 100000	   /* what a CPU takes at once, of the lane's rate */
#define ANIC_LEASE_BYTES_MAX 65536 /* ... and the most that it takes */
#define ANIC_LEASE_BYTES_FREE (1 << 20) /* ... where there is no limit */
#define ANIC_HORIZON_NS 200000000	/* a packet that would have to wait longer is dropped */
#define ANIC_DEBT_NS 3600000000000	/* no bucket is further ahead than this, unless the clock went back */
#define ANIC_SHARE_NS 10000000		/* how often rates are shared out */
#define ANIC_WANTED_BYTES 32768		/* what a lane wants is found anew after so much was asked for */
#define ANIC_WANTED_NS 100000000	/* ... or after so long */

/*
 * The value of anic_buckets, indexed by direction * ANIC_LANES_MAX + lane: a leaky bucket as a meter, of
 * which all CPUs take (ITU-T I.371, the virtual scheduling form of GCRA). That of ANIC_CLASS_NONE keeps the
 * tenant's ceiling. BPF programs alone write it.
 */
struct anic_bucket {
	__u64 paid;	   /* the time until which what was taken uses the rate up */
	__u64 cost;	   /* of a byte; 0: there is no limit */
	__u64 rate_bps;	   /* which the last sharing gave; 0: there is no limit */
	__u64 asked;	   /* bytes that were taken and refused, since the beginning */
	__u64 seen;	   /* of those, when what is wanted was last found */
	__u64 seen_ns;	   /* when that was */
	__u64 wanted_bps;  /* what the lane asked for lately */
	__u32 lease_bytes; /* what a CPU takes at once */
	__u32 hungry;	   /* 1: at the last sharing it had used up what it had */
};
ANIC_ASSERT(sizeof(struct anic_bucket) == 64);
#define ANIC_BUCKETS_MAX (ANIC_DIRECTION__MAX * ANIC_LANES_MAX)

/* What a CPU has taken for a lane and not used, in its counters: ANIC_STATE_POLICIES in bits 32 to 63, bytes
 * in the rest. */
#define ANIC_LEASE(policies, bytes) ((__u64)(policies) << 32 | (__u32)(bytes))

/*
 * The value of anic_claims: what competes for a rate, a tenant for the link's or a lane for its tenant's.
 * Each direction has one for each tenant, then one for each class. Of the CPU that shares out.
 */
struct anic_claim {
	__u64 least_bps; /* guaranteed */
	__u64 most_bps;	 /* never more */
	__u64 wants_bps; /* 0 to most_bps */
	__u64 more_bps;	 /* what it wants beyond what is guaranteed and is not settled yet */
	__u32 weight;	 /* 0: it does not take part */
	__u32 _pad;
};
ANIC_ASSERT(sizeof(struct anic_claim) == 40);
#define ANIC_CLAIMS_MAX (ANIC_TENANTS_MAX + ANIC_CLASS__MAX) /* of a direction */

/*
 * The value of anic_levels: how a rate is divided. Each direction has two, of the link's among tenants and of
 * a tenant's among its lanes. Of the CPU that shares out, in a map so that the verifier need not follow the
 * numbers.
 */
struct anic_level {
	__u64 left_bps;	  /* what is not given away yet */
	__u64 weight;	  /* of those who want more than they have; 0: nobody does */
	__u64 per_weight; /* what each unit of weight gets, bit/s, a fixed-point number */
	__u64 settled;	  /* 1: this round settled a claim */
};
ANIC_ASSERT(sizeof(struct anic_level) == 32);
#define ANIC_LEVEL_LOG2 10
#define ANIC_LEVEL_ROUNDS 16
#define ANIC_LEVEL(direction, of_lanes) ((direction) * 2 + (of_lanes))
#define ANIC_LEVELS_MAX (ANIC_DIRECTION__MAX * 2)

/* The value of anic_sharing, indexed by direction. */
struct anic_sharing {
	__u64 last_ns; /* when rates were last shared out, CLOCK_MONOTONIC */
	__u64 rounds;  /* how often */
	__u64 busy;    /* 1: a CPU is at it */
};
ANIC_ASSERT(sizeof(struct anic_sharing) == 24);

#endif
