/* SPDX-License-Identifier: GPL-2.0-only */
/* One packet at XDP. */
#ifndef ANIC_XDP_BPF_H
#define ANIC_XDP_BPF_H

#include "turn.bpf.h"

static __always_inline int anic_run_xdp(struct xdp_md *ctx, struct anic_decision *d)
{
	int verdict = XDP_PASS;

	if (!anic_classify(d, ctx, ANIC_AT_XDP))
		return verdict;
	if (d->drop) {
		verdict = XDP_DROP;
	} else if (d->cpu) {
		verdict = anic_redirect_to(d->cpu);
		if (verdict == XDP_REDIRECT)
			d->reason = ANIC_REASON_REDIRECT_CPU;
	} else if (d->xsk) {
		verdict = bpf_redirect_map(&anic_xsks, ctx->rx_queue_index, XDP_PASS);
		d->reason = verdict == XDP_REDIRECT ? ANIC_REASON_REDIRECT_XSK : ANIC_REASON_PASS_NO_SOCKET;
	}
	if (!d->drop && d->reason != ANIC_REASON_REDIRECT_XSK)
		anic_turn(ctx, d, ANIC_AT_XDP);
	return anic_finish(verdict, d, ANIC_AT_XDP, ctx->rx_queue_index);
}

#endif
