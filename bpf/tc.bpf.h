/* SPDX-License-Identifier: GPL-2.0-only */
/* One packet, or one aggregate of GRO or before TSO, at TC. */
#ifndef ANIC_TC_BPF_H
#define ANIC_TC_BPF_H

#include "turn.bpf.h"

#include <linux/pkt_cls.h>

/* Writes a DSCP (RFC 2474) into the IP header, which up to two VLAN tags may stand before. */
static __noinline int anic_write_dscp(struct __sk_buff *skb, __u32 dscp)
{
	__u32 at = ETH_HLEN - sizeof(__be16);
	__be16 type = 0, word, old;
	int tags;

	for (tags = 0; tags <= ANIC_VLAN_TAGS_MAX; tags++) {
		if (bpf_skb_load_bytes(skb, at, &type, sizeof(type)))
			return 0;
		if (type != bpf_htons(ETH_P_8021Q) && type != bpf_htons(ETH_P_8021AD))
			break;
		at += 4;
	}
	at += sizeof(type);
	if (bpf_skb_load_bytes(skb, at, &old, sizeof(old)))
		return 0;
	if (type == bpf_htons(ETH_P_IP))
		word = (old & bpf_htons(0xff03)) | bpf_htons(dscp << 2);
	else if (type == bpf_htons(ETH_P_IPV6))
		word = (old & bpf_htons(0xf03f)) | bpf_htons(dscp << 6);
	else
		return 0;
	if (word == old)
		return 0;
	if (type == bpf_htons(ETH_P_IP) &&
	    bpf_l3_csum_replace(skb, at + offsetof(struct iphdr, check), old, word, sizeof(word)))
		return 0;
	return bpf_skb_store_bytes(skb, at, &word, sizeof(word), 0);
}

/* What the lane gives its packets for those who come after: qdiscs, the driver, the network. */
static __always_inline void anic_mark(struct __sk_buff *skb, const struct anic_lane *lane)
{
	if (lane->priority)
		skb->priority = lane->priority - 1;
	if (lane->queue)
		skb->queue_mapping = lane->queue; /* the queue plus 1, as the kernel keeps it */
	if (lane->dscp)
		anic_write_dscp(skb, lane->dscp - 1);
}

static __always_inline int anic_run_tc(struct __sk_buff *skb, enum anic_at at, struct anic_decision *d)
{
	__u32 queue = skb->queue_mapping;
	int verdict = TC_ACT_UNSPEC;

	if (!anic_classify(d, skb, at))
		return verdict;
	/* at ingress the kernel keeps the receive queue plus one, and 0 when it does not know it */
	if (at == ANIC_AT_TC_IN && queue)
		queue--;
	if (at == ANIC_AT_TC_OUT && !d->drop && d->lane_at_egress) {
		anic_mark(skb, d->lane_at_egress);
		if (d->lane_at_egress->queue)
			queue = d->lane_at_egress->queue - 1;
	}
	if (d->drop)
		verdict = TC_ACT_SHOT;
	else if (d->departs_ns >
		 skb->tstamp) /* fq keeps it until then; a time that TCP has set may be later */
		bpf_skb_set_tstamp(skb, d->departs_ns, BPF_SKB_TSTAMP_DELIVERY_MONO);
	if (!d->drop)
		anic_turn(skb, d, at);
	return anic_finish(verdict, d, at, queue);
}

#endif
