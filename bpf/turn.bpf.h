/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Turnaround: samples of how long answers take (docs/turnaround.md; shapes in abi/turn.h). A packet reads
 * one cache line of its lane, and does no more unless its lane wants to begin a sample or waits for an
 * answer. Nothing here changes what becomes of a packet.
 *
 * A slot belongs to whoever puts ANIC_TURN_BUSY in place of its flow, and until he puts a flow there again,
 * or none.
 */
#ifndef ANIC_TURN_BPF_H
#define ANIC_TURN_BPF_H

#include "classify.bpf.h"

/* RFC 9293, 3.1: bits of the header's fourteenth byte. */
#define ANIC_TCP_SYN 0x02
#define ANIC_TCP_RST 0x04
#define ANIC_TCP_PSH 0x08

/* A packet that may begin or end a sample. Words, for the reason given at struct anic_decision. */
struct anic_turn_packet {
	__u32 lane;
	__u32 service;
	__u64 state_word; /* of anic_state, as the packet met it */
	__u32 direction;
	__u32 wanted; /* 1: it may begin a sample */
	__u64 bytes;  /* of the frame */
	__u64 departs_ns;
	/* found by looking at it: */
	__u64 flow;
	__u32 request; /* 1: towards the service; 0: from it */
	__u32 tcp;     /* 1: the rest is valid */
	__u32 seq;
	__u32 end; /* the sequence number after its data */
	__u32 ack;
	__u32 push;    /* 1: the sender had no more to send */
	__u32 resent;  /* 1: at egress, a retransmission */
	__u32 srtt_us; /* at egress, or 0 */
};

/* What the packets of a slot's flow make of it. */
enum anic_turn_outcome {
	ANIC_TURN_GOES_ON,
	ANIC_TURN_ANSWERED,
	ANIC_TURN_UNCLEAR,
	ANIC_TURN_ANEW, /* the request before was missed */
};

static __always_inline struct anic_turn_lane *anic_turn_of(__u32 lane)
{
	return bpf_map_lookup_elem(&anic_turns, &lane);
}

static __always_inline int anic_turn_own(struct anic_turn_slot *slot, __u64 flow)
{
	return __sync_val_compare_and_swap(&slot->flow, flow, ANIC_TURN_BUSY) == flow;
}

static __always_inline void anic_turn_let_go(struct anic_turn_slot *slot, __u64 flow)
{
	__sync_lock_test_and_set(&slot->flow, flow);
}

/* --- what a packet is --- */

static __always_inline __u64 anic_turn_end_hash(const struct anic_state *state, __u64 a, __u64 b,
						__u32 port_be, __u32 protocol)
{
	const __u32 *k = state->hash_keys;
	__u64 h = ANIC_HASH_PAIR(a, a >> 32, &k[0]) + ANIC_HASH_PAIR(b, b >> 32, &k[2]) +
		  ANIC_HASH_PAIR(port_be, protocol, &k[4]);

	return (h ^ h >> 32) * state->hash_factor;
}

/*
 * anic_hash() of each end; their sum is the same either way. Of consecutive ports it is a sequence of equal
 * steps, which under some keys leaves slots out: hence the last two multiplications.
 */
static __always_inline __u64 anic_turn_flow(const struct anic_state *state, const struct anic_key *key)
{
	__u32 ports_be = ANIC_KEY_PORTS_BE(key->word), protocol = ANIC_KEY_PROTOCOL(key->word);
	const __u64 *a = key->addresses_be;
	__u64 flow;

	if (ANIC_KEY_FLAGS(key->word) & ANIC_KEY_IPV6)
		flow = anic_turn_end_hash(state, a[0], a[1], ports_be & 0xffff, protocol) +
		       anic_turn_end_hash(state, a[2], a[3], ports_be >> 16, protocol);
	else
		flow = anic_turn_end_hash(state, (__u32)a[0], 0, ports_be & 0xffff, protocol) +
		       anic_turn_end_hash(state, a[0] >> 32, 0, ports_be >> 16, protocol);
	flow = (flow ^ flow >> 32) * state->hash_factor;
	flow = (flow ^ flow >> 32) * state->hash_factor;
	return flow > ANIC_TURN_BUSY ? flow : flow + 2;
}

/* Whether a packet of this service goes to it: 1, or 0. */
static __always_inline __u32 anic_turn_is_request(const struct anic_service *service,
						  const struct anic_key *key, __u32 direction, __u32 uses)
{
	__u32 local_is_dst = (direction == ANIC_DIRECTION_IN) == !(uses & ANIC_FACES_WORKLOAD);

	if (service->role == ANIC_ROLE_SERVER)
		return local_is_dst;
	if (service->role == ANIC_ROLE_CLIENT)
		return !local_is_dst;
	return (__u16)bpf_ntohl(ANIC_KEY_PORTS_BE(key->word)) == service->port;
}

/* anic_parse() of most packets, as far as it is needed here. 0 for all others. */
static __always_inline int anic_turn_parse_plain(struct anic_pkt *pkt, const void *data, const void *end)
{
	if (anic_parse_plain_ipv4(pkt, data, end))
		pkt->l4_off = ETH_HLEN + sizeof(struct iphdr);
	else if (anic_parse_plain_ipv6(pkt, data, end))
		pkt->l4_off = ETH_HLEN + sizeof(struct ipv6hdr);
	else
		return 0;
	return 1;
}

/* The flow, and which way. 0 for what is no request and no answer. */
static __noinline int anic_turn_place(struct anic_turn_packet *p, const struct anic_pkt *pkt)
{
	__u32 index = (__u32)p->state_word % ANIC_SLOTS * ANIC_SERVICES_MAX + p->service, zero = 0;
	const struct anic_service *service = bpf_map_lookup_elem(&anic_services, &index);
	const struct anic_state *state = bpf_map_lookup_elem(&anic_state, &zero);

	if (!service || !state || !pkt->l4_off || p->service >= ANIC_SERVICES_MAX)
		return 0;
	p->request = anic_turn_is_request(service, &pkt->key, p->direction, (__u32)(p->state_word >> 32));
	p->flow = anic_turn_flow(state, &pkt->key);
	p->tcp = ANIC_KEY_PROTOCOL(pkt->key.word) == IPPROTO_TCP;
	return 1;
}

/* 0 for what has no data, or belongs to no request: SYN (with the data of TCP Fast Open, too) and RST. */
static __always_inline int anic_turn_read_tcp(struct anic_turn_packet *p, const struct anic_pkt *pkt,
					      const void *data, const void *end)
{
	__u32 off = pkt->l4_off, flags;
	__u64 before, whole = pkt->len ? pkt->len : p->bytes; /* of the IP packet: frames are padded */
	const struct tcphdr *tcp;

	if (off > ANIC_IPV6_EXTENSIONS_LEN_MAX * 2) /* within bounds that the verifier can follow */
		return 0;
	tcp = data + off;
	if ((const void *)(tcp + 1) > end)
		return 0;
	flags = ((const __u8 *)tcp)[13];
	before = off + (((const __u8 *)tcp)[12] >> 4) * 4;
	if (flags & (ANIC_TCP_SYN | ANIC_TCP_RST) || whole <= before)
		return 0;
	p->push = !!(flags & ANIC_TCP_PSH);
	p->seq = bpf_ntohl(tcp->seq);
	p->ack = bpf_ntohl(tcp->ack_seq);
	p->end = p->seq + (__u32)(whole - before);
	return 1;
}

/* What TCP knows of a packet that this host sends: nothing if it only forwards it. */
static __always_inline void anic_turn_ask_tcp(struct anic_turn_packet *p, struct __sk_buff *skb)
{
	struct bpf_sock *sk = skb->sk;
	struct bpf_tcp_sock *tcp = sk ? bpf_tcp_sock(sk) : NULL;

	if (!tcp)
		return;
	p->resent = (__s32)(p->seq - tcp->snd_nxt) < 0; /* it moves when new data has passed here */
	p->srtt_us = tcp->srtt_us >> 3;			/* the kernel keeps eight times that */
}

/* --- samples --- */

static __always_inline __u32 anic_turn_bucket(__u64 ns)
{
	__u64 units = ns >> ANIC_TURN_UNIT_LOG2;
	__u32 v, rest, log2 = 0;

	if (units >> ANIC_TURN_TOP_LOG2)
		return ANIC_TURN_BUCKETS - 1;
	v = rest = (__u32)units;
	if (v < ANIC_TURN_PARTS)
		return v;
	if (rest >> 16) {
		log2 += 16;
		rest >>= 16;
	}
	if (rest >> 8) {
		log2 += 8;
		rest >>= 8;
	}
	if (rest >> 4) {
		log2 += 4;
		rest >>= 4;
	}
	if (rest >> 2) {
		log2 += 2;
		rest >>= 2;
	}
	log2 += rest >> 1;
	log2 -= ANIC_TURN_PARTS_LOG2;
	return log2 * ANIC_TURN_PARTS + (v >> (log2 & 31));
}

static __always_inline void anic_turn_add_srtt(struct anic_turn_lane *turn, const struct anic_turn_packet *p)
{
	if (!p->srtt_us)
		return;
	__sync_fetch_and_add(&turn->srtt_us_sum, p->srtt_us);
	__sync_fetch_and_add(&turn->srtt_count, 1);
}

/* An answer to what was asked at `asked_ns`: it is there when it may leave. */
static __always_inline void anic_turn_sample(struct anic_turn_lane *turn, const struct anic_turn_packet *p,
					     __u64 asked_ns, __u32 missed)
{
	__u64 ends_ns = anic_max(ANIC_NOW(), p->departs_ns);
	__u64 ns = ends_ns > asked_ns ? ends_ns - asked_ns : 0;
	const struct anic_lane *lane = anic_lane_of((__u32)p->state_word, p->lane);
	__u32 bucket = anic_turn_bucket(ns);

	if (bucket >= ANIC_TURN_BUCKETS)
		return;
	__sync_fetch_and_add(&turn->histogram[bucket], 1);
	anic_turn_add_srtt(turn, p);
	if (missed)
		return; /* counted when it was */
	__sync_fetch_and_add(&turn->samples, 1);
	if (lane && lane->slo_ns && ns > lane->slo_ns)
		__sync_fetch_and_add(&turn->over_slo, 1);
}

/* Whether it may begin a sample. Of a request of several segments, only the last says so. */
static __always_inline int anic_turn_begins(const struct anic_turn_packet *p)
{
	return p->wanted && p->request && (!p->tcp || (p->push && !p->resent));
}

static __always_inline void anic_turn_fill(struct anic_turn_slot *slot, const struct anic_turn_packet *p)
{
	slot->asked_ns = ANIC_NOW();
	slot->end = p->end;
	slot->ack = p->ack;
	slot->state = ANIC_TURN_WAITING;
}

/* What a packet of its flow says about a request. */
static __always_inline enum anic_turn_outcome anic_turn_judge(const struct anic_turn_slot *slot,
							      const struct anic_turn_packet *p)
{
	int missed = slot->state == ANIC_TURN_MISSED;

	if (p->request) {
		if (p->tcp && (__s32)(p->end - slot->end) <= 0)
			return ANIC_TURN_GOES_ON; /* sent again, or overtaken */
		return missed ? ANIC_TURN_ANEW : ANIC_TURN_UNCLEAR;
	}
	if (!p->tcp)
		return ANIC_TURN_ANSWERED;
	if ((__s32)(p->end - slot->ack) <= 0)
		return ANIC_TURN_GOES_ON; /* of an answer before */
	/* else the server was sending already, or sends again what the client did not have when it asked */
	return p->seq == slot->ack && (__s32)(p->ack - slot->end) >= 0 && !p->resent ? ANIC_TURN_ANSWERED
										     : ANIC_TURN_UNCLEAR;
}

/* A packet of the flow that has the slot. */
static __always_inline void anic_turn_meet(struct anic_turn_lane *turn, struct anic_turn_slot *slot,
					   const struct anic_turn_packet *p)
{
	enum anic_turn_outcome outcome;
	__u64 next = ANIC_TURN_FREE;

	if (!anic_turn_own(slot, p->flow))
		return;
	outcome = anic_turn_judge(slot, p);
	if (outcome == ANIC_TURN_ANSWERED) {
		anic_turn_sample(turn, p, slot->asked_ns, slot->state == ANIC_TURN_MISSED);
	} else if (outcome == ANIC_TURN_UNCLEAR) {
		if (slot->state == ANIC_TURN_WAITING)
			__sync_fetch_and_add(&turn->ambiguous, 1);
		slot->asked_ns = ANIC_NOW();
		slot->state = ANIC_TURN_LEFT_OUT;
		next = p->flow;
	} else if (outcome == ANIC_TURN_GOES_ON) {
		anic_turn_let_go(slot, p->flow);
		return;
	} else if (anic_turn_begins(p)) {
		anic_turn_fill(slot, p);
		anic_turn_add_srtt(turn, p);
		anic_turn_let_go(slot, p->flow);
		return;
	}
	anic_turn_let_go(slot, next);
	__sync_fetch_and_sub(&turn->outstanding, 1);
}

/* A packet that may begin a sample, and a slot in which nobody waits: free, or of a flow that is left out. */
static __always_inline void anic_turn_begin(struct anic_turn_lane *turn, struct anic_turn_slot *slot,
					    const struct anic_turn_packet *p, __u64 there)
{
	if (!anic_turn_own(slot, there))
		return;
	if (there != ANIC_TURN_FREE &&
	    (slot->state != ANIC_TURN_LEFT_OUT || ANIC_NOW() - slot->asked_ns < ANIC_TURN_LEFT_OUT_NS)) {
		anic_turn_let_go(slot, there);
		return;
	}
	anic_turn_fill(slot, p);
	anic_turn_add_srtt(turn, p);
	__sync_fetch_and_add(&turn->outstanding, 1);
	anic_turn_let_go(slot, p->flow);
}

/* What a packet with data, whose flow is known, means to its lane's samples. */
__weak __noinline int anic_turn_note(const struct anic_turn_packet *p)
{
	struct anic_turn_lane *turn;
	struct anic_turn_slot *slot;
	__u64 there;
	__u32 state;

	if (!p)
		return 0;
	turn = anic_turn_of(p->lane);
	if (!turn)
		return 0;
	slot = &turn->slots[p->flow >> (64 - ANIC_TURN_SLOTS_LOG2)];
	there = ANIC_READ_ONCE(slot->flow);
	state = ANIC_READ_ONCE(slot->state);
	if (there == p->flow && state != ANIC_TURN_LEFT_OUT)
		anic_turn_meet(turn, slot, p);
	else if (there != ANIC_TURN_BUSY && (there == ANIC_TURN_FREE || state == ANIC_TURN_LEFT_OUT) &&
		 anic_turn_begins(p))
		anic_turn_begin(turn, slot, p, there);
	return 0;
}

/* Functions that are not static are checked by themselves: see anic_look_up(). */
__weak __noinline int anic_turn_xdp(struct xdp_md *ctx, struct anic_turn_packet *p)
{
	struct anic_pkt pkt = {};

	if (!p)
		return 0;
	if (!anic_turn_parse_plain(&pkt, (void *)(long)ctx->data, (void *)(long)ctx->data_end))
		anic_parse_xdp(ctx, &pkt);
	if (!anic_turn_place(p, &pkt))
		return 0;
	if (p->tcp && !anic_turn_read_tcp(p, &pkt, (void *)(long)ctx->data, (void *)(long)ctx->data_end))
		return 0;
	return anic_turn_note(p);
}

__weak __noinline int anic_turn_skb(struct __sk_buff *skb, struct anic_turn_packet *p)
{
	struct anic_pkt pkt = {};

	if (!p)
		return 0;
	if (!anic_turn_parse_plain(&pkt, (void *)(long)skb->data, (void *)(long)skb->data_end))
		anic_parse_skb(skb, &pkt);
	if (!anic_turn_place(p, &pkt))
		return 0;
	if (p->tcp) {
		if (!anic_turn_read_tcp(p, &pkt, (void *)(long)skb->data, (void *)(long)skb->data_end))
			return 0;
		if (p->direction == ANIC_DIRECTION_OUT)
			anic_turn_ask_tcp(p, skb);
	}
	return anic_turn_note(p);
}

/* Of a packet that goes on to the kernel, or to the network. */
static __always_inline void anic_turn(void *ctx, const struct anic_decision *d, enum anic_at at)
{
	__u32 lane = d->lane, direction = ANIC_DIRECTION(at);
	struct anic_turn_packet p;
	struct anic_turn_lane *turn;
	__u32 wanted;

	if (!d->service)
		return;
	turn = bpf_map_lookup_elem(&anic_turns, &lane);
	if (!turn)
		return;
	wanted = ANIC_READ_ONCE(turn->wanted[direction]);
	if (!(wanted | ANIC_READ_ONCE(turn->outstanding)))
		return;
	if (wanted) /* whatever it is, so that the cost has a bound; of two CPUs at once one may go unnoticed
		     */
		turn->wanted[direction] = wanted - 1;
	p = (struct anic_turn_packet){
		.lane = lane,
		.service = d->service,
		.state_word = d->state_word,
		.direction = direction,
		.wanted = !!wanted,
		.bytes = d->bytes,
		.departs_ns = d->departs_ns,
	};
	if (at == ANIC_AT_XDP)
		anic_turn_xdp(ctx, &p);
	else
		anic_turn_skb(ctx, &p);
}

/* --- the tick --- */

struct anic_turn_round {
	__u64 now_ns;
	__u32 generation;
	__u32 _pad;
};

/* Looks after one request: is it missed, and is it waited for no longer? */
static __always_inline void anic_turn_look_after(struct anic_turn_lane *turn, struct anic_turn_slot *slot,
						 __u64 slo_ns, __u64 now_ns)
{
	__u64 flow = ANIC_READ_ONCE(slot->flow), limit = slo_ns ? slo_ns : ANIC_TURN_GIVE_UP_NS, next = flow;

	if (flow <= ANIC_TURN_BUSY || ANIC_READ_ONCE(slot->state) == ANIC_TURN_LEFT_OUT ||
	    (__s64)(now_ns - ANIC_READ_ONCE(slot->asked_ns)) <= (__s64)limit || !anic_turn_own(slot, flow))
		return;
	/* it may have changed before it was ours */
	if ((__s64)(now_ns - slot->asked_ns) > (__s64)limit) {
		if (slot->state == ANIC_TURN_WAITING) {
			slot->state = ANIC_TURN_MISSED;
			__sync_fetch_and_add(&turn->samples, 1);
			__sync_fetch_and_add(&turn->misses, 1);
			if (slo_ns)
				__sync_fetch_and_add(&turn->over_slo, 1);
		}
		if (slot->state == ANIC_TURN_MISSED &&
		    (__s64)(now_ns - slot->asked_ns) > (__s64)(limit + ANIC_TURN_KEEP_NS))
			next = ANIC_TURN_FREE;
	}
	anic_turn_let_go(slot, next);
	if (next == ANIC_TURN_FREE)
		__sync_fetch_and_sub(&turn->outstanding, 1);
}

/* Looks after all requests of a lane. */
__weak __noinline int anic_turn_look_round(__u32 id, __u32 generation, __u64 now_ns)
{
	struct anic_turn_lane *turn = anic_turn_of(id);
	const struct anic_lane *lane = anic_lane_of(generation, id);
	int i;

	for (i = 0; turn && lane && i < ANIC_TURN_SLOTS; i++)
		anic_turn_look_after(turn, &turn->slots[i], lane->slo_ns, now_ns);
	return 0;
}

/* All classes at a time: a call for each lane would cost more than what it does. */
static int anic_turn_renew(__u32 tenant, void *context)
{
	const struct anic_turn_round *round = context;
	struct anic_turn_lane *turn;
	__u32 cls;

	for (cls = ANIC_CLASS_CONTROL; cls < ANIC_CLASS__MAX; cls++) {
		turn = anic_turn_of(ANIC_LANE(tenant, cls));
		if (!turn)
			return 1;
		/* written only if it changes: packets of other CPUs read this line */
		if (turn->wanted[ANIC_DIRECTION_IN] != ANIC_TURN_WANTED)
			turn->wanted[ANIC_DIRECTION_IN] = ANIC_TURN_WANTED;
		if (turn->wanted[ANIC_DIRECTION_OUT] != ANIC_TURN_WANTED)
			turn->wanted[ANIC_DIRECTION_OUT] = ANIC_TURN_WANTED;
		if (turn->outstanding)
			anic_turn_look_round(ANIC_LANE(tenant, cls), round->generation, round->now_ns);
	}
	return 0;
}

/* Lets every lane begin samples again, and counts the requests that had no answer in time. */
__weak __noinline int anic_turn_tick(__u32 generation, __u64 now_ns)
{
	struct anic_turn_round round = { .now_ns = now_ns, .generation = generation };

	bpf_loop(ANIC_TENANTS_MAX, anic_turn_renew, &round, 0);
	return 0;
}

/* --- what anic_commit does to a lane that another tenant has from now on --- */

static int anic_turn_clear_word(__u32 i, void *context)
{
	struct anic_turn_lane *turn = anic_turn_of(*(__u32 *)context);
	__u64 *words;

	if (!turn || i >= (sizeof(*turn) - offsetof(struct anic_turn_lane, samples)) / sizeof(__u64))
		return 1;
	words = (void *)turn + offsetof(struct anic_turn_lane, samples);
	words[i] = 0;
	return 0;
}

static __always_inline int anic_turn_clear(__u32 id)
{
	struct anic_turn_lane *turn = anic_turn_of(id);
	struct anic_turn_slot *slot;
	__u64 flow;
	int i;

	if (!turn)
		return 0;
	for (i = 0; i < ANIC_TURN_SLOTS; i++) {
		slot = &turn->slots[i];
		flow = ANIC_READ_ONCE(slot->flow);
		if (flow <= ANIC_TURN_BUSY || !anic_turn_own(slot, flow))
			continue; /* what is busy at this moment may last until its answer */
		if (slot->state != ANIC_TURN_LEFT_OUT)
			__sync_fetch_and_sub(&turn->outstanding, 1);
		anic_turn_let_go(slot, ANIC_TURN_FREE);
	}
	bpf_loop(sizeof(*turn) / sizeof(__u64), anic_turn_clear_word, &id, 0);
	return 0;
}

#endif
