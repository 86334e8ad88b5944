/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * Counters, one copy per CPU. A packet is counted when its lane is known (seen) and once more when it leaves
 * the program (by reason, in its lane and in its queue), so that what was seen and not accounted for would
 * show. At TC, which comes after GRO and before TSO, an aggregate counts as the packets that it is made of.
 */
#ifndef ANIC_ABI_STATS_H
#define ANIC_ABI_STATS_H

#include "abi/lane.h"

/* Why a packet went where it went. */
enum anic_reason {
	ANIC_REASON_NONE = 0, /* not a reason */
	ANIC_REASON_PASS_CONTROL = 1,
	ANIC_REASON_PASS_SERVICE = 2,  /* a service on path A */
	ANIC_REASON_PASS_DEFAULT = 3,  /* the tenant's default class: nothing else names it */
	ANIC_REASON_PASS_UNPARSED = 4, /* truncated, or a header that the parser does not know */
	ANIC_REASON_PASS_FRAGMENT =
		5, /* a later fragment, or any of an xsk service: only the kernel reassembles */
	ANIC_REASON_PASS_NO_SOCKET = 6, /* an xsk service, and nobody owns this queue */
	ANIC_REASON_PASS_NO_XDP = 7,	/* an xsk service, seen by a hook that cannot redirect to AF_XDP */
	ANIC_REASON_REDIRECT_XSK = 8,	/* path B */
	ANIC_REASON_PASS_DSCP = 9,	/* no service, and the policy gives its DSCP a class */
	ANIC_REASON_PASS_ROCE = 10,	/* RoCEv2: bulk */
	ANIC_REASON_PASS_TOO_LONG =
		11,		     /* an xsk service, and more than the buffer of an AF_XDP socket holds */
	ANIC_REASON_PASS_LANE = 12,  /* an xsk service, and its lane is kept on path A */
	ANIC_REASON_DROP_QUOTA = 13, /* more than its lane has */
	ANIC_REASON_REDIRECT_CPU = 14, /* path A, on another CPU */
	ANIC_REASON_PASS_STALLED = 15, /* an xsk service, and the owner of its queue does not keep up */
	ANIC_REASON__MAX = 16,
};
#define ANIC_REASONS ((int)ANIC_REASON__MAX - 1) /* those that are counted */
#define ANIC_REASON_AT(reason) ((reason) - 1)	 /* its place in by_reason */

/* The longest frame that is redirected: a buffer of 2 KiB less the headroom that the kernel keeps
 * (XDP_PACKET_HEADROOM). */
#define ANIC_XSK_FRAME_MAX 1792

struct anic_count {
	__u64 packets;
	__u64 bytes; /* the frame as the hook sees it: Ethernet header included, no FCS, no preamble */
};
ANIC_ASSERT(sizeof(struct anic_count) == 16);

struct anic_lane_count {
	__u64 seen;  /* packets */
	__u64 lease; /* not a count: what this CPU may still let pass (abi/share.h) */
	struct anic_count by_reason[ANIC_REASONS]; /* at ANIC_REASON_AT */
};
ANIC_ASSERT(sizeof(struct anic_lane_count) == 256);

/* A queue beyond the last is counted as the last. */
struct anic_queue_count {
	__u64 by_reason[ANIC_REASONS]; /* packets */
};
ANIC_ASSERT(sizeof(struct anic_queue_count) == 8 * ANIC_REASONS);

/*
 * The value of anic_counters, indexed by CPU. An array with an element for each CPU, not a per-CPU array: one
 * look-up finds all of them, and elements of those have at most 32 KiB.
 */
struct anic_counters {
	struct anic_lane_count lanes[ANIC_DIRECTION__MAX][ANIC_LANES_MAX]; /* by lane id (abi/lane.h) */
	struct anic_queue_count queues[ANIC_DIRECTION__MAX][ANIC_QUEUES_MAX];
	struct anic_count services[ANIC_DIRECTION__MAX][ANIC_SERVICES_MAX]; /* by id; [0]: of none */
	struct anic_lane_count gone[ANIC_DIRECTION__MAX]; /* of tenants whose id another one has now */
};
ANIC_ASSERT(sizeof(struct anic_counters) % 128 == 0); /* CPUs share no cache line */

/* The one entry of anic_control, shared by all CPUs: the rate of control traffic, whose addresses can be
 * forged. */
struct anic_control {
	__u64 second;	    /* the one that is being counted, of CLOCK_MONOTONIC */
	__u64 packets;	    /* in it */
	__u64 alarms;	    /* seconds that had more than the policy's control_alarm */
	__u64 last_alarm_s; /* the last of them */
};
ANIC_ASSERT(sizeof(struct anic_control) == 32);

#endif
