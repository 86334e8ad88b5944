/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Quotas: buckets that all CPUs take from, at the rates that share.bpf.h gives. A CPU takes more than one
 * packet needs and keeps the rest as its lease, beside its counters: a packet that finds enough there needs
 * no clock and no atomic. Only who finds too little comes here.
 */
#ifndef ANIC_QUOTA_BPF_H
#define ANIC_QUOTA_BPF_H

#include "share.bpf.h"

/* The clock of the decision code; tests have one of their own. Nanoseconds. */
#ifndef ANIC_NOW
#define ANIC_NOW() bpf_ktime_get_ns()
#define ANIC_NOW_COARSE() bpf_ktime_get_coarse_ns()
#else
#define ANIC_NOW_COARSE() ANIC_NOW()
#endif

#define ANIC_REFUSED (~0ULL)
#define ANIC_TAKE_TRIES 8

static __always_inline __u64 anic_price(__u64 bytes, __u64 cost)
{
	return bytes * cost >> ANIC_COST_LOG2;
}

/*
 * Takes `bytes`: the time at which they are due, or ANIC_REFUSED if that is further ahead than `patience_ns`.
 * What a bucket holds is how far `paid` may be behind: `hold_ns`, or ANIC_BURST_BYTES if that is more.
 */
static __always_inline __u64 anic_take(struct anic_bucket *bucket, __u64 cost, __u64 bytes, __u64 now_ns,
				       __u64 hold_ns, __u64 patience_ns)
{
	__u64 full = ANIC_TICKS(now_ns) - anic_max(ANIC_TICKS(hold_ns), anic_price(ANIC_BURST_BYTES, cost));
	__u64 price = anic_price(bytes, cost), now = ANIC_TICKS(now_ns), paid, due;
	int i;

	for (i = 0; i < ANIC_TAKE_TRIES; i++) {
		paid = ANIC_READ_ONCE(bucket->paid);
		due = paid;
		if ((__s64)(paid - full) < 0 || (__s64)(paid - now) > (__s64)ANIC_TICKS(ANIC_DEBT_NS))
			due = full; /* idle for long, or the clock went back */
		if ((__s64)(due - now) > (__s64)ANIC_TICKS(patience_ns))
			return ANIC_REFUSED;
		if (__sync_val_compare_and_swap(&bucket->paid, paid, due + price) == paid)
			return (__s64)(due - now) > 0 ? due >> ANIC_TICK_LOG2 : now_ns;
	}
	/* so many CPUs at once that others were always first: it is charged all the same */
	__sync_fetch_and_add(&bucket->paid, price);
	return now_ns;
}

/* Of a lane's bucket, and of its tenant's, which keeps the tenant's ceiling. */
static __always_inline __u64 anic_take_both(struct anic_bucket *lane, __u32 index, __u64 bytes, __u64 now_ns,
					    __u64 hold_ns, __u64 patience_ns)
{
	__u32 of_tenant = index - index % ANIC_CLASS__MAX;
	struct anic_bucket *tenant = bpf_map_lookup_elem(&anic_buckets, &of_tenant);
	__u64 cost = ANIC_READ_ONCE(lane->cost), due, due_of_tenant;

	due = anic_take(lane, cost, bytes, now_ns, hold_ns, patience_ns);
	if (due != ANIC_REFUSED && tenant && tenant->cost) {
		due_of_tenant = anic_take(tenant, tenant->cost, bytes, now_ns, hold_ns, patience_ns);
		if (due_of_tenant == ANIC_REFUSED)
			__sync_fetch_and_sub(&lane->paid, anic_price(bytes, cost));
		due = anic_max(due, due_of_tenant);
	}
	return due;
}

/*
 * What the lease of a CPU is after a packet of so many wire bytes, or ANIC_REFUSED. `index`: of the bucket.
 * `policies`: of the packet; what was leased under another policy is void.
 */
__weak __noinline __u64 anic_lease(__u32 index, __u32 policies, __u64 lease, __u64 wire)
{
	__u64 left = lease >> 32 == policies ? (__u32)lease : 0, bytes;
	struct anic_bucket *bucket = bpf_map_lookup_elem(&anic_buckets, &index);

	if (!bucket || !bucket->cost)
		return ANIC_LEASE(policies, ANIC_LEASE_BYTES_FREE);
	bytes = wire - anic_min(wire, left) + bucket->lease_bytes;
	if (anic_take_both(bucket, index, bytes, ANIC_NOW(), ANIC_BURST_NS, 0) == ANIC_REFUSED) {
		__sync_fetch_and_add(&bucket->asked, wire);
		return ANIC_REFUSED;
	}
	__sync_fetch_and_add(&bucket->asked, bytes);
	return ANIC_LEASE(policies, left + bytes - wire);
}

/* When a packet of so many wire bytes may leave, 0: at once, or ANIC_REFUSED. */
__weak __noinline __u64 anic_pace(__u32 index, __u64 wire)
{
	struct anic_bucket *bucket = bpf_map_lookup_elem(&anic_buckets, &index);

	if (!bucket || !bucket->cost)
		return 0;
	__sync_fetch_and_add(&bucket->asked, wire);
	return anic_take_both(bucket, index, wire, ANIC_NOW(), 0, ANIC_HORIZON_NS);
}

#endif
