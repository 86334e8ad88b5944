// SPDX-License-Identifier: GPL-2.0-only
/*
 * Hooks: TC ingress, after GRO, in mode tc; TC egress, before TSO, in every mode. tcx, else clsact.
 * They classify, charge and count. They drop what is more than a quota, or give it a time to leave at where
 * fq is at the root, and let every other packet go on to the next program. At egress they set priority, queue
 * and DSCP where the policy says so. They never redirect: AF_XDP cannot be reached from here, so an xsk
 * service takes path A and is counted.
 */
#include "tc.bpf.h"

SEC("tcx/ingress")
int anic_tc_in(struct __sk_buff *skb)
{
	struct anic_decision d;

	return anic_run_tc(skb, ANIC_AT_TC_IN, &d);
}

SEC("tcx/egress")
int anic_tc_out(struct __sk_buff *skb)
{
	struct anic_decision d;

	return anic_run_tc(skb, ANIC_AT_TC_OUT, &d);
}
