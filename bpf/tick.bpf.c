// SPDX-License-Identifier: GPL-2.0-only
/*
 * Not at any hook: what runs by itself, at every tick, for as long as the maps are pinned, with all of
 * userspace dead. anic_start sets it going, and again with the programs of an upgrade.
 */
#include "watch.bpf.h"

#define CLOCK_MONOTONIC 1 /* linux/time.h, which redefines what libbpf's headers have */

struct anic_ticker {
	struct bpf_timer timer;
	__u64 full_ns; /* when all that a tick does was last done */
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct anic_ticker);
} anic_ticker SEC(".maps");

/* Until the next one. */
static __always_inline __u64 anic_tick_ns(void)
{
	const struct anic_state *state = anic_state_of();
	const struct anic_guarding *guarding = state ? anic_guarding_of((__u32)state->word) : NULL;
	__u64 tick_ns = guarding ? guarding->envelope.tick_ns : 0;

	return tick_ns ? tick_ns : ANIC_SHARE_NS;
}

static int anic_tick(void *map, __u32 *key, struct anic_ticker *ticker)
{
	__u64 now_ns = bpf_ktime_get_ns(), tick_ns = anic_tick_ns();
	int code;

	/* what the guardian's lock is in the way of is tried again soon, and holds up nothing else */
	if (now_ns - ticker->full_ns < tick_ns) {
		code = anic_guard_tick(0);
	} else {
		code = anic_tick_at(0);
		ticker->full_ns = now_ns;
	}
	bpf_timer_start(&ticker->timer, code == -EBUSY ? ANIC_LOCK_RETRY_NS : tick_ns, 0);
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
	return code ? code : bpf_timer_start(&ticker->timer, anic_tick_ns(), 0);
}
