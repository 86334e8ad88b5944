/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The audit chain (shapes in abi/audit.h). Only who holds the guardian's lock writes to it. What is requested
 * asks for room before; what protects or is an operator's is never refused: it waits, and what finds no place
 * to wait either is counted, and that is recorded.
 */
#ifndef ANIC_AUDIT_BPF_H
#define ANIC_AUDIT_BPF_H

#include "lib/siphash.h"
#include "maps.bpf.h"

#include <linux/errno.h>

static __always_inline struct anic_chain *anic_chain_of(void)
{
	__u32 zero = 0;

	return bpf_map_lookup_elem(&anic_chain, &zero);
}

/* Bytes that are free in the ring. Its reader says where it is: what cannot be means that nothing is free. */
static __always_inline __u64 anic_audit_room(void)
{
	__u64 unread = bpf_ringbuf_query(&anic_audit, BPF_RB_AVAIL_DATA);

	return unread < ANIC_AUDIT_BYTES ? ANIC_AUDIT_BYTES - 1 - unread : 0;
}

/* Whether so many records of what is requested may enter the chain now. */
static __always_inline int anic_may_record(const struct anic_chain *chain, __u32 records)
{
	return !chain->waiting && !chain->ended &&
	       anic_audit_room() >= ANIC_AUDIT_RESERVE + records * ANIC_AUDIT_TAKES;
}

static __always_inline void anic_seal(const struct anic_chain *chain, struct anic_record *record)
{
	const __u64 *words = (const __u64 *)record;
	struct anic_sip sip;
	int i;

	anic_sip_begin(&sip, chain->key);
	anic_sip_add(&sip, chain->mac[0]);
	anic_sip_add(&sip, chain->mac[1]);
#pragma unroll
	for (i = 0; i < ANIC_MAC_WORDS - 2; i++)
		anic_sip_add(&sip, words[i]);
	anic_sip_end(&sip, ANIC_MAC_WORDS, record->mac);
}

/* The key of the next segment in place of this one's, which nobody can find again. */
static __always_inline void anic_ratchet(struct anic_chain *chain, __u64 segment)
{
	struct anic_sip sip;

	anic_sip_begin(&sip, chain->key);
	anic_sip_add(&sip, ANIC_RATCHET);
	anic_sip_add(&sip, segment);
	anic_sip_end(&sip, 2, chain->key);
}

/*
 * Makes the record the next of the chain. 0, or -ENOSPC. Its tenant_seq is the tenancy that it is of, see
 * anic_date(), and becomes its number there. Functions that are not static are checked by themselves: see
 * anic_look_up(). The kernel lets eight calls be nested, which is why some here are inline and some loops are
 * no bpf_loop().
 */
__weak __noinline int anic_chain_add(struct anic_record *record)
{
	struct anic_chain *chain = anic_chain_of();
	struct anic_record *place;
	__u32 tenant, tenancy;
	__u64 number = 0;

	if (!chain || !record || chain->ended)
		return -EINVAL;
	tenant = record->tenant;
	tenancy = record->tenant_seq;
	if (tenancy & 1) {
		if (record->kind == ANIC_RECORD_COMMIT)
			number = 1;
		else if (chain->numbered[tenant] == tenancy)
			number = chain->tenant_seq[tenant] + 1;
	}
	place = bpf_ringbuf_reserve(&anic_audit, sizeof(*place), 0);
	if (!place)
		return -ENOSPC;
	record->seq = chain->seq + 1;
	record->tenant_seq = number;
	anic_seal(chain, record);
	*place = *record;
	bpf_ringbuf_submit(place, BPF_RB_NO_WAKEUP);
	chain->seq = record->seq;
	if (number) {
		chain->tenant_seq[tenant] = number;
		chain->numbered[tenant] = tenancy;
	}
	chain->mac[0] = record->mac[0];
	chain->mac[1] = record->mac[1];
	if (!(record->seq % ANIC_SEGMENT))
		anic_ratchet(chain, record->seq / ANIC_SEGMENT);
	return 0;
}

/* The same of a record that is not one of the chain's last two. */
static __always_inline int anic_chain_add_before_end(struct anic_record *record)
{
	return anic_audit_room() < ANIC_AUDIT_LAST + ANIC_AUDIT_TAKES ? -ENOSPC : anic_chain_add(record);
}

static __always_inline void anic_count_lost(struct anic_chain *chain, const struct anic_record *record)
{
	__u32 kind = record->kind;

	if (kind >= sizeof(chain->lost.by_kind) / sizeof(chain->lost.by_kind[0]))
		kind = 0;
	chain->lost.by_kind[kind] += record->count;
	chain->lost_total += record->count;
	chain->lost_now = 1;
}

/* Says of which tenancy a record is: of the one that is open now, if there is one. */
static __always_inline void anic_date(const struct anic_chain *chain, struct anic_record *record)
{
	__u32 tenant = record->tenant;

	record->tenant_seq = tenant ? chain->tenancy[tenant] : 0;
}

/*
 * A record of protection or of an operator: into the chain, else it waits, else it is counted as lost, and
 * the answer is 0.
 */
static __always_inline int anic_keep(struct anic_record *record)
{
	struct anic_chain *chain = anic_chain_of();
	struct anic_record *place;
	__u32 index;

	if (!chain || chain->ended)
		return 0;
	anic_date(chain, record);
	if (!chain->waiting && !anic_chain_add_before_end(record))
		return 1;
	index = (chain->waiting_first + chain->waiting) % ANIC_WAITING_MAX;
	place = chain->waiting < ANIC_WAITING_MAX ? bpf_map_lookup_elem(&anic_waiting, &index) : NULL;
	if (place) {
		*place = *record;
		chain->waiting++;
		return 1;
	}
	anic_count_lost(chain, record);
	return 0;
}

/* Whether a tenancy is open, whose records get numbers once its COMMIT does. */
static __always_inline int anic_in_tenancy(const struct anic_chain *chain, __u32 tenant)
{
	barrier_var(tenant); /* or clang leaves the mask out, and Linux 6.1 has forgotten the bounds */
	return chain->tenancy[tenant & (ANIC_TENANT_SEQS - 1)] & 1;
}

/* A tenancy begins, with a record that has the name. If that is lost, it does not. */
static __always_inline void anic_begin_tenancy(struct anic_chain *chain, struct anic_record *record,
					       __u32 tenant)
{
	barrier_var(tenant);
	tenant &= ANIC_TENANT_SEQS - 1;
	record->tenant = tenant;
	chain->tenancy[tenant]++;
	if (!anic_keep(record))
		chain->tenancy[tenant]++;
}

/* The tenancy that is open ends, whatever becomes of the record. */
static __always_inline void anic_end_tenancy(struct anic_chain *chain, struct anic_record *record,
					     __u32 tenant)
{
	barrier_var(tenant);
	tenant &= ANIC_TENANT_SEQS - 1;
	record->tenant = tenant;
	anic_keep(record);
	chain->tenancy[tenant]++;
}

static int anic_flush_one(__u32 i, void *nothing)
{
	struct anic_chain *chain = anic_chain_of();
	struct anic_record *record;
	__u32 index;

	if (!chain || !chain->waiting)
		return 1;
	index = chain->waiting_first % ANIC_WAITING_MAX;
	record = bpf_map_lookup_elem(&anic_waiting, &index);
	if (!record || anic_chain_add_before_end(record))
		return 1;
	chain->waiting_first = (index + 1) % ANIC_WAITING_MAX;
	chain->waiting--;
	return 0;
}

/* What was lost, which has time, in this record. */
static __always_inline void anic_say_lost(struct anic_chain *chain, struct anic_record *record)
{
	record->invariant = ANIC_INVARIANT_A2;
	__builtin_memcpy(record->reason, &chain->lost, sizeof(record->reason));
	if (anic_chain_add(record))
		return;
	chain->lost = (struct anic_lost){};
	chain->lost_now = 0;
}

/* What waits, into the chain; and then what was lost, which has time, in this record. */
static __always_inline void anic_flush(struct anic_record *record)
{
	struct anic_chain *chain = anic_chain_of();

	if (!chain || chain->ended)
		return;
	if (chain->waiting)
		bpf_loop(ANIC_WAITING_MAX, anic_flush_one, NULL, 0);
	if (chain->lost_now && anic_may_record(chain, 1))
		anic_say_lost(chain, record);
}

#endif
