/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * One packet's decision and its accounting, shared by every hook. A hook parses, classifies, moves the packet
 * if it can, and leaves through anic_finish(): its only exit, so that nothing goes uncounted.
 */
#ifndef ANIC_CLASSIFY_BPF_H
#define ANIC_CLASSIFY_BPF_H

#include "flows.bpf.h"
#include "lookup.bpf.h"
#include "quota.bpf.h"
#include "steer.bpf.h"

#define ANIC_HEADERS_MAX 256 /* what is made linear at TC when the headers are not */
#define ANIC_GRO_HEADERS_IPV4                                                                                \
	66 /* of each further packet of an aggregate of GRO: Ethernet, IP, TCP with timestamps */
#define ANIC_GRO_HEADERS_IPV6 86

/* Where a program runs. Constant in each, so that what it does not need is not there. */
enum anic_at {
	ANIC_AT_XDP,
	ANIC_AT_TC_IN,
	ANIC_AT_TC_OUT,
};
#define ANIC_DIRECTION(at) ((at) == ANIC_AT_TC_OUT ? ANIC_DIRECTION_OUT : ANIC_DIRECTION_IN)

/*
 * What becomes of one packet, or of one aggregate of GRO or before TSO. Words, not bytes: clang packs bytes
 * into one register, and Linux 6.1 then loses their bounds.
 */
struct anic_decision {
	__u32 reason;	  /* enum anic_reason */
	__u32 lane;	  /* id */
	__u32 service;	  /* id, or 0 */
	__u32 xsk;	  /* 1: it may take path B; the hook decides whether it can */
	__u32 cpu;	  /* plus 1: it goes to this CPU; 0: it stays */
	__u32 drop;	  /* 1: it ends here */
	__u64 state_word; /* of anic_state, as the packet met it */
	__u64 packets;
	__u64 bytes;
	__u64 departs_ns; /* at egress: not before this; 0: at once */
	const struct anic_lane *lane_at_egress;
	struct anic_counters *counters; /* of this CPU */
	struct anic_lane_count *count;	/* of its lane there */
};

/* The tenant of who sends, by mark or cgroup, or 0. */
static __noinline __u32 anic_find_sender(struct __sk_buff *skb, const struct anic_key *key, __u32 uses)
{
	struct anic_sender sender = { .kind = ANIC_SENDER_MARK, .id = key->mark };
	__u32 slot = key->generation % ANIC_SLOTS, *tenant;
	void *senders = bpf_map_lookup_elem(&anic_senders, &slot);
	const struct anic_policy *policy = bpf_map_lookup_elem(&anic_policies, &slot);
	int depth;

	if (!senders || !policy)
		return 0;
	if (uses & ANIC_USES_MARKS) {
		tenant = bpf_map_lookup_elem(senders, &sender);
		if (tenant)
			return *tenant;
	}
	if (!(uses & ANIC_USES_CGROUPS) || !key->cgroup)
		return 0;
	sender.kind = ANIC_SENDER_CGROUP;
	for (depth = ANIC_CGROUP_DEPTH_MAX; depth > 0; depth--) {
		if (!(policy->cgroup_depths >> depth & 1))
			continue;
		sender.id = bpf_skb_ancestor_cgroup_id(skb, depth);
		tenant = sender.id ? bpf_map_lookup_elem(senders, &sender) : NULL;
		if (tenant)
			return *tenant;
	}
	return 0;
}

/* The policy's verdict of a key that the cache does not have. It is kept in `set`. `skb`: at egress. */
static __noinline __u32 anic_miss(struct anic_flow_set *set, const struct anic_key *key, __u32 tag,
				  __u32 uses, struct __sk_buff *skb)
{
	__u32 sender = 0, verdict;

	if (skb && uses & (ANIC_USES_MARKS | ANIC_USES_CGROUPS))
		sender = anic_find_sender(skb, key, uses);
	verdict = anic_look_up(key, uses, sender);
	anic_flow_keep(set, key, tag, verdict);
	return verdict;
}

/*
 * The verdict of a key: of the cache, or of the policy. `ipv6` is what the key says, a constant where the
 * caller knows it: then a hit keeps the key in registers. `skb`: at egress, else NULL. `bucket`: of its flow,
 * for steering.
 */
static __always_inline __u32 anic_verdict(struct anic_key *key, int ipv6, const struct anic_state *state,
					  __u64 state_word, struct __sk_buff *skb, __u32 *bucket)
{
	__u32 uses = (__u32)(state_word >> 32), index, verdict, tag;
	struct anic_flow_set *set;
	struct anic_key missed;
	__u64 hash;

	if (skb) {
		key->word |= ANIC_KEY_WORD(0, 0, 0, ANIC_DIRECTION_OUT, 0);
		if (uses & ANIC_USES_MARKS)
			key->mark = skb->mark;
		if (uses & ANIC_USES_CGROUPS)
			key->cgroup = bpf_skb_cgroup_id(skb);
	}
	hash = anic_hash(key, state, ipv6, skb != NULL);
	*bucket = ANIC_FLOW_BUCKET(hash);
	index = ANIC_FLOW_SET(hash);
	tag = ANIC_FLOW_TAG(hash, (__u32)state_word);
	set = bpf_map_lookup_elem(&anic_flows, &index);
	if (!set)
		return ANIC_VERDICT_UNKNOWN(ANIC_REASON_PASS_DEFAULT); /* cannot be */
	verdict = anic_flow_find(set, key, tag, ipv6, skb != NULL);
	if (verdict)
		return verdict;
	missed = *key; /* a copy, so that the way of a hit has no use for the key in memory */
	missed.generation = (__u32)state_word;
	return anic_miss(set, &missed, tag, uses, skb);
}

/* Control traffic has a second of its own, whose packets are counted on all CPUs together. */
static __noinline int anic_count_control(__u32 generation, __u64 packets, __u64 now_ns)
{
	__u32 slot = generation % ANIC_SLOTS, zero = 0;
	struct anic_control *control = bpf_map_lookup_elem(&anic_control, &zero);
	const struct anic_policy *policy = bpf_map_lookup_elem(&anic_policies, &slot);
	__u64 second = now_ns / 1000000000, before;

	if (!control || !policy || !policy->control_alarm)
		return 0;
	if (control->second != second) { /* of several CPUs that come here at once, all begin anew: no harm */
		control->second = second;
		control->packets = 0;
	}
	before = __sync_fetch_and_add(&control->packets, packets);
	if (before <= policy->control_alarm && before + packets > policy->control_alarm) {
		__sync_fetch_and_add(&control->alarms, 1);
		control->last_alarm_s = second;
	}
	return 0;
}

/* anic_parse() as functions that are not static, as anic_look_up() is: see there. */
__weak __noinline int anic_parse_xdp(struct xdp_md *ctx, struct anic_pkt *pkt)
{
	if (pkt)
		anic_parse(pkt, (void *)(long)ctx->data, (void *)(long)ctx->data_end);
	return 0;
}

__weak __noinline int anic_parse_skb(struct __sk_buff *skb, struct anic_pkt *pkt)
{
	if (pkt)
		anic_parse(pkt, (void *)(long)skb->data, (void *)(long)skb->data_end);
	return 0;
}

/* The verdict of a packet that has no key, or 0. */
static __always_inline __u32 anic_unkeyed(const struct anic_pkt *pkt)
{
	if (pkt->kind == ANIC_KIND_NONE)
		return ANIC_VERDICT_UNKNOWN(ANIC_REASON_PASS_UNPARSED);
	if (anic_is_control(pkt))
		return ANIC_VERDICT_CONTROL;
	return pkt->ip_version ? 0 : ANIC_VERDICT_UNKNOWN(ANIC_REASON_PASS_DEFAULT);
}

/* What it takes on the link. */
static __always_inline __u64 anic_wire_bytes(const struct anic_decision *d, const struct __sk_buff *skb,
					     enum anic_at at)
{
	__u64 headers;

	if (at == ANIC_AT_XDP || d->packets == 1)
		return anic_max(d->bytes, ANIC_WIRE_FRAME_MIN) + ANIC_WIRE_EXTRA;
	if (at == ANIC_AT_TC_OUT) /* the kernel has worked out what TSO will make of it */
		return anic_max(skb->wire_len, d->bytes) + d->packets * ANIC_WIRE_EXTRA;
	headers = skb->protocol == bpf_htons(ETH_P_IPV6) ? ANIC_GRO_HEADERS_IPV6 : ANIC_GRO_HEADERS_IPV4;
	return d->bytes + (d->packets - 1) * headers + d->packets * ANIC_WIRE_EXTRA;
}

/* Charges the packet to its lane. */
static __always_inline void anic_charge(struct anic_decision *d, const struct __sk_buff *skb, enum anic_at at,
					__u64 state_word)
{
	__u32 index = ANIC_DIRECTION(at) * ANIC_LANES_MAX + d->lane,
	      policies = ANIC_STATE_POLICIES(state_word);
	__u64 wire = anic_wire_bytes(d, skb, at), lease = d->count->lease;

	if (at == ANIC_AT_TC_OUT && state_word >> 32 & ANIC_USES_FQ) {
		d->departs_ns = anic_pace(index, wire);
		d->drop = d->departs_ns == ANIC_REFUSED;
	} else if (lease >> 32 == policies && (__u32)lease >= wire) {
		d->count->lease = lease - wire;
		return;
	} else {
		lease = anic_lease(index, policies, lease, wire);
		d->drop = lease == ANIC_REFUSED;
		if (!d->drop)
			d->count->lease = lease;
	}
	if (d->drop)
		d->reason = ANIC_REASON_DROP_QUOTA;
}

/*
 * All but the hook's own: what the packet is, whose, and whether it may take path B. Counts it as seen. 0 if
 * there is nothing to count it in, which cannot be: then it passes.
 */
static __always_inline int anic_classify(struct anic_decision *d, void *ctx, enum anic_at at)
{
	struct __sk_buff *skb = ctx; /* at TC */
	struct xdp_md *xdp = ctx;
	const void *data = at == ANIC_AT_XDP ? (void *)(long)xdp->data : (void *)(long)skb->data;
	const void *end = at == ANIC_AT_XDP ? (void *)(long)xdp->data_end : (void *)(long)skb->data_end;
	__u32 zero = 0, cpu = bpf_get_smp_processor_id(), fragment = ANIC_FRAGMENT_NONE, verdict = 0,
	      bucket = 0;
	const struct anic_state *state = bpf_map_lookup_elem(&anic_state, &zero);
	struct anic_counters *counters = bpf_map_lookup_elem(&anic_counters, &cpu);
	const struct anic_lane *lane;
	struct __sk_buff *sender = at == ANIC_AT_TC_OUT ? skb : NULL;
	struct anic_pkt pkt, any;
	__u64 state_word;
	int keyed = 1;

	if (!state || !counters)
		return 0;
	state_word = ANIC_READ_ONCE(state->word); /* read once: a packet meets one policy */
	d->state_word = state_word;
	d->packets = at != ANIC_AT_XDP && skb->gso_segs ? skb->gso_segs : 1;
	d->bytes = at == ANIC_AT_XDP ? (__u64)(end - data) : skb->len;
	pkt.key = (struct anic_key){};
	if (anic_parse_plain_ipv4(&pkt, data, end)) {
		verdict = anic_verdict(&pkt.key, 0, state, state_word, sender, &bucket);
	} else if (anic_parse_plain_ipv6(&pkt, data, end)) {
		verdict = anic_verdict(&pkt.key, 1, state, state_word, sender, &bucket);
	} else {
		if (at != ANIC_AT_XDP && end - data < ANIC_HEADERS_MAX && end - data < skb->len)
			bpf_skb_pull_data(skb, skb->len < ANIC_HEADERS_MAX ? skb->len : ANIC_HEADERS_MAX);
		any = (struct anic_pkt){};
		if (at == ANIC_AT_XDP)
			anic_parse_xdp(xdp, &any);
		else
			anic_parse_skb(skb, &any);
		fragment = any.fragment;
		pkt.len = any.len ? any.len : ~0U;
		verdict = anic_unkeyed(&any);
		keyed = !verdict;
		if (keyed)
			verdict = anic_verdict(&any.key, any.ip_version == 6, state, state_word, sender,
					       &bucket);
	}
	/*
	 * An XDP frame of several buffers ends for data_end with its first. The call costs as much as the
	 * rest of a hit: only if the IP header says that there is more, or says nothing.
	 */
	if (at == ANIC_AT_XDP && pkt.len > d->bytes)
		d->bytes = bpf_xdp_get_buff_len(xdp);
	d->service = ANIC_VERDICT_SERVICE(verdict);
	d->lane = ANIC_VERDICT_LANE(verdict);
	d->reason = ANIC_VERDICT_REASON(verdict);
	d->xsk = 0;
	d->cpu = 0;
	if (d->lane >= ANIC_LANES_MAX)
		return 0;
	d->drop = 0;
	d->departs_ns = 0;
	d->counters = counters;
	d->count = &counters->lanes[ANIC_DIRECTION(at)][d->lane];
	d->count->seen += d->packets;
	if (d->lane == ANIC_LANE(0, ANIC_CLASS_CONTROL))
		anic_count_control((__u32)state_word, d->packets, ANIC_NOW_COARSE());
	else if (keyed) /* whatever keeps a link working, or is not understood, has no quota */
		anic_charge(d, skb, at, state_word);

	if (at == ANIC_AT_TC_OUT)
		d->lane_at_egress = keyed ? anic_lane_of((__u32)state_word, d->lane) : NULL;
	if (d->drop || at == ANIC_AT_TC_OUT)
		return 1;
	if (at == ANIC_AT_XDP && verdict & ANIC_VERDICT_SPREAD && fragment == ANIC_FRAGMENT_NONE &&
	    !anic_stays(d->lane, bucket, cpu)) {
		d->cpu = anic_steer(d->lane, bucket, cpu);
		if (d->cpu)
			return 1;
	}
	if (ANIC_VERDICT_REASON(verdict) != ANIC_REASON_REDIRECT_XSK)
		return 1;
	lane = anic_lane_of((__u32)state_word, d->lane);
	if (fragment != ANIC_FRAGMENT_NONE)
		d->reason = ANIC_REASON_PASS_FRAGMENT; /* an AF_XDP socket does not reassemble */
	else if (!lane || lane->path != ANIC_PATH_XSK)
		d->reason = ANIC_REASON_PASS_LANE;
	else if (at != ANIC_AT_XDP)
		d->reason = ANIC_REASON_PASS_NO_XDP;
	else
		d->xsk = 1;
	return 1;
}

/* Counts where the packet goes and returns the hook's verdict, whatever became of the counting. */
static __always_inline int anic_finish(int verdict, const struct anic_decision *d, enum anic_at at,
				       __u32 queue)
{
	struct anic_counters *c = d->counters;
	__u32 reason = ANIC_REASON_AT(d->reason), service = d->service;
	struct anic_count *count;

	if (reason >= ANIC_REASONS)
		return verdict; /* a bug, which shows: it was seen, and went nowhere */
	count = &d->count->by_reason[reason];
	count->packets += d->packets;
	count->bytes += d->bytes;
	if (queue >= ANIC_QUEUES_MAX)
		queue = ANIC_QUEUES_MAX - 1;
	c->queues[ANIC_DIRECTION(at)][queue].by_reason[reason] += d->packets;
	if (service >= ANIC_SERVICES_MAX)
		service = 0;
	count = &c->services[ANIC_DIRECTION(at)][service];
	count->packets += d->packets;
	count->bytes += d->bytes;
	return verdict;
}

#endif
