// SPDX-License-Identifier: GPL-2.0-only
/*
 * Hook: XDP at ingress, native or generic, alone or under libxdp's dispatcher.
 * It may pass a packet to the kernel (path A) or redirect it to the AF_XDP socket of its queue (path B).
 * It drops what is more than a quota and nothing else, and never writes to a packet.
 */
#include "xdp.bpf.h"

#include <xdp/xdp_helpers.h>

/* Under the dispatcher: late, so that filters run first; whoever comes after sees what we pass. */
struct {
	__uint(priority, 60);
	__uint(XDP_PASS, 1);
} XDP_RUN_CONFIG(anic_xdp);

SEC("xdp.frags")
int anic_xdp(struct xdp_md *ctx)
{
	struct anic_decision d;

	return anic_run_xdp(ctx, &d);
}

char LICENSE[] SEC("license") = "GPL";
