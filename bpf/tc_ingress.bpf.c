// SPDX-License-Identifier: GPL-2.0-only
/*
 * Hook: TC ingress (tcx), after GRO.
 * It classifies and counts, and lets every packet go on to the next program. It never drops, redirects or
 * writes to a packet: AF_XDP cannot be reached from here, so an xsk service takes path A and is counted.
 */
#include "classify.bpf.h"

#include <linux/pkt_cls.h>

#define ANIC_HEADERS_MAX 128 /* Ethernet, VLAN, IPv4 with all options, TCP */

SEC("tcx/ingress")
int anic_tc(struct __sk_buff *skb)
{
	struct anic_decision d;
	struct anic_pkt pkt;

	anic_parse(&pkt, (const void *)(long)skb->data, (const void *)(long)skb->data_end);
	if (pkt.kind == ANIC_KIND_NONE && skb->data_end - skb->data < skb->len) {
		/* headers beyond the linear part; on failure the first parse stands */
		if (!bpf_skb_pull_data(skb, skb->len < ANIC_HEADERS_MAX ? skb->len : ANIC_HEADERS_MAX))
			anic_parse(&pkt, (const void *)(long)skb->data, (const void *)(long)skb->data_end);
	}
	d = anic_decide(&pkt);
	if (d.xsk)
		d.reason = ANIC_REASON_PASS_NO_XDP;
	return anic_finish(TC_ACT_UNSPEC, d, skb->gso_segs ? skb->gso_segs : 1, skb->len);
}
