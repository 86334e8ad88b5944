/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * What the holder of a session sees: of the tenants and classes that it was granted, and of nobody else. The
 * session's drain writes it, when it is asked to; docs/agent.md says what agents make of it.
 */
#ifndef ANIC_ABI_OBSERVE_H
#define ANIC_ABI_OBSERVE_H

#include "abi/guardian.h"

#define ANIC_OBSERVED_CLASSES (ANIC_CLASS__MAX - ANIC_CLASS_DEFAULT) /* control is nobody's */
#define ANIC_OBSERVED_LANES ((ANIC_TENANTS_MAX - 1) * ANIC_OBSERVED_CLASSES)

#define ANIC_OBSERVE_COUNTS 8192	  /* elements of anic_counters that a call reads at most */
#define ANIC_OBSERVE_TURNS 8		  /* histograms that it reads at most */
#define ANIC_OBSERVE_WINDOW 128		  /* answers after which percentiles are found anew ... */
#define ANIC_OBSERVE_WINDOW_NS 1000000000 /* ... or after so long, if there was one */

/* One direction of a lane. Counts are since attach, and only grow; rates are on the wire. */
struct anic_observed_way {
	__u64 packets;
	__u64 bytes; /* frames as the hook sees them (abi/stats.h) */
	__u64 dropped_packets;
	__u64 dropped_bytes;
	__u64 given_bps;  /* what it may have now; 0: there is no limit */
	__u64 wanted_bps; /* what it asked for lately */
	__u64 ahead_ns;	  /* occupancy of its bucket: for so long what it has taken uses its rate up */
};
ANIC_ASSERT(sizeof(struct anic_observed_way) == 56);

/* A lane; one that is not granted, or is not granted any more, is zero. */
struct anic_observed_lane {
	__u8 tenant; /* id */
	__u8 cls;    /* enum anic_class */
	__u8 path;   /* enum anic_path, as the next two: as tuned */
	__u8 floor_percent;
	__u32 weight;
	__u64 ceiling_bps;
	__u64 rate_bps; /* guaranteed */
	__u64 slo_ns;
	__u64 at_ns; /* CLOCK_MONOTONIC: of the counts */
	struct anic_observed_way ways[ANIC_DIRECTION__MAX];
	__u64 samples; /* since attach, as the next two */
	__u64 over_slo;
	__u64 missed;
	__u64 p50_ns; /* of the last window of answers */
	__u64 p99_ns;
	__u64 window; /* answers in it; 0: there was none yet */
};
ANIC_ASSERT(sizeof(struct anic_observed_lane) == 40 + 2 * 56 + 48);

/* A tenant as a whole; one that is not granted is zero. */
struct anic_observed_tenant {
	__u8 tenant;   /* id */
	__u8 failsafe; /* enum anic_failsafe: of the tenant, else of the instance; 0: proposals are taken */
	__u8 in_force; /* changes, of envelope.actions */
	__u8 _pad[5];
	__u64 rate_bps;	   /* guaranteed */
	__u64 ceiling_bps; /* with what it has borrowed; 0: the link's rate */
	__u64 stated_bps;  /* ... without */
	__u64 bulk_bps;	   /* the guardian's own limit of its class bulk, for an SLO; 0: none */
	__u64 free_ns;	   /* R3: CLOCK_MONOTONIC from when the next change is let through; 0: now */
	/* Ceiling of its class bulk; all 0: that is not granted, or no rate is stated. */
	__u64 bulk_now_bps;		    /* as tuned */
	__u64 bulk_stated_bps;		    /* R2: no change makes more of it */
	__u64 bulk_least_bps;		    /* I2: nor less */
	__u32 escalated[ANIC_ACTIONS_MAX];  /* services and classes, ANIC_ESCALATED, between zeros */
	__u32 rebalanced[ANIC_ACTIONS_MAX]; /* classes, buckets and CPUs, ANIC_REBALANCED, between zeros */
};
ANIC_ASSERT(sizeof(struct anic_observed_tenant) == 72 + 2 * 4 * ANIC_ACTIONS_MAX);
#define ANIC_ESCALATED(service, cls) ((__u32)(service) << 8 | (cls))
#define ANIC_ESCALATED_SERVICE(word) ((word) >> 8)
#define ANIC_ESCALATED_CLASS(word) ((word) & 0xff)
#define ANIC_REBALANCED(cls, bucket, cpu) ((__u32)(cpu) << 16 | (bucket) << 8 | (cls))
#define ANIC_REBALANCED_CLASS(word) ((word) & 0xff)
#define ANIC_REBALANCED_BUCKET(word) ((word) >> 8 & 0xff)
#define ANIC_REBALANCED_CPU(word) ((word) >> 16)

struct anic_observation {
	__u64 sequence; /* odd: it is being written */
	__u64 at_ns;	/* CLOCK_MONOTONIC */
	__u64 number;	/* how many there were */
	__u32 generation;
	__u32 looked; /* lanes whose counts are of now; the others' are of an earlier call */
	struct anic_envelope envelope;
	struct anic_grants grants; /* that hold now */
	__u64 _pad;
	struct anic_observed_tenant tenants[ANIC_TENANTS_MAX - 1];
	struct anic_observed_lane lanes[ANIC_OBSERVED_LANES];
};
ANIC_ASSERT(sizeof(struct anic_observation) ==
	    192 + sizeof(struct anic_observed_tenant) * (ANIC_TENANTS_MAX - 1) + 200 * ANIC_OBSERVED_LANES);

/* The one entry of session_page, which userspace maps to read. */
struct anic_page {
	__u64 answered; /* so many, since the session began; number n is in answers[n % ANIC_DRAIN_MAX] */
	__u64 _pad[7];
	struct anic_answer answers[ANIC_DRAIN_MAX];
	struct anic_observation observation;
};

#endif
