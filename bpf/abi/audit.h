/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * Audit: what was asked of the guardian, what it decided and what it did by itself, as records in a chain.
 * docs/guardian.md says which record is written when.
 *
 * Each record carries a MAC over all before it in the record and over the MAC before: SipHash-2-4 with 128
 * bits of output (J.-P. Aumasson and D. J. Bernstein, "SipHash: a fast short-input PRF", INDOCRYPT 2012) of
 * ANIC_MAC_WORDS words in little-endian order, those of the MAC before first. The MAC before the first is 0.
 */
#ifndef ANIC_ABI_AUDIT_H
#define ANIC_ABI_AUDIT_H

#include "abi/types.h"

enum anic_record_kind {
	ANIC_RECORD_NONE = 0,
	/* the chain begins; requested: the wall clock, ns since 1970; observed: the number of its first key,
	 * 0: it was drawn at random
	 */
	ANIC_RECORD_ATTACH = 1,
	/* tenant 0: a policy came in force; else: a tenancy begins, reason: its name; requested: the wall
	   clock */
	ANIC_RECORD_COMMIT = 2,
	ANIC_RECORD_OPEN =
		3, /* a session was opened; requested: the tenants, bit id - 1; service: the agent */
	ANIC_RECORD_CLOSE = 4,	  /* a session was closed, or (invariant) ended */
	ANIC_RECORD_DECISION = 5, /* of a proposal */
	ANIC_RECORD_REVERT = 6,	  /* a change was given back */
	ANIC_RECORD_FAILSAFE = 7, /* entered or left */
	ANIC_RECORD_ACK = 8,	  /* an operator has seen the alarm */
	/* the guardian set a limit of bulk: approved, bit/s, 0: none; requested: the lane that missed its
	 * SLO, where that is the tenant's own, else 0
	 */
	ANIC_RECORD_PROTECT = 9,
	ANIC_RECORD_LOST = 10, /* records that found no room: how many of each kind, see anic_lost */
	/* tenant 0: the chain ends; else: a tenancy ends; requested: the wall clock */
	ANIC_RECORD_DETACH = 11,
	/* somebody read records through agentnic; tenant: whose, 0: all; requested: the reader's uid;
	 * observed: the wall clock; reason: words. Who writes it vouches for what it says, but not for its
	 * time.
	 */
	ANIC_RECORD_READ = 12,
	ANIC_RECORD_EXPORT = 13, /* a tenant's records were exported for it; the rest as of READ */
	/* a lane missed its SLO, and what follows was done for it; observed: answers since the last look;
	 * approved: those that took longer; requested: the SLO, ns
	 */
	ANIC_RECORD_MISSED = 14,
	ANIC_RECORD__MAX = 15,
};

/*
 * An id is one tenant's after the other. A tenancy is the time in which it is one's: it begins with the
 * record COMMIT of the tenant and ends with its DETACH, and its records are numbered (tenant_seq) from 1 at
 * the COMMIT. A record of a tenant gets a number only in the tenancy in which it was written, and only once
 * the COMMIT of that is in the chain. So a record of an id that is nobody's, or of a tenancy whose COMMIT
 * found no room, has tenant_seq 0: it belongs to no tenancy, and to no tenant's export. A tenancy whose
 * COMMIT was lost begins with the next policy. Of one whose DETACH was lost nothing follows all the same.
 */

enum anic_decided {
	ANIC_DECIDED_NONE = 0,
	ANIC_DECIDED_APPROVE = 1,
	ANIC_DECIDED_REWRITE = 2, /* approved with another value or time than requested */
	ANIC_DECIDED_REJECT = 3,
	ANIC_DECIDED_FAILSAFE_ENTER = 4,
	ANIC_DECIDED_FAILSAFE_EXIT = 5,
	ANIC_DECIDED__MAX = 6,
};

/* What decided. docs/guardian.md has an example of each. */
enum anic_invariant {
	ANIC_INVARIANT_NONE = 0,
	ANIC_INVARIANT_FORM = 1, /* not an invariant: the proposal is malformed */
	ANIC_INVARIANT_C1 = 2,
	ANIC_INVARIANT_C2 = 3,
	ANIC_INVARIANT_I1 = 4,
	ANIC_INVARIANT_I2 = 5,
	ANIC_INVARIANT_I3 = 6,
	ANIC_INVARIANT_R1 = 7,
	ANIC_INVARIANT_R2 = 8,
	ANIC_INVARIANT_R3 = 9,
	ANIC_INVARIANT_R4 = 10,
	ANIC_INVARIANT_R5 = 11,
	ANIC_INVARIANT_R6 = 12,
	ANIC_INVARIANT_A1 = 13,
	ANIC_INVARIANT_A2 = 14,
	ANIC_INVARIANT_A3 = 15,
	ANIC_INVARIANT_L1 = 16,
	ANIC_INVARIANT_L2 = 17,
	ANIC_INVARIANT_L3 = 18,
	ANIC_INVARIANT_L4 = 19,
	ANIC_INVARIANT__MAX = 20,
};

#define ANIC_TEXT_LEN 40 /* of a reason; NUL ends it before, or nothing does */
#define ANIC_RECORD_DIGEST_LEN 16

struct anic_record {
	__u64 seq;	  /* from 1, without a hole; LOST stands for what has none */
	__u64 tenant_seq; /* the same of its tenancy; 0 where tenant is 0, or no tenancy is */
	__u64 time_ns; /* CLOCK_MONOTONIC, of the event: records that waited for room are not in its order */
	__u64 session; /* id, or 0 */
	__u32 generation; /* of the policy in force */
	__u32 count;	  /* how many identical ones it stands for */
	__u16 service;	  /* scope, as of struct anic_proposal */
	__u16 bucket;
	__u8 tenant;
	__u8 cls;
	__u8 kind;	/* enum anic_record_kind */
	__u8 decided;	/* enum anic_decided */
	__u8 invariant; /* enum anic_invariant */
	__u8 proposed;	/* enum anic_change, of a decision or of what is given back */
	__u8 failsafe;	/* enum anic_failsafe */
	__u8 _pad;
	__u32 rewritten; /* bit i: enum anic_invariant i changed what was requested */
	__u64 observed;	 /* the value before */
	__u64 requested;
	__u64 approved;			     /* the value after */
	__u64 until_ns;			     /* CLOCK_MONOTONIC; 0: no time limit */
	char reason[ANIC_TEXT_LEN];	     /* the words of who asked; of LOST: struct anic_lost */
	__u8 digest[ANIC_RECORD_DIGEST_LEN]; /* of the policy in force: the first bytes of its SHA-256 */
	__u64 mac[2];
};
ANIC_ASSERT(sizeof(struct anic_record) == 160);
#define ANIC_MAC_WORDS 20 /* 2 of the MAC before, 18 of the record */

struct anic_lost {
	__u32 by_kind[10]; /* enum anic_record_kind, those before LOST; [0]: all after it */
};
ANIC_ASSERT(sizeof(struct anic_lost) == ANIC_TEXT_LEN);

/*
 * A segment is this many records. At its end the key becomes SipHash-2-4-128 of ANIC_RATCHET and the number
 * of the next segment (two words) under the key before, which is then forgotten.
 */
#define ANIC_SEGMENT 4096
#define ANIC_RATCHET 0x746568637461726eULL

/*
 * Room in the ring anic_audit. What is requested may not take the last ANIC_AUDIT_RESERVE bytes, which are
 * for operators and for protection; when they are gone too, ANIC_WAITING_MAX records of those wait.
 */
#define ANIC_AUDIT_BYTES (1 << 20)
#define ANIC_AUDIT_RESERVE (ANIC_AUDIT_BYTES / 8)
#define ANIC_AUDIT_TAKES (sizeof(struct anic_record) + 8) /* in the ring, with its header */
/* Of that, this is for the last two records: what was lost, and that the chain ends. */
#define ANIC_AUDIT_LAST (2 * ANIC_AUDIT_TAKES)
#define ANIC_WAITING_MAX 256

#define ANIC_TENANT_SEQS 256 /* as many as a byte can name */

/* The one entry of anic_chain. */
struct anic_chain {
	__u64 seq;			    /* of the last record; 0: none */
	__u64 mac[2];			    /* its own */
	__u64 key[2];			    /* of the segment of the next record */
	__u64 number;			    /* of the first key; 0: it was drawn at random */
	__u64 tenant_seq[ANIC_TENANT_SEQS]; /* by tenant: of the last record of the tenancy `numbered` */
	__u32 tenancy[ANIC_TENANT_SEQS];    /* odd: one is open, whose COMMIT is in the chain or waits */
	__u32 numbered[ANIC_TENANT_SEQS];   /* the tenancy whose COMMIT came into the chain last */
	__u32 waiting_first;		    /* entry of anic_waiting */
	__u32 waiting;			    /* how many; tenant_seq of each is the tenancy that it is of */
	struct anic_lost lost;		    /* not yet said */
	__u64 lost_total;
	__u32 lost_now; /* 1: `lost` says something */
	__u32 ended;	/* 1: detached, and no record follows */
};
ANIC_ASSERT(sizeof(struct anic_chain) == 48 + 16 * ANIC_TENANT_SEQS + 8 + ANIC_TEXT_LEN + 16);

#endif
