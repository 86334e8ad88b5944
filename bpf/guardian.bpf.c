// SPDX-License-Identifier: GPL-2.0-only
/*
 * Not at any hook: what an operator orders of the guardian, one program for each order, run by who holds the
 * program. Nothing that a session says selects one of them. They are raw tracepoint programs because
 * BPF_PROG_TEST_RUN runs those with preemption disabled: see guardian.bpf.h. The arguments are a struct
 * anic_order; the answer is 0 or -errno.
 */
#include "guardian.bpf.h"

/* --- sessions --- */

struct anic_opening {
	__u64 tenants;
	__u32 slot;  /* the first that is free, plus 1 */
	__u32 taken; /* 1: another session governs one of the tenants */
};

static int anic_look_for_slot(__u32 slot, void *context)
{
	struct anic_opening *opening = context;
	const struct anic_session *session = anic_session_in(slot);

	if (!session)
		return 1;
	if (session->id && session->asked.tenants & opening->tenants)
		opening->taken = 1;
	if (!session->id && !opening->slot)
		opening->slot = slot + 1;
	return 0;
}

static __always_inline int anic_open_locked(const struct anic_order *order, struct anic_scratch *scratch)
{
	struct anic_opening opening = { .tenants = order->tenants };
	struct anic_guard *guard = anic_guard_of();
	struct anic_guarding *guarding = anic_guarding_of(scratch->generation);
	__u32 agent = order->paths_agent >> 32, slot;
	struct anic_session *session;
	struct anic_record *record;

	barrier_var(agent); /* or clang compares the whole word, and Linux 6.1 knows nothing of its half */
	if (!guard || !guarding || !scratch->generation || agent >= ANIC_AGENTS_MAX)
		return -ENOENT;
	if (agent && !guarding->agents[agent].name[0])
		return -ENOENT;
	if (!opening.tenants)
		return -EINVAL;
	if (agent) /* it governs what it was granted, whatever it asks for */
		opening.tenants &= guarding->agents[agent].grants.tenants;
	bpf_loop(ANIC_SESSIONS_MAX, anic_look_for_slot, &opening, 0);
	if (opening.taken)
		return -EEXIST;
	slot = opening.slot - 1;
	session = anic_session_in(slot);
	if (!session)
		return -ENOSPC;
	*session = (struct anic_session){};
	session->asked.tenants = opening.tenants;
	session->asked.kinds = order->kinds_classes;
	session->asked.classes = order->kinds_classes >> 32;
	session->asked.paths = order->paths_agent;
	session->agent = agent;
	session->opened_ns = scratch->now_ns;
	session->id = ++guard->sessions;
	record = anic_new_record(scratch, ANIC_RECORD_OPEN);
	record->session = session->id;
	record->service = agent;
	record->requested = opening.tenants;
	__builtin_memcpy(record->reason, order->reason, sizeof(record->reason));
	anic_keep(record);
	return slot;
}

/* Opens a session: its slot in anic_sessions. */
SEC("raw_tp")
int anic_open(struct anic_order *args)
{
	struct anic_order order = *args;
	struct anic_scratch *scratch = anic_lock(order.now_ns);
	int code;

	if (!scratch)
		return -EBUSY;
	code = anic_open_locked(&order, scratch);
	anic_unlock();
	return code;
}

struct anic_closing {
	__u64 session;
	__u32 slot; /* plus 1 */
	__u32 _pad;
};

static int anic_look_for_session(__u32 slot, void *context)
{
	struct anic_closing *closing = context;
	const struct anic_session *session = anic_session_in(slot);

	if (!session)
		return 1;
	if (session->id != closing->session)
		return 0;
	closing->slot = slot + 1;
	return 1;
}

/* Closes a session: what it changed is given back, without alarm. */
SEC("raw_tp")
int anic_close(struct anic_order *args)
{
	struct anic_closing closing = { .session = args->session };
	struct anic_scratch *scratch = anic_lock(args->now_ns);

	if (!scratch)
		return -EBUSY;
	if (closing.session)
		bpf_loop(ANIC_SESSIONS_MAX, anic_look_for_session, &closing, 0);
	if (closing.slot)
		anic_end_session(closing.slot - 1, ANIC_FAILSAFE_NONE, ANIC_INVARIANT_NONE);
	anic_unlock();
	return closing.slot ? 0 : -ESRCH;
}

/* --- fail-safe --- */

static __always_inline int anic_acknowledge(struct anic_scratch *scratch, __u32 *word, __u32 tenant)
{
	struct anic_record *record;

	if (!(*word & ANIC_MODE_ALARM))
		return -EALREADY;
	*word &= ~ANIC_MODE_ALARM;
	record = anic_new_record(scratch, ANIC_RECORD_ACK);
	record->tenant = tenant;
	record->failsafe = ANIC_MODE_FAILSAFE(*word);
	__builtin_memcpy(record->reason, scratch->reason, sizeof(record->reason));
	anic_keep(record);
	return 0;
}

static __always_inline int anic_failsafe_locked(struct anic_scratch *scratch, __u32 kind, __u32 tenant)
{
	struct anic_modes *modes = anic_modes_of();
	__u32 *word;

	if (!modes || tenant >= ANIC_TENANTS_MAX)
		return -EINVAL;
	word = &modes->words[tenant & (ANIC_MODES - 1)];
	switch (kind) {
	case ANIC_ORDER_ENTER:
		if (ANIC_MODE_FAILSAFE(*word) == ANIC_FAILSAFE_OPERATOR)
			return -EALREADY;
		anic_fail(tenant, ANIC_FAILSAFE_OPERATOR, ANIC_INVARIANT_NONE, ANIC_SESSIONS_MAX);
		return 0;
	case ANIC_ORDER_EXIT:
		if (!ANIC_MODE_FAILSAFE(*word)) /* it has ended by itself */
			return anic_acknowledge(scratch, word, tenant);
		anic_leave_failsafe(scratch, word, tenant, ANIC_INVARIANT_NONE, 1);
		return 0;
	case ANIC_ORDER_ACK:
		return anic_acknowledge(scratch, word, tenant);
	}
	return -EINVAL;
}

/* Enters or leaves fail-safe, or acknowledges the alarm. */
SEC("raw_tp")
int anic_failsafe(struct anic_order *args)
{
	struct anic_order order = *args;
	struct anic_scratch *scratch = anic_lock(order.now_ns);
	int code;

	if (!scratch)
		return -EBUSY;
	anic_settle_stuck(); /* before an order that ends it */
	__builtin_memcpy(scratch->reason, order.reason, sizeof(scratch->reason));
	code = anic_failsafe_locked(scratch, order.what, order.what >> 32);
	anic_unlock();
	return code;
}

/* --- notes --- */

static __always_inline int anic_note_locked(struct anic_scratch *scratch, const struct anic_order *order,
					    __u32 kind, __u32 tenant)
{
	const struct anic_chain *chain = anic_chain_of();
	struct anic_record *record;

	if (!chain || (tenant && !anic_in_tenancy(chain, tenant)))
		return -ENOENT;
	if (!anic_may_record(chain, 1))
		return -ENOSPC;
	record = anic_new_record(scratch, kind);
	record->tenant = tenant;
	record->observed = order->wall_ns;
	record->requested = order->session;
	__builtin_memcpy(record->reason, order->reason, sizeof(record->reason));
	anic_date(chain, record);
	return anic_chain_add(record);
}

/*
 * Somebody read records, or exported a tenant's: the record of it and nothing else, with the kernel's time.
 * Who holds this program need have no privileges: it gives way to all others, as a drain does.
 */
SEC("raw_tp")
int anic_note(struct anic_order *args)
{
	struct anic_order order = *args;
	__u32 kind = order.what, tenant = order.what >> 32;
	struct anic_scratch *scratch;
	int code;

	barrier_var(kind); /* as in anic_open_locked() */
	barrier_var(tenant);
	if ((kind != ANIC_RECORD_READ && kind != ANIC_RECORD_EXPORT) || tenant >= ANIC_TENANTS_MAX ||
	    (kind == ANIC_RECORD_EXPORT && !tenant))
		return -EINVAL;
	scratch = anic_lock_after(0);
	if (!scratch)
		return -EBUSY;
	code = anic_note_locked(scratch, &order, kind, tenant);
	anic_unlock();
	return code;
}

/* --- the end --- */

static int anic_end_each(__u32 slot, void *nothing)
{
	anic_end_session(slot, ANIC_FAILSAFE_NONE, ANIC_INVARIANT_NONE);
	return 0;
}

static int anic_lose_one(__u32 i, void *nothing)
{
	struct anic_chain *chain = anic_chain_of();
	const struct anic_record *record;
	__u32 index;

	if (!chain || !chain->waiting)
		return 1;
	index = chain->waiting_first % ANIC_WAITING_MAX;
	record = bpf_map_lookup_elem(&anic_waiting, &index);
	if (!record)
		return 1;
	anic_count_lost(chain, record);
	chain->waiting_first = (index + 1) % ANIC_WAITING_MAX;
	chain->waiting--;
	return 0;
}

static int anic_end_each_tenancy(__u32 i, void *context)
{
	struct anic_scratch *scratch = anic_scratch_of();
	struct anic_chain *chain = anic_chain_of();
	struct anic_record *record;

	if (!scratch || !chain)
		return 1;
	if (!anic_in_tenancy(chain, i + 1))
		return 0;
	record = anic_new_record(scratch, ANIC_RECORD_DETACH);
	record->requested = *(__u64 *)context;
	anic_end_tenancy(chain, record, i + 1);
	return 0;
}

/*
 * Ends all sessions, and then the chain, after what waited for room that is there by now, and all tenancies.
 * What still waits is lost, which has a place in the chain, and so has its end.
 */
SEC("raw_tp")
int anic_end(struct anic_order *args)
{
	__u64 wall_ns = args->wall_ns;
	struct anic_scratch *scratch = anic_lock(args->now_ns);
	struct anic_chain *chain = anic_chain_of();
	struct anic_record *record;

	if (!scratch)
		return -EBUSY;
	if (chain && !chain->ended) {
		bpf_loop(ANIC_SESSIONS_MAX, anic_end_each, NULL, 0);
		anic_flush(anic_new_record(scratch, ANIC_RECORD_LOST));
		bpf_loop(ANIC_TENANTS_MAX - 1, anic_end_each_tenancy, &wall_ns, 0);
		if (chain->waiting) /* there will be no room for it any more */
			bpf_loop(ANIC_WAITING_MAX, anic_lose_one, NULL, 0);
		if (chain->lost_now)
			anic_say_lost(chain, anic_new_record(scratch, ANIC_RECORD_LOST));
		record = anic_new_record(scratch, ANIC_RECORD_DETACH);
		record->invariant = ANIC_INVARIANT_A3;
		record->requested = wall_ns;
		anic_date(chain, record);
		anic_chain_add(record);
		chain->ended = 1;
	}
	anic_unlock();
	return 0;
}
