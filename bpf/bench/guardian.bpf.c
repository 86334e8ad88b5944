// SPDX-License-Identifier: GPL-2.0-only
/*
 * Not at any hook: run by BPF_PROG_TEST_RUN for `make bench`, over the maps of a loaded instance. What an
 * order costs that does nothing, a record of the audit, and a tick. The answer of the last two is the time
 * that it took, in ns.
 */
#define ANIC_TIME_GIVEN(now_ns) (now_ns)
#include "../watch.bpf.h"

#define ANIC_SECOND_NS 1000000000ULL

/* What it costs to run any program with an order. */
SEC("raw_tp")
int bench_nothing(struct anic_order *order)
{
	return order->what != 0;
}

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

static int bench_fill_session(__u32 slot, void *context)
{
	struct anic_session *session = anic_session_in(slot);

	if (!session)
		return 1;
	session->id = slot + 1;
	session->asked.tenants = 0xfULL << (slot * 4 & 63);
	session->heard_ns = *(__u64 *)context;
	return 0;
}

static int bench_fill_row(__u32 row, void *context)
{
	struct anic_action *action = anic_action_at(row + ANIC_ACTIONS_MAX); /* tenant 0 has no changes */
	struct anic_ward *ward = anic_ward_of(row / ANIC_ACTIONS_MAX + 1);
	__u64 now_ns = *(__u64 *)context;

	if (!action || !ward)
		return 1;
	ward->in_force = ANIC_ACTIONS_MAX;
	action->target = ANIC_TARGET(ANIC_CHANGE_QUEUE_WEIGHT_ADJUST, ANIC_CLASS_RPC, 0);
	action->in_force = 1;
	action->session = 1;
	action->changed_ns = now_ns;
	action->until_ns = now_ns + ANIC_SECOND_NS;
	return 0;
}

static int bench_fill_lane(__u32 lane, void *nothing)
{
	struct anic_turn_lane *turn = bpf_map_lookup_elem(&anic_turns, &lane);
	struct anic_bucket *in = anic_bucket_of(ANIC_DIRECTION_IN, lane);
	struct anic_bucket *out = anic_bucket_of(ANIC_DIRECTION_OUT, lane);

	if (!turn || !in || !out)
		return 1;
	turn->samples += 100;
	in->asked += 100000;
	out->asked += 100000;
	return 0;
}

/* All that a tick may have to look at: every session, every change, answers and bytes of every lane. */
SEC("raw_tp")
int bench_fill(struct anic_order *order)
{
	__u64 now_ns = order->now_ns;

	bpf_loop(ANIC_SESSIONS_MAX, bench_fill_session, &now_ns, 0);
	bpf_loop(ANIC_ACTION_ROWS - ANIC_ACTIONS_MAX, bench_fill_row, &now_ns, 0);
	bpf_loop(ANIC_LANES_MAX, bench_fill_lane, NULL, 0);
	return 0;
}

/* At the time of the order, so that ticks in a row are as far apart as they are else. */
SEC("raw_tp")
int bench_tick(struct anic_order *order)
{
	__u64 now_ns = order->now_ns, begun = bpf_ktime_get_ns();

	if (anic_tick_at(now_ns))
		return -EBUSY;
	return (int)(bpf_ktime_get_ns() - begun);
}
