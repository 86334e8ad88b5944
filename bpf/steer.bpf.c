// SPDX-License-Identifier: GPL-2.0-only
/*
 * Hook: the CPU that a packet was steered to, before the kernel makes an skb of it. It counts, and lets every
 * packet go on.
 */
#include "maps.bpf.h"

SEC("xdp.frags/cpumap")
int anic_arrive(struct xdp_md *ctx)
{
	__u32 here = bpf_get_smp_processor_id();
	struct anic_cpu *cpu = bpf_map_lookup_elem(&anic_cpus, &here);

	if (cpu)
		__sync_fetch_and_add(&cpu->arrived, 1);
	return XDP_PASS;
}
