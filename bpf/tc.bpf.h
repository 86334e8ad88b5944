/* SPDX-License-Identifier: GPL-2.0-only */
/* One packet, or one aggregate of GRO or before TSO, at TC. */
#ifndef ANIC_TC_BPF_H
#define ANIC_TC_BPF_H

#include "classify.bpf.h"

#include <linux/pkt_cls.h>

static __always_inline int anic_run_tc(struct __sk_buff *skb, enum anic_at at, struct anic_decision *d)
{
	__u32 queue = skb->queue_mapping;

	if (!anic_classify(d, skb, at))
		return TC_ACT_UNSPEC;
	/* at ingress the kernel keeps the receive queue plus one, and 0 when it does not know it */
	if (at == ANIC_AT_TC_IN && queue)
		queue--;
	return anic_finish(TC_ACT_UNSPEC, d, at, queue);
}

#endif
