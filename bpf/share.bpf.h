/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Sharing out: the link's rate among tenants, and each tenant's among its lanes. What it means is in
 * docs/quotas.md, units and limits in abi/share.h. The tick and anic_commit do this; packets never do.
 */
#ifndef ANIC_SHARE_BPF_H
#define ANIC_SHARE_BPF_H

#include "maps.bpf.h"

static __always_inline __u64 anic_min(__u64 a, __u64 b)
{
	return a < b ? a : b;
}

static __always_inline __u64 anic_max(__u64 a, __u64 b)
{
	return a > b ? a : b;
}

/* Some claims, and the level that they make. */
struct anic_contest {
	__u32 first;  /* claim */
	__u32 claims; /* how many */
	__u32 level;
};

static __always_inline struct anic_claim *anic_claim(__u32 index)
{
	return bpf_map_lookup_elem(&anic_claims, &index);
}

static __always_inline struct anic_level *anic_level(__u32 index)
{
	return bpf_map_lookup_elem(&anic_levels, &index);
}

/* Guarantees come first. */
static int anic_claim_least(__u32 i, void *context)
{
	const struct anic_contest *contest = context;
	struct anic_claim *claim = anic_claim(contest->first + i);
	struct anic_level *level = anic_level(contest->level);
	__u64 least;

	if (!claim || !level)
		return 1;
	claim->more_bps = 0;
	if (!claim->weight)
		return 0;
	least = anic_min(claim->wants_bps, claim->least_bps);
	level->left_bps -= anic_min(level->left_bps, least);
	claim->more_bps = claim->wants_bps - least;
	if (claim->more_bps)
		level->weight += claim->weight;
	return 0;
}

/* Who wants no more than its share of what is left has it, and the others share the rest. */
static int anic_claim_settle(__u32 i, void *context)
{
	const struct anic_contest *contest = context;
	struct anic_claim *claim = anic_claim(contest->first + i);
	struct anic_level *level = anic_level(contest->level);

	if (!claim || !level)
		return 1;
	if (!claim->more_bps || claim->more_bps > claim->weight * level->per_weight >> ANIC_LEVEL_LOG2)
		return 0;
	level->left_bps -= anic_min(level->left_bps, claim->more_bps);
	level->weight -= claim->weight;
	claim->more_bps = 0;
	level->settled = 1;
	return 0;
}

static int anic_level_round(__u32 round, void *context)
{
	struct anic_level *level = anic_level(((struct anic_contest *)context)->level);
	__u32 claims = ((struct anic_contest *)context)->claims;

	if (!level || !level->weight)
		return 1;
	level->per_weight = (level->left_bps << ANIC_LEVEL_LOG2) / level->weight;
	level->settled = 0;
	bpf_loop(claims, anic_claim_settle, context, 0);
	return !level->settled;
}

/* The level at which claims share a rate. */
__weak __noinline int anic_find_level(__u32 index, __u32 first, __u32 claims, __u64 rate_bps)
{
	struct anic_contest contest = { .first = first, .claims = claims, .level = index };
	struct anic_level *level = anic_level(index);

	if (!level)
		return 0;
	level->left_bps = rate_bps;
	level->weight = 0;
	level->per_weight = 0;
	bpf_loop(claims, anic_claim_least, &contest, 0);
	bpf_loop(ANIC_LEVEL_ROUNDS, anic_level_round, &contest, 0);
	return 0;
}

/* What a claim may have: as much as it would get if it alone wanted more than it does. */
static __always_inline __u64 anic_claim_rate(const struct anic_claim *claim, const struct anic_level *level)
{
	__u64 rate = level->weight ? claim->least_bps + (claim->weight * level->per_weight >> ANIC_LEVEL_LOG2)
				   : anic_max(claim->least_bps, claim->wants_bps + level->left_bps);

	return anic_max(anic_min(rate, claim->most_bps), ANIC_RATE_MIN_BPS);
}

static __always_inline struct anic_lane *anic_lane_in(__u32 generation, __u32 profile, __u32 id)
{
	__u32 index = (generation % ANIC_SLOTS * ANIC_PROFILE__MAX + profile) * ANIC_LANES_MAX + id;

	return bpf_map_lookup_elem(&anic_lanes, &index);
}

/* Whether a tenant is in fail-safe, by itself or with the instance. */
static __always_inline __u32 anic_is_in_failsafe(__u32 tenant)
{
	__u32 zero = 0;
	const struct anic_modes *modes = bpf_map_lookup_elem(&anic_modes, &zero);

	if (!modes)
		return 0;
	barrier_var(tenant); /* clang would know that it is less, and the verifier not */
	return ANIC_MODE_FAILSAFE(ANIC_READ_ONCE(modes->words[0]) |
				  ANIC_READ_ONCE(modes->words[tenant & (ANIC_MODES - 1)]));
}

/* The lane as it is in force. */
static __always_inline const struct anic_lane *anic_lane_of(__u32 generation, __u32 id)
{
	return anic_lane_in(
		generation,
		anic_is_in_failsafe(ANIC_LANE_TENANT(id)) ? ANIC_PROFILE_FALLBACK : ANIC_PROFILE_TUNED, id);
}

static __always_inline struct anic_bucket *anic_bucket_of(__u32 direction, __u32 lane)
{
	__u32 index = direction * ANIC_LANES_MAX + lane;

	return bpf_map_lookup_elem(&anic_buckets, &index);
}

/* A ceiling that is not stated is the link's rate. */
static __always_inline __u64 anic_ceiling(const struct anic_lane *lane, __u64 link_bps)
{
	return lane->ceiling_bps ? anic_min(lane->ceiling_bps, link_bps) : link_bps;
}

/* What the guardian limits bulk of a tenant to when SLOs are missed; else no limit. */
static __always_inline __u64 anic_bulk_limit(__u32 tenant)
{
	const struct anic_ward *ward = bpf_map_lookup_elem(&anic_wards, &tenant);

	return ward && ward->bulk_bps ? ward->bulk_bps : ~0ULL;
}

/* The most that a lane may have. */
static __always_inline __u64 anic_most(const struct anic_lane *lane, __u32 cls, __u64 bulk_bps,
				       __u64 link_bps)
{
	__u64 most = anic_ceiling(lane, link_bps);

	return cls == ANIC_CLASS_BULK ? anic_min(most, bulk_bps) : most;
}

/*
 * What a bucket is ahead, in bytes at a low rate, is less time at a higher one. Not less than what a packet
 * may wait, so that none overtakes those that wait already.
 */
static __always_inline void anic_ease_debt(struct anic_bucket *bucket, __u64 cost, __u64 now_ns)
{
	__u64 paid = ANIC_READ_ONCE(bucket->paid), debt = paid - ANIC_TICKS(now_ns), eased;

	if (!cost || bucket->cost <= cost || debt <= ANIC_TICKS(ANIC_HORIZON_NS) ||
	    debt > ANIC_TICKS(ANIC_DEBT_NS))
		return;
	eased = (debt << ANIC_COST_LOG2) / bucket->cost * cost >> ANIC_COST_LOG2;
	/* if somebody takes at this moment, his debt stays as it was */
	__sync_val_compare_and_swap(&bucket->paid, paid,
				    ANIC_TICKS(now_ns) + anic_max(eased, ANIC_TICKS(ANIC_HORIZON_NS)));
}

/* Puts a rate in force. 0: there is no limit. */
static __always_inline void anic_set_rate(struct anic_bucket *bucket, __u64 rate_bps, __u64 now_ns)
{
	__u64 cost = rate_bps ? ANIC_COST(rate_bps) : 0;

	anic_ease_debt(bucket, cost, now_ns);
	bucket->rate_bps = rate_bps;
	bucket->lease_bytes =
		cost ? anic_min((ANIC_TICKS(ANIC_LEASE_NS) << ANIC_COST_LOG2) / cost, ANIC_LEASE_BYTES_MAX)
		     : ANIC_LEASE_BYTES_FREE;
	bucket->cost = cost;
}

/* One sharing-out. */
struct anic_round {
	__u32 direction;
	__u32 generation;
	__u64 now_ns;
	__u64 link_bps;
};

/* What a lane asked for lately: all that it can get, if what it has does not suffice. */
static __always_inline __u64 anic_lane_wants(struct anic_bucket *bucket, const struct anic_round *round,
					     __u64 most_bps)
{
	__u64 asked = bucket->asked, bytes = asked - bucket->seen, elapsed_ns = 0;

	if (round->now_ns > bucket->seen_ns) /* else the clock went back */
		elapsed_ns = round->now_ns - bucket->seen_ns;
	if (elapsed_ns >= ANIC_WANTED_NS || (elapsed_ns >= ANIC_SHARE_NS / 2 && bytes >= ANIC_WANTED_BYTES)) {
		bucket->wanted_bps = anic_min(bytes, 1 << 30) * 8000000000 / elapsed_ns;
		bucket->seen = asked;
		bucket->seen_ns = round->now_ns;
	}
	bucket->hungry = (__s64)(bucket->paid - ANIC_TICKS(round->now_ns)) > 0;
	return bucket->hungry ? most_bps : anic_min(bucket->wanted_bps, most_bps);
}

static int anic_claim_of_tenant(__u32 tenant, void *context)
{
	const struct anic_round *round = context;
	struct anic_claim *claim = anic_claim(round->direction * ANIC_CLAIMS_MAX + tenant);
	const struct anic_lane *whole = anic_lane_of(round->generation, ANIC_LANE(tenant, ANIC_CLASS_NONE));
	const struct anic_lane *lane;
	struct anic_bucket *bucket;
	__u64 wants = 0, bulk_bps = anic_bulk_limit(tenant);
	__u32 cls;

	if (!claim || !whole)
		return 1;
	claim->weight = whole->weight;
	if (!whole->weight)
		return 0;
	claim->least_bps = whole->rate_bps;
	claim->most_bps = anic_ceiling(whole, round->link_bps);
	for (cls = ANIC_CLASS_DEFAULT; cls < ANIC_CLASS__MAX; cls++) {
		lane = anic_lane_of(round->generation, ANIC_LANE(tenant, cls));
		bucket = anic_bucket_of(round->direction, ANIC_LANE(tenant, cls));
		if (!lane || !bucket)
			return 1;
		wants += anic_lane_wants(bucket, round, anic_most(lane, cls, bulk_bps, round->link_bps));
	}
	claim->wants_bps = anic_min(wants, claim->most_bps);
	return 0;
}

/* Shares a tenant's rate out among its lanes. */
__weak __noinline int anic_share_lanes(__u32 direction, __u32 generation, __u32 tenant, __u64 rate_bps,
				       __u64 now_ns)
{
	__u32 first = direction * ANIC_CLAIMS_MAX + ANIC_TENANTS_MAX, index = ANIC_LEVEL(direction, 1), cls;
	const struct anic_lane *link = anic_lane_of(generation, ANIC_LANE(0, ANIC_CLASS_NONE)), *lane;
	const struct anic_level *level = anic_level(index);
	__u64 bulk_bps = anic_bulk_limit(tenant);
	struct anic_bucket *bucket;
	struct anic_claim *claim;

	for (cls = ANIC_CLASS_DEFAULT; cls < ANIC_CLASS__MAX; cls++) {
		lane = anic_lane_of(generation, ANIC_LANE(tenant, cls));
		bucket = anic_bucket_of(direction, ANIC_LANE(tenant, cls));
		claim = anic_claim(first + cls);
		if (!link || !lane || !bucket || !claim)
			return 0;
		claim->weight = lane->weight;
		claim->least_bps = lane->rate_bps;
		claim->most_bps = anic_min(anic_most(lane, cls, bulk_bps, link->ceiling_bps), rate_bps);
		claim->wants_bps =
			anic_min(bucket->hungry ? claim->most_bps : bucket->wanted_bps, claim->most_bps);
	}
	anic_find_level(index, first, ANIC_CLASS__MAX, rate_bps);
	for (cls = ANIC_CLASS_DEFAULT; cls < ANIC_CLASS__MAX; cls++) {
		bucket = anic_bucket_of(direction, ANIC_LANE(tenant, cls));
		claim = anic_claim(first + cls);
		if (bucket && claim && level)
			anic_set_rate(bucket, anic_claim_rate(claim, level), now_ns);
	}
	return 0;
}

static int anic_share_tenant(__u32 tenant, void *context)
{
	const struct anic_round *round = context;
	const struct anic_claim *claim = anic_claim(round->direction * ANIC_CLAIMS_MAX + tenant);
	const struct anic_level *level = anic_level(ANIC_LEVEL(round->direction, 0));
	struct anic_bucket *whole = anic_bucket_of(round->direction, ANIC_LANE(tenant, ANIC_CLASS_NONE));

	if (!claim || !level || !whole)
		return 1;
	if (!claim->weight)
		return 0;
	anic_set_rate(whole, claim->most_bps < round->link_bps ? claim->most_bps : 0, round->now_ns);
	anic_share_lanes(round->direction, round->generation, tenant, anic_claim_rate(claim, level),
			 round->now_ns);
	return 0;
}

static int anic_free_lane(__u32 lane, void *context)
{
	struct anic_bucket *bucket = anic_bucket_of(((struct anic_round *)context)->direction, lane);

	if (!bucket)
		return 1;
	anic_set_rate(bucket, 0, 0);
	return 0;
}

/*
 * Shares the link's rate out by what was asked for since the last time. 1, or 0 if another CPU is at it.
 * Functions that are not static are checked by themselves: see anic_look_up().
 */
__weak __noinline int anic_share_out(__u32 direction, __u32 generation, __u64 now_ns)
{
	struct anic_sharing *sharing = bpf_map_lookup_elem(&anic_sharing, &direction);
	const struct anic_lane *link = anic_lane_of(generation, ANIC_LANE(0, ANIC_CLASS_NONE));
	struct anic_round round = { .direction = direction, .generation = generation, .now_ns = now_ns };

	if (!sharing || !link)
		return 0;
	if (__sync_val_compare_and_swap(&sharing->busy, 0, 1))
		return 0;
	round.link_bps = link->ceiling_bps;
	if (round.link_bps) {
		bpf_loop(ANIC_TENANTS_MAX, anic_claim_of_tenant, &round, 0);
		anic_find_level(ANIC_LEVEL(direction, 0), direction * ANIC_CLAIMS_MAX, ANIC_TENANTS_MAX,
				round.link_bps);
		bpf_loop(ANIC_TENANTS_MAX, anic_share_tenant, &round, 0);
	} else {
		bpf_loop(ANIC_LANES_MAX, anic_free_lane, &round, 0);
	}
	sharing->last_ns = now_ns;
	sharing->rounds++;
	__sync_lock_test_and_set(&sharing->busy, 0);
	return 1;
}

#endif
