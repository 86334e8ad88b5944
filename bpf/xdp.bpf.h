/* SPDX-License-Identifier: GPL-2.0-only */
/* One packet at XDP. */
#ifndef ANIC_XDP_BPF_H
#define ANIC_XDP_BPF_H

#include "owner.bpf.h"
#include "turn.bpf.h"

/* Of the last tick. */
static __always_inline __u64 anic_tick_time(void)
{
	__u32 zero = 0;
	const struct anic_state *state = bpf_map_lookup_elem(&anic_state, &zero);

	return state ? ANIC_READ_ONCE(state->tick_ns) : 0;
}

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
		verdict = anic_to_owner(ctx, anic_tick_time(), &d->reason);
	}
	if (!d->drop && d->reason != ANIC_REASON_REDIRECT_XSK)
		anic_turn(ctx, d, ANIC_AT_XDP);
	return anic_finish(verdict, d, ANIC_AT_XDP, ctx->rx_queue_index);
}

#endif
