// SPDX-License-Identifier: GPL-2.0-only
/*
 * Not at any hook: run by who holds the program, to put the policy in the idle slot in force.
 * It clears the counters of ids that mean something else from now on, copies the staged lanes into the
 * slot's, which nobody else may write, and changes the one word that every packet reads once. Userspace sees
 * to it that no packet of an older generation is still under way, and that two do not commit at once.
 */
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
	for (reason = 0; reason < ANIC_REASON__MAX; reason++) {
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
	__u32 to = *(__u32 *)context + index;
	const struct anic_lane *from = bpf_map_lookup_elem(&anic_staging, &index);
	struct anic_lane *lane = bpf_map_lookup_elem(&anic_lanes, &to);

	if (!from || !lane)
		return 1;
	*lane = *from;
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
		steering->to.cpu[i] = from->cpu[i];
		used |= from->cpu[i];
	}
	steering->used = used != 0;
	return 0;
}

/* 0, or -errno: ESTALE when another generation is in force than the caller believes. */
SEC("syscall")
int anic_commit(struct anic_commit *commit)
{
	__u32 zero = 0, next = commit->expected + 1, first;
	struct anic_state *state = bpf_map_lookup_elem(&anic_state, &zero);
	struct anic_clearing clearing = {};
	__u64 now_ns;

	if (!state || (__u32)state->word != commit->expected)
		return -ESTALE;
	if (!next)
		next = ANIC_SLOTS; /* 0 would say that there is no policy */
	first = next % ANIC_SLOTS * ANIC_PROFILE__MAX * ANIC_LANES_MAX;
	if (bpf_loop(ANIC_PROFILE__MAX * ANIC_LANES_MAX, anic_copy_lane, &first, 0) !=
	    ANIC_PROFILE__MAX * ANIC_LANES_MAX)
		return -EIO;
	bpf_loop(ANIC_LANES_MAX, anic_copy_spread, NULL, 0);
	clearing.slot = next % ANIC_SLOTS;
	bpf_loop(ANIC_LANES_MAX, anic_clear_lane, &clearing, 0);
	bpf_loop(ANIC_SERVICES_MAX, anic_clear_service, &clearing, 0);
	now_ns = commit->now_ns ? commit->now_ns : bpf_ktime_get_ns();
	anic_share_out(ANIC_DIRECTION_IN, next,
		       now_ns); /* if the tick is at it, the next one follows this policy */
	anic_share_out(ANIC_DIRECTION_OUT, next, now_ns);
	__sync_lock_test_and_set(&state->word, (__u64)commit->uses << 32 | next);
	return 0;
}
