/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What the guardian does by itself, at each tick: sessions that are not heard of, time limits, cool-downs,
 * and SLOs. docs/guardian.md has the order and the reasons.
 */
#ifndef ANIC_WATCH_BPF_H
#define ANIC_WATCH_BPF_H

#include "guardian.bpf.h"
#include "share.bpf.h"
#include "steer.bpf.h"
#include "turn.bpf.h"

#define ANIC_WATCH_PATIENCE                                                                                  \
	10 /* intervals: with too few samples; and without a miss before bulk gets more                      \
	    */

/* --- sessions --- */

static int anic_tick_session(__u32 slot, void *nothing)
{
	const struct anic_scratch *scratch = anic_scratch_of();
	const struct anic_envelope *envelope = anic_envelope_of(scratch);
	struct anic_session *session = anic_session_in(slot);
	__u64 silent_ns;

	if (!scratch || !envelope || !session)
		return 1;
	if (!session->id)
		return 0;
	anic_flush_rejection(session);
	silent_ns = scratch->now_ns - session->heard_ns;
	if (session->heard_ns && (__s64)silent_ns > (__s64)envelope->heartbeat_ns)
		anic_end_session(slot, ANIC_FAILSAFE_HEARTBEAT, ANIC_INVARIANT_L1);
	else if (!session->heard_ns && (__s64)(scratch->now_ns - session->opened_ns) > ANIC_OPENING_NS)
		anic_end_session(slot, ANIC_FAILSAFE_NONE, ANIC_INVARIANT_L1);
	return 0;
}

/* --- time limits and cool-downs --- */

static int anic_tick_action(__u32 i, void *context)
{
	const struct anic_scratch *scratch = anic_scratch_of();
	__u32 row = *(__u32 *)context * ANIC_ACTIONS_MAX + i;
	const struct anic_action *action = anic_action_at(row);

	if (!scratch || !action)
		return 1;
	if (action->in_force && action->until_ns && (__s64)(scratch->now_ns - action->until_ns) >= 0)
		anic_give_back(row, ANIC_INVARIANT_R6);
	return 0;
}

/* Leaves fail-safe when the cool-down is over. */
static __always_inline void anic_cool_down(struct anic_scratch *scratch, __u32 *word, __u32 tenant)
{
	const struct anic_dump *dump;

	if (!ANIC_MODE_FAILSAFE(*word))
		return;
	dump = bpf_map_lookup_elem(&anic_dumps, &tenant);
	if (dump && dump->until_ns && (__s64)(scratch->now_ns - dump->until_ns) >= 0)
		anic_leave_failsafe(scratch, word, tenant, ANIC_INVARIANT_L4, 0);
}

static int anic_tick_tenant(__u32 tenant, void *nothing)
{
	struct anic_scratch *scratch = anic_scratch_of();
	const struct anic_envelope *envelope = anic_envelope_of(scratch);
	struct anic_modes *modes = anic_modes_of();
	const struct anic_ward *ward = anic_ward_of(tenant);

	if (!scratch || !envelope || !modes || !ward || tenant >= ANIC_TENANTS_MAX)
		return 1;
	if (ward->in_force)
		bpf_loop(ANIC_ACTIONS_MAX, anic_tick_action, &tenant, 0);
	anic_cool_down(scratch, &modes->words[tenant & (ANIC_MODES - 1)], tenant);
	if (ward->failed >= envelope->instabilities &&
	    !anic_has_passed(scratch->now_ns, ward->failed_ns, envelope->instability_ns))
		scratch->unstable = tenant;
	return 0;
}

/* A tenant that fails again and again says that something is wrong with more than itself. */
static __always_inline void anic_check_repeated(struct anic_scratch *scratch)
{
	struct anic_ward *ward = scratch->unstable ? anic_ward_of(scratch->unstable) : NULL;

	scratch->unstable = 0;
	if (!ward)
		return;
	ward->failed = 0;
	anic_fail(0, ANIC_FAILSAFE_REPEATED, ANIC_INVARIANT_L2, ANIC_SESSIONS_MAX);
}

/* --- SLOs --- */

/* Looks at one lane: does it keep its SLO? */
static __always_inline void anic_watch_lane(struct anic_scratch *scratch,
					    const struct anic_envelope *envelope, struct anic_watch *watch,
					    __u32 id)
{
	const struct anic_turn_lane *turn = bpf_map_lookup_elem(&anic_turns, &id);
	const struct anic_lane *lane = anic_lane_of(scratch->generation, id);
	__u64 samples, over;

	if (!turn || !lane || !lane->slo_ns)
		return;
	samples = turn->samples - watch->samples;
	over = turn->over_slo - watch->over_slo;
	if (samples < envelope->slo_samples && ++watch->waited < ANIC_WATCH_PATIENCE)
		return;
	watch->samples += samples;
	watch->over_slo += over;
	watch->waited = 0;
	if (samples < envelope->slo_samples)
		return;
	if (over * 100 <= samples * envelope->slo_percent) {
		watch->good_ns = scratch->now_ns;
		watch->missed = 0;
		return;
	}
	watch->missed++;
	if (!scratch->missed || watch->good_ns < scratch->since_ns)
		scratch->since_ns = watch->good_ns;
	if (!scratch->missed) {
		scratch->missed_lane = id;
		scratch->missed_samples = samples;
		scratch->missed_over = over;
		scratch->missed_slo_ns = lane->slo_ns;
	}
	scratch->missed++;
	if (watch->missed > 1)
		scratch->again++;
}

static int anic_watch_tenant(__u32 i, void *nothing)
{
	struct anic_scratch *scratch = anic_scratch_of();
	const struct anic_envelope *envelope = anic_envelope_of(scratch);
	__u32 tenant = i + 1, cls;
	struct anic_ward *ward = anic_ward_of(tenant);

	if (!scratch || !envelope || !ward)
		return 1;
	for (cls = ANIC_CLASS_DEFAULT; cls < ANIC_CLASS__MAX; cls++)
		anic_watch_lane(scratch, envelope, &ward->watches[cls], ANIC_LANE(tenant, cls));
	return 0;
}

static __always_inline __u64 anic_most_bulk(const struct anic_scratch *scratch, __u32 tenant,
					    const struct anic_lane *bulk)
{
	return bulk->ceiling_bps ? bulk->ceiling_bps : anic_stated_ceiling(scratch->generation, tenant);
}

/* What something is about to be done for, once a look. */
__weak __noinline int anic_record_missed(void)
{
	struct anic_scratch *scratch = anic_scratch_of();
	struct anic_record *record;

	if (!scratch || scratch->missed_said)
		return 0;
	scratch->missed_said = 1;
	record = anic_new_record(scratch, ANIC_RECORD_MISSED);
	record->tenant = ANIC_LANE_TENANT(scratch->missed_lane);
	record->cls = scratch->missed_lane - ANIC_LANE(record->tenant, 0);
	record->invariant = ANIC_INVARIANT_L3;
	record->observed = scratch->missed_samples;
	record->approved = scratch->missed_over;
	record->requested = scratch->missed_slo_ns;
	anic_keep(record);
	return 0;
}

/* Halves what bulk of a tenant may have, or what it asks for, if that is less. */
static int anic_lower_bulk(__u32 tenant, void *nothing)
{
	__u32 id = ANIC_LANE(tenant, ANIC_CLASS_BULK);
	struct anic_scratch *scratch = anic_scratch_of();
	const struct anic_bucket *in = anic_bucket_of(ANIC_DIRECTION_IN, id);
	const struct anic_bucket *out = anic_bucket_of(ANIC_DIRECTION_OUT, id);
	struct anic_ward *ward = anic_ward_of(tenant);
	const struct anic_lane *bulk, *whole;
	__u64 had, bps;

	if (!scratch || !ward || !in || !out)
		return 1;
	bulk = anic_lane_of(scratch->generation, id);
	whole = anic_lane_of(scratch->generation, ANIC_LANE(tenant, ANIC_CLASS_NONE));
	if (!bulk || !whole || !whole->weight) /* the id is nobody's; what stands there is of who had it */
		return 0;
	/* 0 if no rate of the link is stated, or nothing is asked for */
	had = anic_min(ward->bulk_bps ? ward->bulk_bps : anic_most_bulk(scratch, tenant, bulk),
		       anic_max(in->wanted_bps, out->wanted_bps));
	bps = anic_max(had / 2, anic_least_bulk(scratch->generation, tenant, bulk));
	if (bps >= had)
		return 0;
	anic_record_missed();
	anic_limit_bulk(tenant, bps, scratch->missed_lane);
	scratch->lowered++;
	return 0;
}

/* Gives bulk an eighth more, until it has all that it may have. */
static int anic_ease_bulk(__u32 tenant, void *nothing)
{
	struct anic_scratch *scratch = anic_scratch_of();
	struct anic_ward *ward = anic_ward_of(tenant);
	const struct anic_lane *bulk;
	__u64 bps;

	if (!scratch || !ward)
		return 1;
	bulk = anic_lane_of(scratch->generation, ANIC_LANE(tenant, ANIC_CLASS_BULK));
	if (!ward->bulk_bps || !bulk)
		return 0;
	bps = ward->bulk_bps + anic_max(ward->bulk_bps / 8, ANIC_RATE_MIN_BPS);
	anic_limit_bulk(tenant, bps >= anic_most_bulk(scratch, tenant, bulk) ? 0 : bps, 0);
	return 0;
}

static int anic_find_latest(__u32 row, void *nothing)
{
	struct anic_scratch *scratch = anic_scratch_of();
	const struct anic_action *action = anic_action_at(row);

	if (!scratch || !action)
		return 1;
	if (action->in_force && (__s64)(action->changed_ns - scratch->since_ns) > 0 &&
	    (!scratch->latest || (__s64)(action->changed_ns - scratch->latest_ns) > 0)) {
		scratch->latest = row + 1;
		scratch->latest_ns = action->changed_ns;
	}
	return 0;
}

/* Gives back the latest change since SLOs were kept. */
__weak __noinline int anic_roll_back(void)
{
	struct anic_scratch *scratch = anic_scratch_of();
	const struct anic_envelope *envelope = anic_envelope_of(scratch);
	struct anic_action *action;
	__u32 row;

	if (!scratch || !envelope)
		return 0;
	scratch->latest = 0;
	bpf_loop(ANIC_ACTION_ROWS, anic_find_latest, NULL, 0);
	row = scratch->latest - 1;
	action = scratch->latest ? anic_action_at(row) : NULL;
	if (!action)
		return 0;
	anic_record_missed();
	anic_give_back(row, ANIC_INVARIANT_L3);
	action->blocked_ns = scratch->now_ns + envelope->cool_down_ns;
	if (anic_count_instability(row / ANIC_ACTIONS_MAX, envelope, scratch->now_ns))
		scratch->unstable = row / ANIC_ACTIONS_MAX;
	return 0;
}

/* One look at all SLOs, and what follows. */
__weak __noinline int anic_watch_slos(void)
{
	struct anic_scratch *scratch = anic_scratch_of();
	const struct anic_envelope *envelope = anic_envelope_of(scratch);
	struct anic_guard *guard = anic_guard_of();

	if (!scratch || !envelope || !guard)
		return 0;
	scratch->missed = 0;
	scratch->missed_said = 0;
	scratch->again = 0;
	scratch->lowered = 0;
	bpf_loop(ANIC_TENANTS_MAX - 1, anic_watch_tenant, NULL, 0);
	if (scratch->missed) {
		guard->missed_ns = scratch->now_ns;
		if (envelope->protects)
			bpf_loop(ANIC_TENANTS_MAX, anic_lower_bulk, NULL, 0);
		if (!scratch->lowered || scratch->again)
			anic_roll_back();
	} else if (anic_has_passed(scratch->now_ns, guard->missed_ns,
				   ANIC_WATCH_PATIENCE * envelope->slo_interval_ns)) {
		bpf_loop(ANIC_TENANTS_MAX, anic_ease_bulk, NULL, 0);
	}
	return 0;
}

/* --- the tick --- */

/*
 * A lock that is not given back: nobody can keep the packet path from what needs no lock. The rest has to
 * wait for it: see anic_settle_stuck().
 */
static __always_inline void anic_check_lock(struct anic_guard *guard, __u64 now_ns)
{
	struct anic_modes *modes = anic_modes_of();
	__u64 locked_ns = ANIC_READ_ONCE(guard->locked_ns);

	if (!modes || !locked_ns || (__s64)(now_ns - locked_ns) <= ANIC_LOCK_STUCK_NS ||
	    ANIC_MODE_FAILSAFE(modes->words[0]))
		return;
	/* before the mode: whoever has the lock again, and sees that, finds what is still to be done */
	*(volatile __u64 *)&guard->stuck_ns = now_ns;
	__sync_lock_test_and_set(&modes->words[0], ANIC_FAILSAFE_STUCK | ANIC_MODE_ALARM);
}

/* 0, or -EBUSY: somebody holds the lock. `now_ns`: of tests; 0: when the lock is taken. */
__weak __noinline int anic_guard_tick(__u64 now_ns)
{
	struct anic_guard *guard = anic_guard_of();
	const struct anic_envelope *envelope;
	struct anic_scratch *scratch;

	if (!guard)
		return 0;
	scratch = anic_lock(now_ns);
	if (!scratch) {
		guard->ticks_locked++;
		anic_check_lock(guard, now_ns ? now_ns : bpf_ktime_get_ns());
		return -EBUSY;
	}
	now_ns = scratch->now_ns;
	envelope = anic_envelope_of(scratch);
	if (scratch->generation && envelope) {
		anic_flush(anic_new_record(scratch, ANIC_RECORD_LOST));
		anic_settle_stuck();
		bpf_loop(ANIC_SESSIONS_MAX, anic_tick_session, NULL, 0);
		bpf_loop(ANIC_TENANTS_MAX, anic_tick_tenant, NULL, 0);
		anic_check_repeated(scratch);
		if (anic_has_passed(now_ns, guard->slo_ns, envelope->slo_interval_ns)) {
			guard->slo_ns = now_ns;
			anic_watch_slos();
			if (scratch->unstable)
				anic_fail(scratch->unstable, ANIC_FAILSAFE_SLO, ANIC_INVARIANT_L3,
					  ANIC_SESSIONS_MAX);
		}
	}
	guard->ticks++;
	guard->last_tick_ns = now_ns;
	anic_unlock();
	return 0;
}

/* All that a tick does. 0, or -EBUSY: the guardian's part is still to be done. `now_ns`: of tests; 0: now. */
static __always_inline int anic_tick_at(__u64 now_ns)
{
	struct anic_state *state = anic_state_of();
	int code;

	if (!state || !(__u32)state->word)
		return 0;
	code = anic_guard_tick(now_ns);
	if (!now_ns)
		now_ns = bpf_ktime_get_ns();
	state->tick_ns += anic_min(now_ns - state->ticked_ns, ANIC_OWNER_STEP_NS);
	state->ticked_ns = now_ns;
	anic_share_out(ANIC_DIRECTION_IN, (__u32)state->word, now_ns);
	anic_share_out(ANIC_DIRECTION_OUT, (__u32)state->word, now_ns);
	anic_turn_tick((__u32)state->word, now_ns);
	if (state->word >> 32 & ANIC_USES_CPUS)
		anic_settle_cpus();
	return code;
}

#endif
