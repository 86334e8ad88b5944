// SPDX-License-Identifier: GPL-2.0-only
/*
 * Hook: XDP at ingress, native or generic, alone or under libxdp's dispatcher.
 * It may pass a packet to the kernel (path A) or redirect it to the AF_XDP socket of its queue (path B).
 * It never drops and never writes to a packet.
 */
#include "classify.bpf.h"

#include <xdp/xdp_helpers.h>

/* Under the dispatcher: late, so that filters run first; whoever comes after sees what we pass. */
struct {
	__uint(priority, 60);
	__uint(XDP_PASS, 1);
} XDP_RUN_CONFIG(anic_xdp);

SEC("xdp")
int anic_xdp(struct xdp_md *ctx)
{
	const void *data = (const void *)(long)ctx->data;
	const void *end = (const void *)(long)ctx->data_end;
	int verdict = XDP_PASS;
	struct anic_decision d;
	struct anic_pkt pkt;

	anic_parse(&pkt, data, end);
	d = anic_decide(&pkt);
	if (d.xsk) {
		verdict = bpf_redirect_map(&anic_xsks, ctx->rx_queue_index, XDP_PASS);
		d.reason = verdict == XDP_REDIRECT ? ANIC_REASON_REDIRECT_XSK : ANIC_REASON_PASS_NO_SOCKET;
	}
	return anic_finish(verdict, d, 1, end - data);
}

char LICENSE[] SEC("license") = "GPL";
