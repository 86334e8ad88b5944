// SPDX-License-Identifier: GPL-2.0-only
/*
 * Not at any hook: what runs by itself, every ANIC_SHARE_NS, for as long as the maps are pinned, with all of
 * userspace dead. anic_start sets it going, and again with the programs of an upgrade.
 */
#include "turn.bpf.h"

#include <linux/errno.h>

#define CLOCK_MONOTONIC 1 /* linux/time.h, which redefines what libbpf's headers have */

struct anic_ticker {
	struct bpf_timer timer;
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct anic_ticker);
} anic_ticker SEC(".maps");

static int anic_tick(void *map, __u32 *key, struct anic_ticker *ticker)
{
	__u32 zero = 0;
	const struct anic_state *state = bpf_map_lookup_elem(&anic_state, &zero);
	__u64 now_ns = bpf_ktime_get_ns();

	if (state && (__u32)state->word) {
		anic_share_out(ANIC_DIRECTION_IN, (__u32)state->word, now_ns);
		anic_share_out(ANIC_DIRECTION_OUT, (__u32)state->word, now_ns);
		anic_turn_tick((__u32)state->word, now_ns);
		if (state->word >> 32 & ANIC_USES_CPUS)
			anic_settle_cpus();
	}
	bpf_timer_start(&ticker->timer, ANIC_SHARE_NS, 0);
	return 0;
}

/* 0, or -errno. */
SEC("syscall")
int anic_start(void *nothing)
{
	__u32 zero = 0;
	struct anic_ticker *ticker = bpf_map_lookup_elem(&anic_ticker, &zero);
	int code;

	if (!ticker)
		return -ENOENT;
	code = bpf_timer_init(&ticker->timer, &anic_ticker, CLOCK_MONOTONIC);
	if (code && code != -EBUSY) /* that it is initialised already */
		return code;
	code = bpf_timer_set_callback(&ticker->timer, anic_tick);
	return code ? code : bpf_timer_start(&ticker->timer, ANIC_SHARE_NS, 0);
}
