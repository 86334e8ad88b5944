// SPDX-License-Identifier: GPL-2.0-only
/*
 * Not at any hook: run by BPF_PROG_TEST_RUN for `make bench`, over the maps of a loaded instance.
 * The packet path on one flow after the other, or on drawn ones, and what choosing the flow costs without the
 * packet path.
 */
#include "../xdp.bpf.h"

#include <bpf/bpf_endian.h>

#include "abi/bench.h"

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct anic_bench);
} bench_setup SEC(".maps");

/* Makes an IPv4 packet without options that of the next flow: source 10.x.y.z and a port of its own. */
static __always_inline int bench_next_flow(struct xdp_md *ctx)
{
	unsigned char *data = (unsigned char *)(long)ctx->data;
	unsigned char *end = (unsigned char *)(long)ctx->data_end;
	__u32 zero = 0, flow, *ports;
	__u64 *addresses;
	struct anic_bench *setup = bpf_map_lookup_elem(&bench_setup, &zero);

	if (!setup || data + ETH_HLEN + sizeof(struct iphdr) + sizeof(struct udphdr) > end)
		return -1;
	if (setup->random) {
		/* the high half of the product: as even as a remainder, and a division cheaper */
		flow = (__u32)((__u64)bpf_get_prandom_u32() * setup->flows >> 32);
	} else {
		flow = setup->next;
		setup->next = flow + 1 < setup->flows ? flow + 1 : 0;
	}
	flow += setup->base;
	/*
	 * In the widths that the parser reads: a load of more than the last store wrote waits until that is
	 * in the cache, which no packet from a device does.
	 */
	addresses = (__u64 *)(data + ETH_HLEN + 12);
	*addresses = (*addresses & ~0xffffffffULL) | bpf_htonl(0x0a000000 | (flow & (setup->peers - 1)));
	ports = (__u32 *)(data + ETH_HLEN + sizeof(struct iphdr));
	*ports = (*ports & ~0xffffU) | bpf_htons(1024 + ((flow ^ flow >> 10) & 0x3fff));
	return 0;
}

SEC("xdp.frags")
int bench_flows(struct xdp_md *ctx)
{
	struct anic_decision d;

	return bench_next_flow(ctx) ? XDP_ABORTED : anic_run_xdp(ctx, &d);
}

SEC("xdp.frags")
int bench_noop(struct xdp_md *ctx)
{
	return bench_next_flow(ctx) ? XDP_ABORTED : XDP_PASS;
}

char LICENSE[] SEC("license") = "GPL";
