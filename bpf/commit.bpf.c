// SPDX-License-Identifier: GPL-2.0-only
/*
 * Not at any hook: run by who holds the programs, to put the policy in the idle slot in force.
 *
 * anic_prepare takes its time: it clears the counters of ids that mean something else from now on, and copies
 * what is staged into the slot, which nobody else may write. anic_commit, which like all that holds the
 * guardian's lock is not interrupted, then ends what was changed at run time and changes the one word that
 * every packet reads once. Userspace sees to it that no packet of an older generation is still under way, and
 * that two do not commit at once.
 */
#include "guardian.bpf.h"
#include "turn.bpf.h"

#include <linux/errno.h>

struct anic_clearing {
	__u32 slot;
	__u32 id; /* of the lane or service */
};

/* Moves what was counted in a lane to where nobody else counts. */
static __always_inline void anic_retire(struct anic_lane_count *gone, struct anic_lane_count *lane)
{
	int reason;

	gone->seen += lane->seen;
	lane->seen = 0;
	for (reason = 0; reason < ANIC_REASONS; reason++) {
		gone->by_reason[reason].packets += lane->by_reason[reason].packets;
		gone->by_reason[reason].bytes += lane->by_reason[reason].bytes;
		lane->by_reason[reason] = (struct anic_count){};
	}
}

static int anic_clear_lane_on(__u32 cpu, void *context)
{
	struct anic_counters *counters = bpf_map_lookup_elem(&anic_counters, &cpu);
	__u32 lane = ((struct anic_clearing *)context)->id;

	if (!counters || lane >= ANIC_LANES_MAX)
		return 1; /* no CPU has this number, nor any after it */
	anic_retire(&counters->gone[ANIC_DIRECTION_IN], &counters->lanes[ANIC_DIRECTION_IN][lane]);
	anic_retire(&counters->gone[ANIC_DIRECTION_OUT], &counters->lanes[ANIC_DIRECTION_OUT][lane]);
	return 0;
}

static int anic_clear_service_on(__u32 cpu, void *context)
{
	struct anic_counters *counters = bpf_map_lookup_elem(&anic_counters, &cpu);
	__u32 service = ((struct anic_clearing *)context)->id;

	if (!counters || service >= ANIC_SERVICES_MAX)
		return 1;
	counters->services[ANIC_DIRECTION_IN][service] = (struct anic_count){};
	counters->services[ANIC_DIRECTION_OUT][service] = (struct anic_count){};
	return 0;
}

static int anic_clear_lane(__u32 id, void *context)
{
	struct anic_clearing *clearing = context;
	__u32 index = clearing->slot * ANIC_TENANTS_MAX + id / ANIC_CLASS__MAX;
	const struct anic_tenant *tenant = bpf_map_lookup_elem(&anic_tenants, &index);

	clearing->id = id;
	if (tenant && tenant->fresh) {
		bpf_loop(ANIC_CPUS_MAX, anic_clear_lane_on, clearing, 0);
		anic_turn_clear(id);
	}
	return 0;
}

static int anic_clear_service(__u32 id, void *context)
{
	struct anic_clearing *clearing = context;
	__u32 index = clearing->slot * ANIC_SERVICES_MAX + id;
	const struct anic_service *service = bpf_map_lookup_elem(&anic_services, &index);

	clearing->id = id;
	if (service && service->fresh)
		bpf_loop(ANIC_CPUS_MAX, anic_clear_service_on, clearing, 0);
	return 0;
}

static int anic_copy_lane(__u32 index, void *context)
{
	__u32 to = *(__u32 *)context + index, tuned = to + ANIC_PROFILE_TUNED * ANIC_LANES_MAX;
	const struct anic_lane *from = bpf_map_lookup_elem(&anic_staging, &index);
	struct anic_lane *lane = bpf_map_lookup_elem(&anic_lanes, &to);

	if (!from || !lane)
		return 1;
	*lane = *from;
	if (index < ANIC_LANES_MAX) { /* of ANIC_PROFILE_POLICY: nothing is retuned yet */
		lane = bpf_map_lookup_elem(&anic_lanes, &tuned);
		if (!lane)
			return 1;
		*lane = *from;
	}
	return 0;
}

static int anic_copy_guarding(__u32 i, void *context)
{
	__u32 slot = *(__u32 *)context, zero = 0;
	const struct anic_guarding *from = bpf_map_lookup_elem(&anic_staged, &zero);
	struct anic_guarding *to = bpf_map_lookup_elem(&anic_guarding, &slot);

	if (!from || !to || i >= ANIC_AGENTS_MAX)
		return 1;
	if (!i)
		to->envelope = from->envelope;
	to->agents[i] = from->agents[i];
	return 0;
}

/* 0, or -errno: ESTALE when another generation is in force than the caller believes. */
SEC("syscall")
int anic_prepare(struct anic_prepare *prepare)
{
	__u32 next = prepare->expected + 1, first, slot = next % ANIC_SLOTS;
	const struct anic_state *state = anic_state_of();
	struct anic_clearing clearing = { .slot = slot };

	if (!state || (__u32)state->word != prepare->expected)
		return -ESTALE;
	first = slot * ANIC_PROFILE__MAX * ANIC_LANES_MAX;
	if (bpf_loop(ANIC_PROFILES_STATED * ANIC_LANES_MAX, anic_copy_lane, &first, 0) !=
	    ANIC_PROFILES_STATED * ANIC_LANES_MAX)
		return -EIO;
	bpf_loop(ANIC_AGENTS_MAX, anic_copy_guarding, &slot, 0);
	bpf_loop(ANIC_LANES_MAX, anic_clear_lane, &clearing, 0);
	bpf_loop(ANIC_SERVICES_MAX, anic_clear_service, &clearing, 0);
	return 0;
}

/* --- the switch --- */

struct anic_switching {
	__u64 now_ns;
	__u64 wall_ns;
	__u64 minimums_bps;
	__u64 fresh; /* tenants whose id was another's, or nobody's: bit id - 1 */
	__u32 next;  /* generation */
	__u32 _pad;
};

/* I1: what tenants are guaranteed, all together. And which of them are new. */
static int anic_look_at_tenant(__u32 tenant, void *context)
{
	struct anic_switching *switching = context;
	const struct anic_tenant *row;
	__u32 index;
	const struct anic_lane *whole =
		anic_lane_in(switching->next, ANIC_PROFILE_POLICY, ANIC_LANE(tenant, ANIC_CLASS_NONE));

	index = switching->next % ANIC_SLOTS * ANIC_TENANTS_MAX + tenant;
	row = bpf_map_lookup_elem(&anic_tenants, &index);
	if (whole)
		switching->minimums_bps += whole->rate_bps;
	if (row && row->fresh && tenant)
		switching->fresh |= 1ULL << ((tenant - 1) & 63);
	return 0;
}

static int anic_copy_spread(__u32 lane, void *nothing)
{
	const struct anic_spread *from = bpf_map_lookup_elem(&anic_spread, &lane);
	struct anic_steering *steering = bpf_map_lookup_elem(&anic_steering, &lane);
	__u32 i, used = 0;

	if (!from || !steering)
		return 1;
	for (i = 0; i < ANIC_STEER_BUCKETS; i++) {
		steering->stated.cpu[i] = steering->to.cpu[i] = from->cpu[i];
		used |= from->cpu[i];
	}
	steering->used = used != 0;
	return 0;
}

/*
 * A tenant begins anew with a policy; one whose id was another's, or is nobody's from now on, without
 * fail-safe too: nobody could end it.
 */
static int anic_begin_ward(__u32 tenant, void *context)
{
	const struct anic_switching *switching = context;
	__u32 index = switching->next % ANIC_SLOTS * ANIC_TENANTS_MAX + tenant, cls;
	const struct anic_tenant *row = bpf_map_lookup_elem(&anic_tenants, &index);
	struct anic_modes *modes = anic_modes_of();
	struct anic_ward *ward = anic_ward_of(tenant);
	struct anic_scratch *scratch = anic_scratch_of();
	const struct anic_turn_lane *turn;
	__u32 id, *word;

	if (!row || !modes || !ward || !scratch || tenant >= ANIC_TENANTS_MAX)
		return 1;
	if (ward->bulk_bps)
		anic_limit_bulk(tenant, 0, 0);
	if (tenant && (row->fresh || !row->name[0])) {
		*ward = (struct anic_ward){};
		/* or clang leaves the mask out, and Linux 6.1 has forgotten the bounds */
		barrier_var(tenant);
		word = &modes->words[tenant & (ANIC_MODES - 1)];
		if (ANIC_MODE_FAILSAFE(*word))
			anic_leave_failsafe(scratch, word, tenant, ANIC_INVARIANT_NONE, 1);
		*word = 0;
	}
	for (cls = ANIC_CLASS_NONE; cls < ANIC_CLASS__MAX; cls++) {
		id = ANIC_LANE(tenant, cls);
		turn = bpf_map_lookup_elem(&anic_turns, &id);
		if (!turn)
			continue;
		ward->watches[cls] = (struct anic_watch){ .samples = turn->samples,
							  .over_slo = turn->over_slo,
							  .good_ns = switching->now_ns };
	}
	return 0;
}

static __always_inline int anic_is_same_agent(const struct anic_agent *a, const struct anic_agent *b)
{
	const __u64 *x = (const __u64 *)a->name, *y = (const __u64 *)b->name;

	return x[0] == y[0] && x[1] == y[1] && x[2] == y[2] && x[3] == y[3];
}

/*
 * An open session goes on for the tenants that are the same as before. Where its agent's id is another's from
 * now on, or nobody's, it is over.
 */
static int anic_recheck_session(__u32 slot, void *context)
{
	const struct anic_switching *switching = context;
	const struct anic_scratch *scratch = anic_scratch_of();
	const struct anic_guarding *before, *after;
	struct anic_session *session = anic_session_in(slot);
	__u32 agent;

	if (!scratch || !session)
		return 1;
	if (!session->id)
		return 0;
	anic_flush_rejection(session); /* while its tenant's id is that tenant's */
	session->asked.tenants &= ~switching->fresh;
	if (session->heard_ns) /* its holder does not know yet how often it has to be heard of from now on */
		session->heard_ns = switching->now_ns;
	agent = session->agent;
	before = anic_guarding_of(scratch->generation);
	after = anic_guarding_of(switching->next);
	if (!agent || !before || !after)
		return 0;
	barrier_var(agent);
	if (agent >= ANIC_AGENTS_MAX || !anic_is_same_agent(&before->agents[agent], &after->agents[agent]))
		anic_end_session(slot, ANIC_FAILSAFE_NONE, ANIC_INVARIANT_I3);
	else
		session->asked.tenants &= after->agents[agent].grants.tenants;
	return 0;
}

/* What was changed at run time belongs to a policy that is no more. */
static int anic_forget_action(__u32 row, void *nothing)
{
	struct anic_action *action = anic_action_at(row);

	if (!action)
		return 1;
	*action = (struct anic_action){};
	return 0;
}

/* `observed`: of an ATTACH, the number of the chain's first key. */
static __always_inline void anic_record_wall(struct anic_scratch *scratch, __u32 kind, __u64 wall_ns,
					     __u64 observed)
{
	struct anic_record *record = anic_new_record(scratch, kind);

	record->requested = wall_ns;
	record->observed = observed;
	anic_keep(record);
}

/* Where an id is another's from now on, or nobody's, the tenancy ends, and perhaps another begins. */
static int anic_change_tenancy(__u32 i, void *context)
{
	const struct anic_switching *switching = context;
	__u32 tenant = i + 1, index = switching->next % ANIC_SLOTS * ANIC_TENANTS_MAX + tenant;
	const struct anic_tenant *row = bpf_map_lookup_elem(&anic_tenants, &index);
	struct anic_scratch *scratch = anic_scratch_of();
	struct anic_chain *chain = anic_chain_of();
	struct anic_record *record;

	if (!row || !scratch || !chain)
		return 1;
	if (anic_in_tenancy(chain, tenant)) {
		if (!row->fresh && row->name[0])
			return 0;
		record = anic_new_record(scratch, ANIC_RECORD_DETACH);
		record->requested = switching->wall_ns;
		anic_end_tenancy(chain, record, tenant);
	}
	if (!row->name[0])
		return 0;
	record = anic_new_record(scratch, ANIC_RECORD_COMMIT);
	record->requested = switching->wall_ns;
	__builtin_memcpy(record->reason, row->name, sizeof(row->name));
	anic_begin_tenancy(chain, record, tenant);
	return 0;
}

static __always_inline int anic_commit_locked(struct anic_scratch *scratch, __u32 expected, __u32 uses,
					      __u64 wall_ns)
{
	struct anic_switching switching = { .now_ns = scratch->now_ns,
					    .wall_ns = wall_ns,
					    .next = expected + 1 };
	struct anic_state *state = anic_state_of();
	const struct anic_chain *chain = anic_chain_of();
	const struct anic_lane *link;

	if (!state || !chain || (__u32)state->word != expected)
		return -ESTALE;
	if (!switching.next)
		switching.next = ANIC_SLOTS; /* 0 would say that there is no policy */
	link = anic_lane_in(switching.next, ANIC_PROFILE_POLICY, ANIC_LANE(0, ANIC_CLASS_NONE));
	bpf_loop(ANIC_TENANTS_MAX, anic_look_at_tenant, &switching, 0);
	if (!link || switching.minimums_bps > link->ceiling_bps)
		return -ERANGE;
	anic_give_everything_back(ANIC_INVARIANT_NONE);
	bpf_loop(ANIC_SESSIONS_MAX, anic_recheck_session, &switching, 0);
	if ((__u32)state->word != expected) /* an escalation was given back, in the same slot */
		switching.next = (__u32)state->word + 1 ? (__u32)state->word + 1 : ANIC_SLOTS;
	bpf_loop(ANIC_ACTION_ROWS, anic_forget_action, NULL, 0);
	bpf_loop(ANIC_LANES_MAX, anic_copy_spread, NULL, 0);
	bpf_loop(ANIC_TENANTS_MAX, anic_begin_ward, &switching, 0);
	__sync_lock_test_and_set(&state->word,
				 ANIC_STATE_WORD(switching.next, uses, ANIC_STATE_POLICIES(state->word) + 1));
	scratch->generation = switching.next;
	if (!chain->seq && !chain->waiting)
		anic_record_wall(scratch, ANIC_RECORD_ATTACH, wall_ns, chain->number);
	anic_record_wall(scratch, ANIC_RECORD_COMMIT, wall_ns, 0);
	bpf_loop(ANIC_TENANTS_MAX - 1, anic_change_tenancy, &switching, 0);
	/* if the tick is at it, the next one follows this policy */
	anic_share_out(ANIC_DIRECTION_IN, switching.next, scratch->now_ns);
	anic_share_out(ANIC_DIRECTION_OUT, switching.next, scratch->now_ns);
	return 0;
}

/*
 * 0, or -errno: ESTALE when another generation is in force than the caller believes, ERANGE when the link
 * does not carry what tenants are guaranteed (I1).
 */
SEC("raw_tp")
int anic_commit(struct anic_order *args)
{
	__u64 what = args->what, wall_ns = args->wall_ns;
	struct anic_scratch *scratch = anic_lock(args->now_ns);
	int code;

	if (!scratch)
		return -EBUSY;
	code = anic_commit_locked(scratch, what, what >> 32, wall_ns);
	anic_unlock();
	return code;
}
