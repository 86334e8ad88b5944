/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * The guardian: proposals, the envelope they are held to, what is in force of them, and fail-safe. What it
 * all means is in docs/guardian.md. BPF programs alone write the maps named here, but where that is said.
 */
#ifndef ANIC_ABI_GUARDIAN_H
#define ANIC_ABI_GUARDIAN_H

#include "abi/audit.h"
#include "abi/lane.h"
#include "abi/share.h"
#include "abi/steer.h"

#define ANIC_SESSIONS_MAX 16
#define ANIC_AGENTS_MAX 17  /* agent ids are 1 to 16; 0 is an operator by hand */
#define ANIC_ACTIONS_MAX 16 /* of a tenant: what is in force, and what was lately */
#define ANIC_DRAIN_MAX 64   /* proposals a call */

/* --- proposals --- */

enum anic_change {
	ANIC_CHANGE_NONE = 0,
	ANIC_CHANGE_QUEUE_WEIGHT_ADJUST = 1, /* tenant, class: weight */
	ANIC_CHANGE_BULK_PATH_THROTTLE = 2,  /* tenant: ceiling of its class bulk, bit/s */
	ANIC_CHANGE_FLOW_CLASS_ESCALATE = 3, /* tenant, service: enum anic_class to treat it as */
	ANIC_CHANGE_PATH_SWITCH = 4,	     /* tenant, class: enum anic_path */
	ANIC_CHANGE_QUEUE_REBALANCE = 5,     /* tenant, class, bucket: CPU */
	ANIC_CHANGE_QUOTA_BORROW = 6,	     /* tenant: bit/s above its ceiling */
	ANIC_CHANGE__MAX = 7,
};

/* What a session writes into its ring: one sample of this size. What its kind has no use for is zero. */
struct anic_proposal {
	__u32 size; /* sizeof(struct anic_proposal) */
	__u8 kind;  /* enum anic_change */
	__u8 tenant;
	__u8 cls; /* enum anic_class */
	__u8 _pad;
	__u16 service;
	__u16 bucket;
	__u32 _pad2;
	__u64 value;
	__u64 duration_ns; /* from the decision on, at most ANIC_DURATION_MAX_NS; 0: until the session ends */
	__u64 cookie;	   /* comes back in the answer */
	char reason[ANIC_TEXT_LEN];
};
ANIC_ASSERT(sizeof(struct anic_proposal) == 80);
#define ANIC_DURATION_MAX_NS (1ULL << 62)

struct anic_answer {
	__u64 cookie;
	__u8 decided;	/* enum anic_decided */
	__u8 invariant; /* enum anic_invariant: what rejected it, or the last that rewrote it */
	__u8 _pad[2];
	__u32 rewritten; /* as of struct anic_record */
	__u64 observed;
	__u64 requested;
	__u64 approved;
	__u64 until_ns;
	__u64 seq; /* of its record; 0: a rejection that is still counted together with others */
};
ANIC_ASSERT(sizeof(struct anic_answer) == 56);

/* --- the envelope: of the policy --- */

struct anic_grants {
	__u64 tenants; /* bit id - 1 */
	__u32 kinds;   /* bit enum anic_change, and so on */
	__u32 classes;
	__u32 paths;
	__u32 _pad;
};
ANIC_ASSERT(sizeof(struct anic_grants) == 24);

struct anic_agent {
	char name[ANIC_NAME_LEN]; /* an unused row has none */
	struct anic_grants grants;
};
ANIC_ASSERT(sizeof(struct anic_agent) == ANIC_NAME_LEN + 24);

struct anic_envelope {
	__u64 tick_ns;
	__u64 heartbeat_ns;	 /* L1: a session is heard of at least so often */
	__u64 duration_ns;	 /* R6: borrowing and escalation last at most so long */
	__u64 oscillation_ns;	 /* R5: the window */
	__u64 instability_ns;	 /* L2, L3: the window */
	__u64 cool_down_ns;	 /* L4; and how long what was rolled back stays as it is */
	__u64 slo_interval_ns;	 /* L3: how often SLOs are looked at */
	__u64 borrow_max_bps;	 /* R2 */
	__u64 borrow_step_bps;	 /* R1 */
	__u32 weight_min;	 /* R2 */
	__u32 weight_max;	 /* R2 */
	__u32 weight_step;	 /* R1 */
	__u32 throttle_percent;	 /* R1: of the value in force */
	__u32 changes_of_tenant; /* R3, a second */
	__u32 changes;		 /* R3, of all tenants together */
	__u32 actions;		 /* R4, 1 to ANIC_ACTIONS_MAX */
	__u32 flips;		 /* R5: so many are let pass */
	__u32 rejections;	 /* L2: in a row */
	__u32 instabilities;	 /* L2, L3: so many in the window are fail-safe */
	__u32 slo_percent;	 /* L3: of answers that may take longer than the SLO */
	__u32 slo_samples;	 /* L3: with fewer, nothing is concluded */
	__u32 protects;		 /* L3: 1: bulk is throttled when an SLO is missed */
	__u32 _pad;
};
ANIC_ASSERT(sizeof(struct anic_envelope) == 128);

/* The value of anic_guarding, by slot; and of anic_staged, the one entry, which userspace fills. */
struct anic_guarding {
	struct anic_envelope envelope;
	struct anic_agent agents[ANIC_AGENTS_MAX];
};
ANIC_ASSERT(sizeof(struct anic_guarding) == 128 + 56 * ANIC_AGENTS_MAX);

/* --- what is in force --- */

/*
 * What a change is of: enum anic_change in bits 24 to 31, class in bits 16 to 23, service or bucket in the
 * rest.
 */
#define ANIC_TARGET(kind, cls, part) ((__u32)(kind) << 24 | (__u32)(cls) << 16 | (__u32)(part))
#define ANIC_TARGET_KIND(target) ((target) >> 24)
#define ANIC_TARGET_CLASS(target) ((target) >> 16 & 0xff)
#define ANIC_TARGET_PART(target) ((target) & 0xffff)

static inline __attribute__((always_inline)) __u32 anic_target_of(const struct anic_proposal *p)
{
	switch (p->kind) {
	case ANIC_CHANGE_BULK_PATH_THROTTLE:
		return ANIC_TARGET(p->kind, ANIC_CLASS_BULK, 0);
	case ANIC_CHANGE_FLOW_CLASS_ESCALATE:
		return ANIC_TARGET(p->kind, ANIC_CLASS_NONE, p->service);
	case ANIC_CHANGE_QUEUE_REBALANCE:
		return ANIC_TARGET(p->kind, p->cls, p->bucket);
	}
	return ANIC_TARGET(p->kind, p->cls, 0);
}

/* The value of anic_actions, indexed by tenant * ANIC_ACTIONS_MAX + i. */
struct anic_action {
	__u32 target;	  /* ANIC_TARGET; 0: unused */
	__u8 in_force;	  /* 0: given back; what it was counts for R5 and L3 */
	__u8 direction;	  /* of the last change: 1 up, 2 down */
	__u16 flips;	  /* since flips_ns */
	__u64 session;	  /* id */
	__u64 stated;	  /* the value without it, as a proposal would ask for it */
	__u64 value;	  /* ... and with it */
	__u64 changed_ns; /* CLOCK_MONOTONIC, as all times here */
	__u64 until_ns;	  /* 0: until the session ends */
	__u64 flips_ns;
	__u64 blocked_ns; /* not to be changed before: it was rolled back */
};
ANIC_ASSERT(sizeof(struct anic_action) == 64);
#define ANIC_ACTION_ROWS (ANIC_TENANTS_MAX * ANIC_ACTIONS_MAX)

/* The key of anic_escalated; the value is an enum anic_class (__u32). */
struct anic_escalation {
	__u16 tenant;
	__u16 service;
};
ANIC_ASSERT(sizeof(struct anic_escalation) == 4);

/* The value of anic_sessions. */
struct anic_session {
	__u64 id;		  /* never used again; 0: nobody's */
	struct anic_grants asked; /* of what the policy grants the agent, no more than this */
	__u64 opened_ns;
	__u64 heard_ns; /* 0: not yet */
	__u32 agent;	/* id; 0: an operator by hand, whom the policy grants all */
	__u32 rejected_in_row;
	__u64 decided[ANIC_DECIDED__MAX]; /* how often */
	__u64 answered;
	__u32 drained; /* in the call that runs */
	__u32 pending; /* 1: `rejection` is not in the chain yet */
	struct anic_record rejection;
};
ANIC_ASSERT(sizeof(struct anic_session) == 120 + 160);
#define ANIC_OPENING_NS 60000000000 /* a session that is not heard of once in this time ends */

/* --- fail-safe --- */

enum anic_failsafe {
	ANIC_FAILSAFE_NONE = 0,
	ANIC_FAILSAFE_HEARTBEAT = 1,   /* L1 */
	ANIC_FAILSAFE_REJECTIONS = 2,  /* L2 */
	ANIC_FAILSAFE_INSTABILITY = 3, /* L2: oscillation, again and again */
	ANIC_FAILSAFE_SLO = 4,	       /* L3 */
	ANIC_FAILSAFE_OPERATOR = 5,
	ANIC_FAILSAFE_REPEATED = 6, /* of the instance: tenants, again and again */
	ANIC_FAILSAFE_STUCK = 7,    /* of the instance: the guardian's lock was not given back */
	ANIC_FAILSAFE_RING = 8,	    /* L2: more was taken back in the session's ring than it holds */
	ANIC_FAILSAFE__MAX = 9,
};

/*
 * The one entry of anic_modes: words by tenant, and in the place of tenant 0 that of the instance; 0 when all
 * is well. The packet path reads them. As many as a mask of the index bounds.
 */
#define ANIC_MODE_FAILSAFE(word) ((word) & 0xff) /* enum anic_failsafe: in force */
#define ANIC_MODE_ALARM 0x100			 /* nobody has acknowledged it */

#define ANIC_MODES 128
struct anic_modes {
	__u32 words[ANIC_MODES];
};
ANIC_ASSERT(ANIC_MODES >= ANIC_TENANTS_MAX && !(ANIC_MODES & (ANIC_MODES - 1)));

/* The value of anic_dumps, by tenant; 0: of the instance. What was known when fail-safe was entered. */
struct anic_dump {
	__u64 at_ns;	/* CLOCK_MONOTONIC; 0: never */
	__u64 until_ns; /* when the cool-down ends; 0: when an operator says so */
	__u64 session;	/* id, or 0 */
	__u64 heard_ns; /* of that session */
	__u32 generation;
	__u32 rejected_in_row;
	__u8 kind;	/* enum anic_failsafe */
	__u8 invariant; /* enum anic_invariant */
	__u8 _pad[6];
	char reason[ANIC_TEXT_LEN];
	struct anic_lane lanes[ANIC_CLASS__MAX]; /* as tuned; [0]: the tenant as a whole */
	__u64 wanted_bps[ANIC_DIRECTION__MAX][ANIC_CLASS__MAX];
	__u64 samples[ANIC_CLASS__MAX];
	__u64 over_slo[ANIC_CLASS__MAX];
	struct anic_action actions[ANIC_ACTIONS_MAX];
};
ANIC_ASSERT(sizeof(struct anic_dump) == 48 + ANIC_TEXT_LEN + 5 * 48 + 4 * 48 - 48 + 64 * ANIC_ACTIONS_MAX);

/* --- the guardian's own --- */

/* How a class keeps its SLO. */
struct anic_watch {
	__u64 samples; /* counters of the lane when they were last looked at */
	__u64 over_slo;
	__u64 good_ns; /* when the SLO was last kept */
	__u32 missed;  /* in a row */
	__u32 waited;  /* intervals with too few samples */
};
ANIC_ASSERT(sizeof(struct anic_watch) == 32);

/* The value of anic_wards, by tenant. */
struct anic_ward {
	__u64 changes_due; /* R3: GCRA, ns */
	__u64 unstable_ns; /* L2, L3: since when ... */
	__u64 failed_ns;   /* since when fail-safes are counted */
	__u64 bulk_bps;	   /* L3: limit of its class bulk; 0: none */
	__u32 unstable;	   /* ... so many */
	__u32 failed;
	__u32 in_force; /* actions */
	__u32 _pad;
	struct anic_watch watches[ANIC_CLASS__MAX];
};
ANIC_ASSERT(sizeof(struct anic_ward) == 48 + 32 * ANIC_CLASS__MAX);

/* The one entry of anic_guard. */
struct anic_guard {
	__u64 lock;	   /* 1: somebody holds it */
	__u64 locked_ns;   /* since when; 0: nobody does, or has just taken it */
	__u64 changes_due; /* R3, of all tenants */
	__u64 sessions;	   /* the last id given */
	__u64 slo_ns;	   /* when SLOs were last looked at */
	__u64 missed_ns;   /* when one was last missed */
	__u64 ticks;
	__u64 ticks_locked; /* that found the lock held */
	__u64 last_tick_ns;
	__u64 escalations; /* in force */
	__u64 wanted_ns;   /* when somebody whom drains give way to last found the lock taken; else 0 */
	__u64 stuck_ns;	   /* when ANIC_FAILSAFE_STUCK was entered, until that is recorded; else 0 */
};
ANIC_ASSERT(sizeof(struct anic_guard) == 96);
#define ANIC_LOCK_RETRY_NS 100000    /* after which the tick tries again */
#define ANIC_LOCK_WANTED_NS 1000000  /* for so long drains leave the lock to who wanted it */
#define ANIC_LOCK_STUCK_NS 100000000 /* held longer: the instance goes into fail-safe */

/*
 * What an operator orders: the arguments of the guardian's programs, as many words as BPF_PROG_TEST_RUN of a
 * raw tracepoint program takes.
 */
struct anic_order {
	__u64 now_ns; /* for tests, whose programs look at it */
	__u64 wall_ns;
	__u64 session;	     /* anic_close: id; anic_note: uid of the reader */
	__u64 tenants;	     /* anic_open: of anic_grants */
	__u64 kinds_classes; /* ... kinds in bits 0 to 31, classes in bits 32 to 63 */
	__u64 paths_agent;   /* ... paths in bits 0 to 31, the agent's id in bits 32 to 63 */
	__u64 what; /* anic_failsafe: enum anic_order_kind in bits 0 to 31, tenant (0: the instance) in bits
		       32 to 63; anic_note: enum anic_record_kind and tenant; anic_commit: the generation that
		       the caller believes in force, and enum anic_uses */
	char reason[ANIC_TEXT_LEN];
};
ANIC_ASSERT(sizeof(struct anic_order) == 96);

/*
 * The arguments of a drain. All that a raw tracepoint program can have, the last one a constant: whoever has
 * the program could attach it to a tracepoint, but hardly any has so many arguments, and none has this one.
 */
struct anic_draining {
	__u64 now_ns;  /* for tests, whose program looks at it */
	__u64 observe; /* 1: write the observation, too */
	__u64 unused[9];
	__u64 word; /* ANIC_DRAIN_WORD */
};
ANIC_ASSERT(sizeof(struct anic_draining) == sizeof(struct anic_order));
#define ANIC_DRAIN_WORD 0x6e69617264636967ULL

enum anic_order_kind {
	ANIC_ORDER_NONE = 0,
	ANIC_ORDER_ENTER = 1,
	ANIC_ORDER_EXIT = 2,
	ANIC_ORDER_ACK = 3,
	ANIC_ORDER__MAX = 4,
};

#endif
