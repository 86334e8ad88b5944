// SPDX-License-Identifier: GPL-2.0-only
/*
 * Not at any hook: run by BPF_PROG_TEST_RUN for `make bench`, over the maps of a loaded instance. What a
 * record of the audit costs, and a tick. The answer is the time that it took, in ns.
 */
#define ANIC_TIME_GIVEN(now_ns) (now_ns)
#include "../watch.bpf.h"

static int bench_record(__u32 i, void *nothing)
{
	struct anic_scratch *scratch = anic_scratch_of();
	const struct anic_chain *chain = anic_chain_of();

	if (!scratch || !chain)
		return 1;
	scratch->record.tenant = 1;
	scratch->record.kind = ANIC_RECORD_DECISION;
	scratch->record.count = 1;
	anic_date(chain, &scratch->record);
	return anic_chain_add(&scratch->record) != 0;
}

/* So many records as the order's `what` says; -EBUSY, or -ENOSPC if the ring did not take them. */
SEC("raw_tp")
int bench_chain(struct anic_order *order)
{
	__u32 records = order->what;
	__u64 begun;
	int done;

	if (!anic_lock(bpf_ktime_get_ns()))
		return -EBUSY;
	begun = bpf_ktime_get_ns();
	done = bpf_loop(records, bench_record, NULL, 0);
	begun = bpf_ktime_get_ns() - begun;
	anic_unlock();
	return done == records ? (int)begun : -ENOSPC;
}

SEC("raw_tp")
int bench_tick(struct anic_order *order)
{
	__u64 begun = bpf_ktime_get_ns();

	if (anic_tick_at(begun))
		return -EBUSY;
	return (int)(bpf_ktime_get_ns() - begun);
}
