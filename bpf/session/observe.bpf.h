/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What the holder of a session sees, written into its page. It reads what the packet path counts without a
 * lock, a bounded part of it in each call, and writes what concerns the tenants and classes that are granted,
 * by the session and by the policy in force, both looked at anew in each call.
 */
#ifndef ANIC_SESSION_OBSERVE_BPF_H
#define ANIC_SESSION_OBSERVE_BPF_H

#include "judge.bpf.h"
#include "session/page.bpf.h"

/* Where the window of a lane's answers began. */
struct anic_window {
	__u64 samples;
	__u64 begun_ns;
	__u32 histogram[ANIC_TURN_BUCKETS]; /* as it was; differences to it wrap */
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, ANIC_OBSERVED_LANES);
	__type(key, __u32);
	__type(value, struct anic_window);
} session_windows SEC(".maps");

/* Of one call at a time, as all of a session's. */
struct anic_observing {
	__u64 now_ns;
	struct anic_grants grants;
	__u64 shown; /* tenants that the page may have something of, as in anic_grants */
	__u32 generation;
	__u32 first;  /* row that comes first: what a call has no time for comes first in the next */
	__u32 late;   /* the first row that this call has no time for, plus 1 */
	__u32 counts; /* elements of anic_counters left in this call */
	__u32 turns;  /* histograms left in this call */
	__u32 row;    /* that is looked at */
	__u32 cpus;
	__u32 looked;
	__u64 seen[ANIC_DIRECTION__MAX]; /* packets of the row */
	__u32 answers[ANIC_TURN_BUCKETS];
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct anic_observing);
} session_observe SEC(".maps");

static __always_inline struct anic_observing *anic_observing_of(void)
{
	__u32 zero = 0;

	return bpf_map_lookup_elem(&session_observe, &zero);
}

static __always_inline __u32 anic_row_tenant(__u32 row)
{
	return row / ANIC_OBSERVED_CLASSES + 1;
}

static __always_inline __u32 anic_row_class(__u32 row)
{
	return row % ANIC_OBSERVED_CLASSES + ANIC_CLASS_DEFAULT;
}

static __always_inline struct anic_observed_lane *anic_observed_row(__u32 row)
{
	struct anic_page *page = anic_page_of();

	barrier_var(row); /* or the check is of a copy, and Linux 6.1 does not know */
	return page && row < ANIC_OBSERVED_LANES ? &page->observation.lanes[row] : NULL;
}

static __always_inline void anic_be_late(struct anic_observing *o, __u32 row)
{
	if (!o->late)
		o->late = row + 1;
}

/* What both the session and the policy in force grant. 0: nothing, for the session is over. */
static __always_inline int anic_find_grants(struct anic_observing *o)
{
	const struct anic_session *session = anic_session_in(anic_session_slot);
	const struct anic_guarding *guarding = anic_guarding_of(o->generation);
	const struct anic_grants *granted;
	__u32 agent;

	if (!session || !guarding)
		return 0;
	agent = ANIC_READ_ONCE(session->agent);
	barrier_var(agent);
	o->grants = session->asked;
	barrier();
	/* looked at last: before another session is opened in its place, the id is taken away */
	if (agent >= ANIC_AGENTS_MAX || ANIC_READ_ONCE(session->id) != anic_session_id)
		return 0;
	if (!agent)
		return 1;
	granted = &guarding->agents[agent].grants;
	o->grants.tenants &= granted->tenants;
	o->grants.kinds &= granted->kinds;
	o->grants.classes &= granted->classes;
	o->grants.paths &= granted->paths;
	return 1;
}

/* --- answers --- */

/* What answers came since the window began, which begins anew: how many. */
static __always_inline __u32 anic_take_answers(struct anic_observing *o, struct anic_window *window,
					       const struct anic_turn_lane *turn)
{
	__u32 sum = 0, now, i;

	for (i = 0; i < ANIC_TURN_BUCKETS; i++) {
		now = (__u32)ANIC_READ_ONCE(turn->histogram[i]);
		o->answers[i] = now - window->histogram[i];
		window->histogram[i] = now;
		sum += o->answers[i];
	}
	return sum;
}

static __always_inline void anic_find_percentiles(const struct anic_observing *o,
						  struct anic_observed_lane *lane, __u32 answers)
{
	__u32 half = (answers + 1) / 2, most = answers - answers / 100, sum = 0, before, i;

	for (i = 0; i < ANIC_TURN_BUCKETS; i++) {
		before = sum;
		sum += o->answers[i];
		if (before < half && sum >= half)
			lane->p50_ns = ANIC_TURN_BUCKET_END_NS(i);
		if (before < most && sum >= most)
			lane->p99_ns = ANIC_TURN_BUCKET_END_NS(i);
	}
}

__weak __noinline int anic_observe_answers(__u32 row)
{
	struct anic_observing *o = anic_observing_of();
	struct anic_observed_lane *lane = anic_observed_row(row);
	struct anic_window *window = bpf_map_lookup_elem(&session_windows, &row);
	const struct anic_turn_lane *turn;
	__u64 new_samples;
	__u32 id, answers;

	if (!o || !lane || !window)
		return 0;
	id = ANIC_LANE(anic_row_tenant(row), anic_row_class(row));
	turn = bpf_map_lookup_elem(&anic_turns, &id);
	if (!turn)
		return 0;
	lane->samples = turn->samples;
	lane->over_slo = turn->over_slo;
	lane->missed = turn->misses;
	new_samples = lane->samples - window->samples;
	if (!lane->samples) {
		window->begun_ns = o->now_ns;
		return 0;
	}
	if (!new_samples ||
	    (new_samples < ANIC_OBSERVE_WINDOW && o->now_ns - window->begun_ns < ANIC_OBSERVE_WINDOW_NS))
		return 0;
	if (!o->turns) {
		anic_be_late(o, row);
		return 0;
	}
	o->turns--;
	answers = anic_take_answers(o, window, turn);
	if (answers && window->begun_ns) { /* else they came before the session did */
		anic_find_percentiles(o, lane, answers);
		lane->window = answers;
	}
	window->samples = lane->samples;
	window->begun_ns = o->now_ns;
	return 0;
}

/* --- counts and rates --- */

static __always_inline void anic_add_counts(struct anic_observed_way *way,
					    const struct anic_lane_count *count)
{
	__u32 i;

#pragma unroll
	for (i = 0; i < ANIC_REASONS; i++) {
		if (i == ANIC_REASON_AT(ANIC_REASON_DROP_QUOTA)) {
			way->dropped_packets += count->by_reason[i].packets;
			way->dropped_bytes += count->by_reason[i].bytes;
		} else {
			way->packets += count->by_reason[i].packets;
			way->bytes += count->by_reason[i].bytes;
		}
	}
}

static __always_inline const struct anic_lane_count *anic_lane_count_of(const struct anic_counters *counters,
									__u32 direction, __u32 row)
{
	__u32 id = ANIC_LANE(anic_row_tenant(row), anic_row_class(row));

	barrier_var(id);
	return id < ANIC_LANES_MAX ? &counters->lanes[direction][id] : NULL;
}

/* Of one CPU: packets that were seen, which one cache line says. */
static int anic_observe_seen(__u32 cpu, void *nothing)
{
	struct anic_observing *o = anic_observing_of();
	const struct anic_counters *counters = bpf_map_lookup_elem(&anic_counters, &cpu);
	const struct anic_lane_count *in, *out;

	if (!o || !counters)
		return 1;
	in = anic_lane_count_of(counters, ANIC_DIRECTION_IN, o->row);
	out = anic_lane_count_of(counters, ANIC_DIRECTION_OUT, o->row);
	if (!in || !out)
		return 1;
	o->seen[ANIC_DIRECTION_IN] += in->seen;
	o->seen[ANIC_DIRECTION_OUT] += out->seen;
	return 0;
}

static int anic_observe_cpu(__u32 cpu, void *nothing)
{
	struct anic_observing *o = anic_observing_of();
	const struct anic_counters *counters = bpf_map_lookup_elem(&anic_counters, &cpu);
	const struct anic_lane_count *in, *out;
	struct anic_observed_lane *lane;

	if (!o || !counters)
		return 1;
	lane = anic_observed_row(o->row);
	in = anic_lane_count_of(counters, ANIC_DIRECTION_IN, o->row);
	out = anic_lane_count_of(counters, ANIC_DIRECTION_OUT, o->row);
	if (!lane || !in || !out)
		return 1;
	anic_add_counts(&lane->ways[ANIC_DIRECTION_IN], in);
	anic_add_counts(&lane->ways[ANIC_DIRECTION_OUT], out);
	return 0;
}

static __always_inline int anic_is_settled(const struct anic_observing *o,
					   const struct anic_observed_lane *lane, __u32 direction)
{
	const struct anic_observed_way *way = &lane->ways[direction];

	return way->packets + way->dropped_packets == o->seen[direction];
}

static __always_inline void anic_clear_counts(struct anic_observed_way *way)
{
	way->packets = 0;
	way->bytes = 0;
	way->dropped_packets = 0;
	way->dropped_bytes = 0;
}

/* Counts of a lane: anew only if a packet was seen since they were last read. */
static __always_inline void anic_observe_counts(struct anic_observing *o, struct anic_observed_lane *lane)
{
	o->seen[ANIC_DIRECTION_IN] = 0;
	o->seen[ANIC_DIRECTION_OUT] = 0;
	bpf_loop(o->cpus, anic_observe_seen, NULL, 0);
	if (anic_is_settled(o, lane, ANIC_DIRECTION_IN) && anic_is_settled(o, lane, ANIC_DIRECTION_OUT))
		return;
	anic_clear_counts(&lane->ways[ANIC_DIRECTION_IN]);
	anic_clear_counts(&lane->ways[ANIC_DIRECTION_OUT]);
	bpf_loop(o->cpus, anic_observe_cpu, NULL, 0);
}

static __always_inline void anic_observe_bucket(struct anic_observed_way *way, __u32 direction, __u32 id,
						__u64 now_ns)
{
	const struct anic_bucket *bucket = anic_bucket_of(direction, id);
	__s64 ahead;

	if (!bucket)
		return;
	way->given_bps = bucket->rate_bps;
	way->wanted_bps = bucket->wanted_bps;
	ahead = bucket->cost ? ANIC_READ_ONCE(bucket->paid) - ANIC_TICKS(now_ns) : 0;
	way->ahead_ns = ahead > 0 ? (__u64)ahead >> ANIC_TICK_LOG2 : 0;
}

/* One lane, if it is granted and there is time. */
__weak __noinline int anic_observe_lane(__u32 row)
{
	__u32 tenant = anic_row_tenant(row), cls = anic_row_class(row), id = ANIC_LANE(tenant, cls);
	struct anic_observed_lane *lane = anic_observed_row(row);
	struct anic_observing *o = anic_observing_of();
	const struct anic_lane *knobs, *whole;

	if (!o || !lane)
		return 0;
	knobs = anic_lane_of(o->generation, id);
	whole = anic_lane_of(o->generation, ANIC_LANE(tenant, ANIC_CLASS_NONE));
	if (!knobs || !whole || !whole->weight || !(o->grants.tenants >> ((tenant - 1) & 63) & 1) ||
	    !(o->grants.classes >> (cls & 31) & 1)) {
		if (lane->tenant)
			__builtin_memset(lane, 0, sizeof(*lane));
		return 0;
	}
	if (o->counts < o->cpus) {
		anic_be_late(o, row);
		return 0;
	}
	o->counts -= o->cpus;
	o->looked++;
	lane->tenant = tenant;
	lane->cls = cls;
	lane->path = knobs->path;
	lane->floor_percent = knobs->floor_percent;
	lane->weight = knobs->weight;
	lane->ceiling_bps = knobs->ceiling_bps;
	lane->rate_bps = knobs->rate_bps;
	lane->slo_ns = knobs->slo_ns;
	lane->at_ns = o->now_ns;
	anic_observe_bucket(&lane->ways[ANIC_DIRECTION_IN], ANIC_DIRECTION_IN, id, o->now_ns);
	anic_observe_bucket(&lane->ways[ANIC_DIRECTION_OUT], ANIC_DIRECTION_OUT, id, o->now_ns);
	o->row = row;
	anic_observe_counts(o, lane);
	anic_observe_answers(row);
	return 0;
}

static int anic_observe_row(__u32 i, void *nothing)
{
	struct anic_observing *o = anic_observing_of();
	__u32 row;

	if (!o)
		return 1;
	row = (o->first + i) % ANIC_OBSERVED_LANES;
	if (o->shown >> (row / ANIC_OBSERVED_CLASSES & 63) & 1)
		anic_observe_lane(row);
	return 0;
}

/* --- tenants --- */

static __always_inline __u64 anic_later(__u64 a_ns, __u64 b_ns)
{
	return (__s64)(a_ns - b_ns) > 0 ? a_ns : b_ns;
}

static __always_inline struct anic_observed_tenant *anic_observed_whole(__u32 i)
{
	struct anic_page *page = anic_page_of();

	barrier_var(i);
	return page && i < ANIC_TENANTS_MAX - 1 ? &page->observation.tenants[i] : NULL;
}

/* What a change of its bulk's ceiling is held to, if its bulk is granted and the link's rate is stated. */
__weak __noinline int anic_observe_bulk(__u32 tenant)
{
	struct anic_observed_tenant *seen = anic_observed_whole(tenant - 1);
	const struct anic_observing *o = anic_observing_of();
	__u32 id = ANIC_LANE(tenant, ANIC_CLASS_BULK);
	const struct anic_lane *tuned, *stated, *link;
	__u64 most;

	if (!seen || !o)
		return 0;
	seen->bulk_now_bps = seen->bulk_stated_bps = seen->bulk_least_bps = 0;
	tuned = anic_lane_in(o->generation, ANIC_PROFILE_TUNED, id);
	stated = anic_lane_in(o->generation, ANIC_PROFILE_POLICY, id);
	link = anic_lane_in(o->generation, ANIC_PROFILE_POLICY, ANIC_LANE(0, ANIC_CLASS_NONE));
	if (!tuned || !stated || !link || !link->ceiling_bps || !(o->grants.classes >> ANIC_CLASS_BULK & 1))
		return 0;
	most = anic_stated_ceiling(o->generation, tenant);
	seen->bulk_now_bps = tuned->ceiling_bps ? tuned->ceiling_bps : most;
	seen->bulk_stated_bps = stated->ceiling_bps ? stated->ceiling_bps : most;
	seen->bulk_least_bps = anic_least_bulk(o->generation, tenant, stated);
	return 0;
}

/* Its escalations, and the buckets that go to another CPU, of the classes that are granted. */
__weak __noinline int anic_observe_actions(__u32 tenant)
{
	struct anic_observed_tenant *seen = anic_observed_whole(tenant - 1);
	const struct anic_observing *o = anic_observing_of();
	const struct anic_ward *ward = anic_ward_of(tenant);
	const struct anic_action *action;
	__u32 target, cls, i;

	if (!seen || !ward || !o)
		return 0;
	for (i = 0; i < ANIC_ACTIONS_MAX; i++) {
		seen->escalated[i] = 0;
		seen->rebalanced[i] = 0;
		action = ward->in_force ? anic_action_at(tenant * ANIC_ACTIONS_MAX + i) : NULL;
		if (!action || !action->in_force)
			continue;
		target = ANIC_READ_ONCE(action->target);
		if (ANIC_TARGET_KIND(target) == ANIC_CHANGE_FLOW_CLASS_ESCALATE)
			seen->escalated[i] = ANIC_ESCALATED(ANIC_TARGET_PART(target), action->value & 0xff);
		cls = ANIC_TARGET_CLASS(target);
		if (ANIC_TARGET_KIND(target) == ANIC_CHANGE_QUEUE_REBALANCE &&
		    o->grants.classes >> (cls & 31) & 1)
			seen->rebalanced[i] =
				ANIC_REBALANCED(cls, ANIC_TARGET_PART(target) & 0xff, action->value);
	}
	return 0;
}

static int anic_observe_tenant(__u32 i, void *nothing)
{
	__u32 tenant = i + 1, id = ANIC_LANE(tenant, ANIC_CLASS_NONE);
	struct anic_observing *o = anic_observing_of();
	const struct anic_ward *ward = anic_ward_of(tenant);
	const struct anic_modes *modes = anic_modes_of();
	const struct anic_guard *guard = anic_guard_of();
	struct anic_observed_tenant *seen = anic_observed_whole(i);
	struct anic_page *page = anic_page_of();
	const struct anic_envelope *envelope;
	const struct anic_lane *whole;
	__u64 free_ns;
	__u32 mode;

	if (!o || !ward || !modes || !guard || !page || !seen)
		return 1;
	if (!(o->shown >> (i & 63) & 1))
		return 0;
	envelope = &page->observation.envelope;
	whole = anic_lane_of(o->generation, id);
	if (!whole || !whole->weight || !(o->grants.tenants >> (i & 63) & 1)) {
		__builtin_memset(seen, 0, sizeof(*seen));
		return 0;
	}
	mode = ANIC_MODE_FAILSAFE(modes->words[tenant & (ANIC_MODES - 1)]);
	seen->tenant = tenant;
	seen->failsafe = mode ? mode : ANIC_MODE_FAILSAFE(modes->words[0]);
	seen->in_force = ward->in_force;
	seen->rate_bps = whole->rate_bps;
	seen->ceiling_bps = whole->ceiling_bps;
	seen->stated_bps = anic_stated_ceiling(o->generation, tenant);
	seen->bulk_bps = ward->bulk_bps;
	free_ns = anic_later(ward->changes_due + anic_interval(envelope->changes_of_tenant),
			     guard->changes_due + anic_interval(envelope->changes)) -
		  ANIC_SECOND_NS;
	seen->free_ns = (__s64)(free_ns - o->now_ns) > 0 ? free_ns : 0;
	anic_observe_bulk(tenant);
	anic_observe_actions(tenant);
	return 0;
}

/* --- all of it --- */

static int anic_count_cpus(__u32 cpu, void *nothing)
{
	struct anic_observing *o = anic_observing_of();

	if (!o || !bpf_map_lookup_elem(&anic_counters, &cpu))
		return 1;
	o->cpus = cpu + 1;
	return 0;
}

/* `now_ns`: for tests; 0: now. */
__weak __noinline int anic_observe(__u64 now_ns)
{
	const struct anic_state *state = anic_state_of();
	struct anic_observing *o = anic_observing_of();
	struct anic_page *page = anic_page_of();
	const struct anic_guarding *guarding;
	struct anic_observation *seen;

	if (!state || !o || !page)
		return 0;
	seen = &page->observation;
	o->now_ns = now_ns ? now_ns : bpf_ktime_get_ns();
	o->generation = (__u32)state->word;
	guarding = anic_guarding_of(o->generation);
	if (!guarding || !anic_find_grants(o))
		return 0;
	if (!o->cpus)
		bpf_loop(ANIC_CPUS_MAX, anic_count_cpus, NULL, 0);
	o->counts = anic_max(ANIC_OBSERVE_COUNTS, o->cpus);
	o->turns = ANIC_OBSERVE_TURNS;
	o->looked = 0;
	o->late = 0;
	__sync_fetch_and_add(&seen->sequence, 1);
	seen->at_ns = o->now_ns;
	seen->generation = o->generation;
	seen->envelope = guarding->envelope;
	seen->grants = o->grants;
	o->shown |= o->grants.tenants;
	bpf_loop(ANIC_TENANTS_MAX - 1, anic_observe_tenant, NULL, 0);
	bpf_loop(ANIC_OBSERVED_LANES, anic_observe_row, NULL, 0);
	o->shown = o->grants.tenants; /* of the others there is nothing left */
	if (o->late)
		o->first = o->late - 1;
	seen->number++;
	seen->looked = o->looked;
	__sync_fetch_and_add(&seen->sequence, 1);
	return 0;
}

#endif
