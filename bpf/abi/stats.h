/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * Counters: one struct per CPU. Every packet that enters a program is counted once by reason and once by
 * class, so that the sums of both are what was seen; a packet of a service is also counted there. At TC,
 * which comes after GRO, an aggregate counts as the packets that it was made of.
 */
#ifndef ANIC_ABI_STATS_H
#define ANIC_ABI_STATS_H

#include "abi/types.h"

/* Why a packet went where it went. */
enum anic_reason {
	ANIC_REASON_NONE = 0, /* never counted: a packet here is a bug */
	ANIC_REASON_PASS_CONTROL = 1,
	ANIC_REASON_PASS_SERVICE = 2,	/* a service on path A */
	ANIC_REASON_PASS_DEFAULT = 3,	/* no service has this port */
	ANIC_REASON_PASS_UNPARSED = 4,	/* truncated, or a header that the parser does not know */
	ANIC_REASON_PASS_FRAGMENT = 5,	/* path A, because only the kernel reassembles */
	ANIC_REASON_PASS_NO_SOCKET = 6, /* an xsk service, and nobody owns this queue */
	ANIC_REASON_PASS_NO_XDP = 7,	/* an xsk service, seen by a hook that cannot redirect to AF_XDP */
	ANIC_REASON_REDIRECT_XSK = 8,	/* path B */
	ANIC_REASON__MAX = 9,
};

struct anic_count {
	__u64 packets;
	__u64 bytes; /* the frame as the hook sees it: Ethernet header included, no FCS, no preamble */
};
ANIC_ASSERT(sizeof(struct anic_count) == 16);

struct anic_counters {
	struct anic_count by_reason[ANIC_REASON__MAX];
	struct anic_count by_class[ANIC_CLASS__MAX];
	struct anic_count by_service[ANIC_SERVICES_MAX]; /* [0] stays empty */
};
ANIC_ASSERT(sizeof(struct anic_counters) ==
	    16 * ((int)ANIC_REASON__MAX + (int)ANIC_CLASS__MAX + ANIC_SERVICES_MAX));

#endif
