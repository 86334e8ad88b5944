/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What a session's drain, the operator's programs and the tick of the guardian have in common: the lock, what
 * changes stand in lanes, giving them back, fail-safe, and the end of a session. docs/guardian.md says what
 * it means.
 *
 * The lock is a word that nobody waits for. Those who take it cannot be descheduled while they hold it:
 * programs of type raw tracepoint are run with preemption disabled, and a timer's callback in a softirq.
 */
#ifndef ANIC_GUARDIAN_BPF_H
#define ANIC_GUARDIAN_BPF_H

#include "audit.bpf.h"
#include "quota.bpf.h"

#define ANIC_CPU_STAYS 0xffffffffU /* the value of a bucket that goes to no CPU */

static __always_inline struct anic_guard *anic_guard_of(void)
{
	__u32 zero = 0;

	return bpf_map_lookup_elem(&anic_guard, &zero);
}

static __always_inline struct anic_scratch *anic_scratch_of(void)
{
	__u32 zero = 0;

	return bpf_map_lookup_elem(&anic_scratch, &zero);
}

static __always_inline struct anic_state *anic_state_of(void)
{
	__u32 zero = 0;

	return bpf_map_lookup_elem(&anic_state, &zero);
}

static __always_inline struct anic_modes *anic_modes_of(void)
{
	__u32 zero = 0;

	return bpf_map_lookup_elem(&anic_modes, &zero);
}

static __always_inline struct anic_ward *anic_ward_of(__u32 tenant)
{
	return bpf_map_lookup_elem(&anic_wards, &tenant);
}

static __always_inline struct anic_action *anic_action_at(__u32 row)
{
	return bpf_map_lookup_elem(&anic_actions, &row);
}

static __always_inline struct anic_session *anic_session_in(__u32 slot)
{
	return bpf_map_lookup_elem(&anic_sessions, &slot);
}

static __always_inline struct anic_guarding *anic_guarding_of(__u32 generation)
{
	__u32 slot = generation % ANIC_SLOTS;

	return bpf_map_lookup_elem(&anic_guarding, &slot);
}

/* Of the policy in force. */
static __always_inline const struct anic_envelope *anic_envelope_of(const struct anic_scratch *scratch)
{
	const struct anic_guarding *guarding = scratch ? anic_guarding_of(scratch->generation) : NULL;

	return guarding ? &guarding->envelope : NULL;
}

/* --- time --- */

/* What is done is done when the lock is taken, whatever time the caller says it is; tests have their own. */
#ifndef ANIC_TIME_GIVEN
#define ANIC_TIME_GIVEN(now_ns) 0ULL
#endif

/* Whether so long has passed; not, if `since_ns` is still to come. */
static __always_inline int anic_has_passed(__u64 now_ns, __u64 since_ns, __u64 window_ns)
{
	return (__s64)(now_ns - since_ns) >= (__s64)window_ns;
}

/* --- the lock --- */

/*
 * NULL if somebody else holds it. `now_ns`: 0 is the time at which it is taken, so that it is not before that
 * of who had it last.
 */
static __always_inline struct anic_scratch *anic_try_lock(__u64 now_ns)
{
	struct anic_guard *guard = anic_guard_of();
	struct anic_scratch *scratch = anic_scratch_of();
	const struct anic_state *state = anic_state_of();

	if (!guard || !scratch || !state || __sync_val_compare_and_swap(&guard->lock, 0, 1))
		return NULL;
	now_ns = ANIC_TIME_GIVEN(now_ns);
	if (!now_ns)
		now_ns = bpf_ktime_get_ns();
	guard->locked_ns = now_ns;
	scratch->now_ns = now_ns;
	scratch->generation = (__u32)state->word;
	scratch->over = 0;
	scratch->unstable = 0;
	__builtin_memset(scratch->reason, 0, sizeof(scratch->reason));
	return scratch;
}

/* For the tick and for operators, whom drains give way to. */
static __always_inline struct anic_scratch *anic_lock(__u64 now_ns)
{
	struct anic_scratch *scratch = anic_try_lock(now_ns);
	struct anic_guard *guard = anic_guard_of();

	now_ns = ANIC_TIME_GIVEN(now_ns);
	if (guard)
		guard->wanted_ns = scratch ? 0 : now_ns ? now_ns : bpf_ktime_get_ns();
	return scratch;
}

/* For a drain: not while others wait, who may come a moment later. */
static __always_inline struct anic_scratch *anic_lock_after(__u64 now_ns)
{
	const struct anic_guard *guard = anic_guard_of();
	__u64 wanted_ns = guard ? ANIC_READ_ONCE(guard->wanted_ns) : 0;

	now_ns = ANIC_TIME_GIVEN(now_ns);
	if (wanted_ns && (__s64)((now_ns ? now_ns : bpf_ktime_get_ns()) - wanted_ns) < ANIC_LOCK_WANTED_NS)
		return NULL;
	return anic_try_lock(now_ns);
}

static __always_inline void anic_unlock(void)
{
	struct anic_guard *guard = anic_guard_of();

	if (!guard)
		return;
	guard->locked_ns = 0;
	__sync_lock_test_and_set(&guard->lock, 0);
}

/* --- records --- */

/* An empty record of this kind, at the time of who holds the lock. */
static __always_inline struct anic_record *anic_new_record(struct anic_scratch *scratch, __u32 kind)
{
	struct anic_record *record = &scratch->record;
	__u32 slot = scratch->generation % ANIC_SLOTS;
	const struct anic_policy *policy = bpf_map_lookup_elem(&anic_policies, &slot);

	*record = (struct anic_record){};
	record->kind = kind;
	record->time_ns = scratch->now_ns;
	record->generation = scratch->generation;
	record->count = 1;
	if (policy)
		__builtin_memcpy(record->digest, policy->digest, sizeof(record->digest));
	return record;
}

/* The scope of a record that is about a target. */
static __always_inline void anic_record_target(struct anic_record *record, __u32 tenant, __u32 target)
{
	record->tenant = tenant;
	record->proposed = ANIC_TARGET_KIND(target);
	record->cls = ANIC_TARGET_CLASS(target);
	if (record->proposed == ANIC_CHANGE_FLOW_CLASS_ESCALATE)
		record->service = ANIC_TARGET_PART(target);
	else
		record->bucket = ANIC_TARGET_PART(target);
}

/* --- what changes stand in --- */

static __always_inline const struct anic_service *anic_service_at(__u32 generation, __u32 service)
{
	__u32 index = generation % ANIC_SLOTS * ANIC_SERVICES_MAX + service;

	return service < ANIC_SERVICES_MAX ? bpf_map_lookup_elem(&anic_services, &index) : NULL;
}

static __always_inline struct anic_lane *anic_target_lane(__u32 generation, __u32 profile, __u32 tenant,
							  __u32 target)
{
	return anic_lane_in(generation, profile, ANIC_LANE(tenant, ANIC_TARGET_CLASS(target)));
}

/* What stands there, as it stands there. `stated`: 1: what the policy says. */
__weak __noinline __u64 anic_raw(__u32 generation, __u32 tenant, __u32 target, __u32 stated)
{
	const struct anic_lane *lane = anic_target_lane(
		generation, stated ? ANIC_PROFILE_POLICY : ANIC_PROFILE_TUNED, tenant, target);
	__u32 id = ANIC_LANE(tenant, ANIC_TARGET_CLASS(target)), part = ANIC_TARGET_PART(target);
	struct anic_escalation key = { .tenant = tenant, .service = part };
	const struct anic_steering *steering;
	const __u32 *cls;

	switch (ANIC_TARGET_KIND(target)) {
	case ANIC_CHANGE_QUEUE_WEIGHT_ADJUST:
		return lane ? lane->weight : 0;
	case ANIC_CHANGE_BULK_PATH_THROTTLE:
	case ANIC_CHANGE_QUOTA_BORROW:
		return lane ? lane->ceiling_bps : 0;
	case ANIC_CHANGE_PATH_SWITCH:
		return lane ? lane->path : 0;
	case ANIC_CHANGE_FLOW_CLASS_ESCALATE:
		cls = stated ? NULL : bpf_map_lookup_elem(&anic_escalated, &key);
		return cls ? *cls : 0;
	case ANIC_CHANGE_QUEUE_REBALANCE:
		steering = bpf_map_lookup_elem(&anic_steering, &id);
		if (!steering || part >= ANIC_STEER_BUCKETS)
			return 0;
		return stated ? steering->stated.cpu[part] : steering->to.cpu[part];
	}
	return 0;
}

/* A ceiling that is not stated is the tenant's, else the link's. */
static __always_inline __u64 anic_stated_ceiling(__u32 generation, __u32 tenant)
{
	const struct anic_lane *whole =
		anic_lane_in(generation, ANIC_PROFILE_POLICY, ANIC_LANE(tenant, ANIC_CLASS_NONE));
	const struct anic_lane *link =
		anic_lane_in(generation, ANIC_PROFILE_POLICY, ANIC_LANE(0, ANIC_CLASS_NONE));

	if (!whole || !link)
		return 0;
	return whole->ceiling_bps ? whole->ceiling_bps : link->ceiling_bps;
}

/*
 * What bulk of a tenant is never held under, so that the tenant has its minimum if bulk is all that it sends.
 * `bulk`: its lane, whose ceiling may be less.
 */
static __always_inline __u64 anic_least_bulk(__u32 generation, __u32 tenant, const struct anic_lane *bulk)
{
	const struct anic_lane *whole =
		anic_lane_in(generation, ANIC_PROFILE_POLICY, ANIC_LANE(tenant, ANIC_CLASS_NONE));
	__u64 least = anic_max(whole ? whole->rate_bps : 0, ANIC_RATE_MIN_BPS);

	return bulk->ceiling_bps ? anic_min(least, bulk->ceiling_bps) : least;
}

/* ... and as the value that a proposal would ask for. */
__weak __noinline __u64 anic_value(__u32 generation, __u32 tenant, __u32 target, __u64 raw)
{
	const struct anic_service *service;

	switch (ANIC_TARGET_KIND(target)) {
	case ANIC_CHANGE_BULK_PATH_THROTTLE:
		return raw ? raw : anic_stated_ceiling(generation, tenant);
	case ANIC_CHANGE_QUOTA_BORROW:
		return raw - anic_raw(generation, tenant, target, 1);
	case ANIC_CHANGE_QUEUE_REBALANCE:
		return raw ? raw - 1 : ANIC_CPU_STAYS;
	case ANIC_CHANGE_FLOW_CLASS_ESCALATE:
		service = anic_service_at(generation, ANIC_TARGET_PART(target));
		return raw ? raw : service ? service->cls : 0;
	}
	return raw;
}

/* The other way round. `stated`: anic_raw() of what the policy says. */
static __always_inline __u64 anic_raw_of(__u32 generation, __u32 tenant, __u32 target, __u64 stated,
					 __u64 value)
{
	const struct anic_service *service;

	switch (ANIC_TARGET_KIND(target)) {
	case ANIC_CHANGE_BULK_PATH_THROTTLE:
		return value == anic_value(generation, tenant, target, stated) ? stated : value;
	case ANIC_CHANGE_QUOTA_BORROW:
		return stated + value;
	case ANIC_CHANGE_QUEUE_REBALANCE:
		return value + 1;
	case ANIC_CHANGE_FLOW_CLASS_ESCALATE:
		service = anic_service_at(generation, ANIC_TARGET_PART(target));
		return service && service->cls == value ? 0 : value;
	}
	return value;
}

/* A packet that meets the next word finds nothing in the flow cache. The slot stays the same. */
static __always_inline void anic_void_flows(struct anic_guard *guard)
{
	struct anic_state *state = anic_state_of();
	__u64 word;
	__u32 uses, generation;

	if (!state)
		return;
	word = state->word;
	uses = (__u32)(word >> 32) & ~ANIC_USES_ESCALATIONS; /* and the policies, which stay */
	generation = (__u32)word + ANIC_SLOTS;
	if (!generation)
		generation = ANIC_SLOTS; /* 0 would say that there is no policy */
	if (guard->escalations)
		uses |= ANIC_USES_ESCALATIONS;
	__sync_lock_test_and_set(&state->word, (__u64)uses << 32 | generation);
}

static __always_inline void anic_escalate(__u32 tenant, __u32 service, __u32 cls)
{
	struct anic_escalation key = { .tenant = tenant, .service = service };
	struct anic_guard *guard = anic_guard_of();
	int there = bpf_map_lookup_elem(&anic_escalated, &key) != NULL;

	if (!guard)
		return;
	if (!cls && there && !bpf_map_delete_elem(&anic_escalated, &key))
		guard->escalations--;
	else if (cls && !bpf_map_update_elem(&anic_escalated, &key, &cls, BPF_ANY) && !there)
		guard->escalations++;
	anic_void_flows(guard);
}

/* Puts a value there, as it stands there. */
__weak __noinline int anic_put(__u32 generation, __u32 tenant, __u32 target, __u64 raw)
{
	struct anic_lane *lane = anic_target_lane(generation, ANIC_PROFILE_TUNED, tenant, target);
	__u32 id = ANIC_LANE(tenant, ANIC_TARGET_CLASS(target)), part = ANIC_TARGET_PART(target);
	struct anic_steering *steering;

	if (!lane)
		return 0;
	switch (ANIC_TARGET_KIND(target)) {
	case ANIC_CHANGE_QUEUE_WEIGHT_ADJUST:
		lane->weight = raw;
		break;
	case ANIC_CHANGE_BULK_PATH_THROTTLE:
	case ANIC_CHANGE_QUOTA_BORROW:
		lane->ceiling_bps = raw;
		break;
	case ANIC_CHANGE_PATH_SWITCH:
		lane->path = raw;
		break;
	case ANIC_CHANGE_FLOW_CLASS_ESCALATE:
		anic_escalate(tenant, part, raw);
		break;
	case ANIC_CHANGE_QUEUE_REBALANCE:
		steering = bpf_map_lookup_elem(&anic_steering, &id);
		if (steering && part < ANIC_STEER_BUCKETS)
			steering->to.cpu[part] = raw;
		break;
	}
	return 0;
}

/* Gives a change back, with a record that names what made it so. */
__weak __noinline int anic_give_back(__u32 row, __u32 invariant)
{
	struct anic_scratch *scratch = anic_scratch_of();
	struct anic_action *action = anic_action_at(row);
	__u32 tenant = row / ANIC_ACTIONS_MAX;
	struct anic_ward *ward = anic_ward_of(tenant);
	struct anic_record *record;

	if (!scratch || !action || !ward || !action->in_force)
		return 0;
	anic_put(scratch->generation, tenant, action->target,
		 anic_raw(scratch->generation, tenant, action->target, 1));
	action->in_force = 0;
	if (invariant == ANIC_INVARIANT_R6 && action->direction) { /* R5 has to see it */
		action->direction = 3 - action->direction;
		action->changed_ns = scratch->now_ns;
	}
	ward->in_force--;
	record = anic_new_record(scratch, ANIC_RECORD_REVERT);
	anic_record_target(record, tenant, action->target);
	record->session = action->session;
	record->invariant = invariant;
	record->observed = action->value;
	record->approved = action->stated;
	anic_keep(record);
	return 0;
}

/* All changes of a tenant. `session`: of this one alone, or 0. */
__weak __noinline int anic_give_all_back(__u32 tenant, __u64 session, __u32 invariant)
{
	const struct anic_ward *ward = anic_ward_of(tenant);
	const struct anic_action *action;
	__u32 i;

	if (!ward || !ward->in_force)
		return 0;
	for (i = 0; i < ANIC_ACTIONS_MAX; i++) {
		action = anic_action_at(tenant * ANIC_ACTIONS_MAX + i);
		if (action && action->in_force && (!session || action->session == session))
			anic_give_back(tenant * ANIC_ACTIONS_MAX + i, invariant);
	}
	return 0;
}

static int anic_give_back_tenant(__u32 tenant, void *context)
{
	anic_give_all_back(tenant, 0, *(__u32 *)context);
	return 0;
}

/* All changes of all tenants. */
static __always_inline void anic_give_everything_back(__u32 invariant)
{
	bpf_loop(ANIC_TENANTS_MAX, anic_give_back_tenant, &invariant, 0);
}

/* Sets the limit of a tenant's bulk, with a record, which says nothing of other tenants. */
__weak __noinline int anic_limit_bulk(__u32 tenant, __u64 bps, __u32 missed_lane)
{
	struct anic_scratch *scratch = anic_scratch_of();
	struct anic_ward *ward = anic_ward_of(tenant);
	struct anic_record *record;

	if (!scratch || !ward)
		return 0;
	record = anic_new_record(scratch, ANIC_RECORD_PROTECT);
	record->tenant = tenant;
	record->cls = ANIC_CLASS_BULK;
	record->invariant = ANIC_INVARIANT_L3;
	record->observed = ward->bulk_bps;
	record->requested = tenant == ANIC_LANE_TENANT(missed_lane) ? missed_lane : 0;
	record->approved = bps;
	ward->bulk_bps = bps;
	anic_keep(record);
	return 0;
}

/* --- fail-safe --- */

static __always_inline void anic_dump_lanes(struct anic_dump *dump, __u32 generation, __u32 tenant)
{
	const struct anic_turn_lane *turn;
	const struct anic_bucket *bucket;
	const struct anic_lane *lane;
	__u32 cls, id;

	for (cls = ANIC_CLASS_NONE; cls < ANIC_CLASS__MAX; cls++) {
		id = ANIC_LANE(tenant, cls);
		lane = anic_lane_in(generation, ANIC_PROFILE_TUNED, id);
		if (lane)
			dump->lanes[cls] = *lane;
		turn = bpf_map_lookup_elem(&anic_turns, &id);
		if (turn) {
			dump->samples[cls] = turn->samples;
			dump->over_slo[cls] = turn->over_slo;
		}
		bucket = anic_bucket_of(ANIC_DIRECTION_IN, id);
		if (bucket)
			dump->wanted_bps[ANIC_DIRECTION_IN][cls] = bucket->wanted_bps;
		bucket = anic_bucket_of(ANIC_DIRECTION_OUT, id);
		if (bucket)
			dump->wanted_bps[ANIC_DIRECTION_OUT][cls] = bucket->wanted_bps;
	}
}

/* What is known, before anything falls back. */
__weak __noinline int anic_write_dump(__u32 tenant, __u32 kind, __u32 invariant, __u32 slot)
{
	struct anic_dump *dump = bpf_map_lookup_elem(&anic_dumps, &tenant);
	const struct anic_scratch *scratch = anic_scratch_of();
	const struct anic_session *session = anic_session_in(slot);
	const struct anic_action *action;
	__u32 i;

	if (!dump || !scratch)
		return 0;
	dump->at_ns = scratch->now_ns;
	dump->kind = kind;
	dump->invariant = invariant;
	dump->generation = scratch->generation;
	dump->session = session ? session->id : 0;
	dump->heard_ns = session ? session->heard_ns : 0;
	dump->rejected_in_row = session ? session->rejected_in_row : 0;
	__builtin_memcpy(dump->reason, scratch->reason, sizeof(dump->reason));
	anic_dump_lanes(dump, scratch->generation, tenant);
	for (i = 0; i < ANIC_ACTIONS_MAX; i++) {
		action = anic_action_at(tenant * ANIC_ACTIONS_MAX + i);
		if (action)
			dump->actions[i] = *action;
	}
	return 0;
}

/* Whether fail-safe of this kind stays until an operator ends it. */
static __always_inline int anic_is_latched(__u32 kind)
{
	return kind == ANIC_FAILSAFE_OPERATOR || kind == ANIC_FAILSAFE_REPEATED ||
	       kind == ANIC_FAILSAFE_STUCK;
}

/* How often a tenant failed lately: the tick acts on it. */
static __always_inline void anic_count_failure(__u32 tenant, const struct anic_envelope *envelope,
					       __u64 now_ns)
{
	struct anic_ward *ward = anic_ward_of(tenant);

	if (!ward)
		return;
	if (!ward->failed || anic_has_passed(now_ns, ward->failed_ns, envelope->instability_ns)) {
		ward->failed = 0;
		ward->failed_ns = now_ns;
	}
	ward->failed++;
}

static __always_inline void anic_record_failsafe(struct anic_scratch *scratch, __u32 decided, __u32 tenant,
						 __u32 kind, __u32 invariant, __u64 session, __u64 until_ns)
{
	struct anic_record *record = anic_new_record(scratch, ANIC_RECORD_FAILSAFE);

	record->decided = decided;
	record->tenant = tenant;
	record->failsafe = kind;
	record->invariant = invariant;
	record->session = session;
	record->until_ns = until_ns;
	__builtin_memcpy(record->reason, scratch->reason, sizeof(record->reason));
	anic_keep(record);
}

/*
 * A tenant, or with 0 the instance, falls back. `slot`: of the session that is the cause, or
 * ANIC_SESSIONS_MAX. The mode word comes first after the dump: from it on packets meet the fallback. It is
 * the caller who then gives back what was changed.
 */
__weak __noinline int anic_enter_failsafe(__u32 tenant, __u32 kind, __u32 invariant, __u32 slot)
{
	struct anic_scratch *scratch = anic_scratch_of();
	struct anic_modes *modes = anic_modes_of();
	struct anic_dump *dump = bpf_map_lookup_elem(&anic_dumps, &tenant);
	const struct anic_envelope *envelope = anic_envelope_of(scratch);
	const struct anic_session *session = anic_session_in(slot);
	__u32 *word, before;
	__u64 until_ns;

	if (!scratch || !envelope || !modes || !dump || tenant >= ANIC_TENANTS_MAX)
		return 0;
	word = &modes->words[tenant & (ANIC_MODES - 1)];
	before = ANIC_MODE_FAILSAFE(*word);
	until_ns = anic_is_latched(kind) ? 0 : scratch->now_ns + envelope->cool_down_ns;
	if (before && (before == kind || !anic_is_latched(kind))) { /* the cool-down begins anew */
		if (anic_is_latched(before))
			until_ns = 0;
		*word |= ANIC_MODE_ALARM; /* whoever acknowledged the last one has not seen this one */
	} else {
		anic_write_dump(tenant, kind, invariant, slot);
		*word = kind | ANIC_MODE_ALARM;
		if (tenant && kind != ANIC_FAILSAFE_OPERATOR)
			anic_count_failure(tenant, envelope, scratch->now_ns);
	}
	dump->until_ns = until_ns;
	anic_record_failsafe(scratch, ANIC_DECIDED_FAILSAFE_ENTER, tenant, kind, invariant,
			     session ? session->id : 0, until_ns);
	return 0;
}

/* The policy is in force again. The alarm stays unless `acknowledged`. */
static __always_inline void anic_leave_failsafe(struct anic_scratch *scratch, __u32 *word, __u32 tenant,
						__u32 invariant, int acknowledged)
{
	__u32 kind = ANIC_MODE_FAILSAFE(*word);

	*word = acknowledged ? 0 : *word & ANIC_MODE_ALARM;
	anic_record_failsafe(scratch, ANIC_DECIDED_FAILSAFE_EXIT, tenant, kind, invariant, 0, 0);
}

/*
 * Counts what makes a tenant unstable: oscillation, and changes that hurt. 1 if that was once too often
 * within the window.
 */
static __always_inline int anic_count_instability(__u32 tenant, const struct anic_envelope *envelope,
						  __u64 now_ns)
{
	struct anic_ward *ward = anic_ward_of(tenant);

	if (!ward)
		return 0;
	if (!ward->unstable || anic_has_passed(now_ns, ward->unstable_ns, envelope->instability_ns)) {
		ward->unstable = 0;
		ward->unstable_ns = now_ns;
	}
	if (++ward->unstable < envelope->instabilities)
		return 0;
	ward->unstable = 0;
	return 1;
}

/* A tenant falls back, and what was changed of it is given back. */
static __always_inline void anic_fail(__u32 tenant, __u32 kind, __u32 invariant, __u32 slot)
{
	anic_enter_failsafe(tenant, kind, invariant, slot);
	if (tenant)
		anic_give_all_back(tenant, 0, ANIC_INVARIANT_L4);
	else
		anic_give_everything_back(ANIC_INVARIANT_L4);
}

/*
 * What entering fail-safe was without the lock, which nobody gave back: the mode alone. Whoever has the lock
 * again does the rest, at the time at which it was entered.
 */
__weak __noinline int anic_settle_stuck(void)
{
	struct anic_scratch *scratch = anic_scratch_of();
	struct anic_guard *guard = anic_guard_of();
	__u64 now_ns;

	if (!scratch || !guard || !guard->stuck_ns)
		return 0;
	now_ns = scratch->now_ns;
	scratch->now_ns = guard->stuck_ns;
	guard->stuck_ns = 0;
	anic_write_dump(0, ANIC_FAILSAFE_STUCK, ANIC_INVARIANT_NONE, ANIC_SESSIONS_MAX);
	anic_record_failsafe(scratch, ANIC_DECIDED_FAILSAFE_ENTER, 0, ANIC_FAILSAFE_STUCK,
			     ANIC_INVARIANT_NONE, 0, 0);
	scratch->now_ns = now_ns;
	anic_give_everything_back(ANIC_INVARIANT_L4);
	return 0;
}

/* --- sessions --- */

/* The rejection that waits for others like it, into the chain; without room it is counted as lost. */
static __always_inline void anic_flush_rejection(struct anic_session *session)
{
	struct anic_chain *chain = anic_chain_of();

	if (!session->pending || !chain)
		return;
	anic_date(chain, &session->rejection);
	if (!anic_may_record(chain, 1) || anic_chain_add(&session->rejection))
		anic_count_lost(chain, &session->rejection);
	session->pending = 0;
}

struct anic_ending {
	__u64 session;
	__u64 tenants;
	__u32 slot;
	__u32 failsafe; /* enum anic_failsafe that its tenants go into */
	__u32 invariant;
	__u32 _pad;
};

static int anic_end_for_tenant(__u32 bit, void *context)
{
	const struct anic_ending *ending = context;
	__u32 tenant = bit + 1;

	if (!(ending->tenants >> (bit & 63) & 1))
		return 0;
	if (ending->failsafe) {
		anic_enter_failsafe(tenant, ending->failsafe, ending->invariant, ending->slot);
		anic_give_all_back(tenant, 0, ANIC_INVARIANT_L4);
	} else {
		anic_give_all_back(tenant, ending->session, ending->invariant);
	}
	return 0;
}

/* A session is over: what it changed is given back, and its descriptors are void. */
__weak __noinline int anic_end_session(__u32 slot, __u32 failsafe, __u32 invariant)
{
	struct anic_session *session = anic_session_in(slot);
	struct anic_scratch *scratch = anic_scratch_of();
	struct anic_ending ending = { .slot = slot, .failsafe = failsafe, .invariant = invariant };
	struct anic_record *record;

	if (!session || !scratch || !session->id)
		return 0;
	ending.session = session->id;
	ending.tenants = session->asked.tenants;
	anic_flush_rejection(session);
	bpf_loop(ANIC_TENANTS_MAX - 1, anic_end_for_tenant, &ending, 0);
	record = anic_new_record(scratch, ANIC_RECORD_CLOSE);
	record->session = session->id;
	record->service = session->agent;
	record->requested = session->asked.tenants;
	record->invariant = invariant;
	record->failsafe = failsafe;
	anic_keep(record);
	session->id = 0;
	return 0;
}

#endif
