/* SPDX-License-Identifier: GPL-2.0-only */
/* One packet, or one aggregate of GRO or before TSO, at TC. */
#ifndef ANIC_TC_BPF_H
#define ANIC_TC_BPF_H

#include "classify.bpf.h"

#include <linux/pkt_cls.h>

static __always_inline int anic_run_tc(struct __sk_buff *skb, enum anic_at at, struct anic_decision *d)
{
	__u32 queue = skb->queue_mapping;
	int verdict = TC_ACT_UNSPEC;

	if (!anic_classify(d, skb, at))
		return verdict;
	/* at ingress the kernel keeps the receive queue plus one, and 0 when it does not know it */
	if (at == ANIC_AT_TC_IN && queue)
		queue--;
	if (d->drop)
		verdict = TC_ACT_SHOT;
	else if (d->departs_ns >
		 skb->tstamp) /* fq keeps it until then; a time that TCP has set may be later */
		bpf_skb_set_tstamp(skb, d->departs_ns, BPF_SKB_TSTAMP_DELIVERY_MONO);
	return anic_finish(verdict, d, at, queue);
}

#endif
