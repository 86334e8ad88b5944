// SPDX-License-Identifier: GPL-2.0-only
/*
 * Hook: a port that several sockets share, one for each CPU. A packet goes to the socket of the CPU that it
 * is on, which is where the lane's steering table has put its flow. A CPU without a socket: as the kernel
 * hashes.
 */
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

#include "abi/steer.h"

struct {
	__uint(type, BPF_MAP_TYPE_REUSEPORT_SOCKARRAY);
	__uint(max_entries, ANIC_CPUS_MAX);
	__type(key, __u32);
	__type(value, __u64);
} anic_workers SEC(".maps");

SEC("sk_reuseport")
int anic_worker(struct sk_reuseport_md *md)
{
	__u32 here = bpf_get_smp_processor_id();

	bpf_sk_select_reuseport(md, &anic_workers, &here, 0);
	return SK_PASS;
}

char LICENSE[] SEC("license") = "GPL";
