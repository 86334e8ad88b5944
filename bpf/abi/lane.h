/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * Lanes: what each class of each tenant is given. A lane's id is tenant * ANIC_CLASS__MAX + class, in every
 * generation. No packet is of ANIC_CLASS_NONE: in its place stands what the tenant as a whole is given, and
 * for tenant 0 the ceiling is the link's rate, or 0 if that is not stated.
 *
 * anic_lanes has one for each slot, profile and id, in this order. Userspace cannot write it: it fills
 * anic_staging, with the profiles before ANIC_PROFILES_STATED, and anic_prepare copies.
 */
#ifndef ANIC_ABI_LANE_H
#define ANIC_ABI_LANE_H

#include "abi/policy.h"

#define ANIC_PRIORITY_MAX 15 /* TC_PRIO_MAX: of the bands of prio, pfifo_fast and mqprio */
#define ANIC_MARK(value) ((value) + 1)

#define ANIC_LANES_MAX (ANIC_TENANTS_MAX * ANIC_CLASS__MAX)
#define ANIC_LANE(tenant, cls) ((tenant) * ANIC_CLASS__MAX + (cls))
#define ANIC_LANE_TENANT(id)                                                                                 \
	((id) * 43691U >> 18) /* id / ANIC_CLASS__MAX, without a division, below 65536                       \
			       */

/* Which of the tables of a generation. */
enum anic_profile {
	ANIC_PROFILE_POLICY = 0,   /* what the policy gives */
	ANIC_PROFILE_FALLBACK = 1, /* what is in force in fail-safe */
	ANIC_PROFILE_TUNED =
		2, /* what is in force else: the policy's, with what the guardian let be changed */
	ANIC_PROFILE__MAX = 3,
};
#define ANIC_PROFILES_STATED 2

struct anic_lane {
	__u64 rate_bps;	     /* guaranteed, bit/s on the wire; 0: nothing is */
	__u64 ceiling_bps;   /* never more than this; 0: the link's rate */
	__u64 slo_ns;	     /* what an answer may take; 0: none is stated */
	__u16 weight;	     /* 1 to ANIC_WEIGHT_MAX: share of what the tenant's lanes leave unused */
	__u16 floor_percent; /* of the tenant's rate, below which the lane cannot be tuned */
	__u8 path;	     /* enum anic_path: how far its services' packets may go */
	__u8 priority;	     /* at egress: of the skb, plus 1; 0: as it is; the next two likewise */
	__u8 queue;
	__u8 dscp;
};
ANIC_ASSERT(sizeof(struct anic_lane) == 32);

#endif
