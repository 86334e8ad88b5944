/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Steering to CPUs, from XDP, by cpumap. A bucket goes to another CPU only when its packets have arrived at
 * the one before, or after a while: so that those of a flow keep their order.
 */
#ifndef ANIC_STEER_BPF_H
#define ANIC_STEER_BPF_H

#include "quota.bpf.h"

static __always_inline struct anic_cpu *anic_cpu_of(__u32 cpu)
{
	return bpf_map_lookup_elem(&anic_cpus, &cpu);
}

/* Whether the packet with this number, and all before it, are off the queue of a CPU. */
static __always_inline int anic_has_arrived(const struct anic_cpu *cpu, __u32 number)
{
	__u64 done = ANIC_READ_ONCE(cpu->arrived) + ANIC_READ_ONCE(cpu->lost);

	return (__s64)(ANIC_READ_ONCE(cpu->sent) - done) <= 0 ||
	       (__s32)((__u32)done - number - ANIC_STEER_MARGIN) >= 0;
}

/*
 * The bucket's last word when it is to move from a CPU whose queue may still hold packets of it: with the
 * time since which it waits, or 0 if it goes now.
 */
static __noinline __u64 anic_wait_to_move(__u64 last)
{
	struct anic_cpu *from = anic_cpu_of(ANIC_STEERED_CPU(last) - 1);
	__u16 since = ANIC_STEERED_SINCE(last), now;

	if (!from)
		return 0;
	if (anic_has_arrived(from, ANIC_STEERED_NUMBER(last))) {
		__sync_fetch_and_add(&from->moved, 1);
		return 0;
	}
	now = (ANIC_NOW_COARSE() >> ANIC_STEER_TIME_LOG2) | 1; /* never 0 */
	if (!since)
		since = now;
	if ((__u16)(now - since) > ANIC_STEER_WAIT) {
		__sync_fetch_and_add(&from->moved_early, 1);
		return 0;
	}
	return ANIC_STEERED(ANIC_STEERED_CPU(last), since, 0);
}

/* Whether a packet of this bucket, with those before it, is where it belongs: most are. */
static __always_inline int anic_stays(__u32 lane, __u32 bucket, __u32 here)
{
	const struct anic_steering *steering = bpf_map_lookup_elem(&anic_steering, &lane);
	__u32 to;

	if (!steering)
		return 1;
	to = ANIC_READ_ONCE(steering->to.cpu[bucket]);
	return (!to || to == here + 1) && !ANIC_READ_ONCE(steering->last[bucket]);
}

/* The CPU that a packet of this bucket goes to, plus 1; 0: it stays `here`. Counts it as sent. */
__weak __noinline __u32 anic_steer(__u32 lane, __u32 bucket, __u32 here)
{
	struct anic_steering *steering = bpf_map_lookup_elem(&anic_steering, &lane);
	struct anic_cpu *cpu;
	__u64 last, waits = 0;
	__u32 to;

	if (!steering)
		return 0;
	bucket &= ANIC_STEER_BUCKETS - 1;
	to = ANIC_READ_ONCE(steering->to.cpu[bucket]);
	last = ANIC_READ_ONCE(steering->last[bucket]);
	if (to == here + 1)
		to = 0;
	if (last && ANIC_STEERED_CPU(last) != to)
		waits = anic_wait_to_move(last);
	if (waits)
		to = ANIC_STEERED_CPU(waits);
	cpu = to ? anic_cpu_of(to - 1) : NULL;
	if (!cpu) {
		steering->last[bucket] = 0;
		return 0;
	}
	steering->last[bucket] =
		ANIC_STEERED(to, ANIC_STEERED_SINCE(waits), __sync_fetch_and_add(&cpu->sent, 1) + 1);
	return to;
}

/* Redirects to a CPU (plus 1). The verdict: XDP_PASS if that has no queue. */
static __always_inline int anic_redirect_to(__u32 to)
{
	int verdict = bpf_redirect_map(&anic_cpumap, to - 1, XDP_PASS);
	struct anic_cpu *cpu;

	if (verdict != XDP_REDIRECT) {
		cpu = anic_cpu_of(to - 1);
		if (cpu)
			__sync_fetch_and_sub(&cpu->sent, 1);
	}
	return verdict;
}

/*
 * Finds out what was lost on the way to a CPU: the kernel drops what finds its queue full and tells nobody
 * but a tracepoint. More cannot be under way than the queue holds and others are about to hand over; and what
 * has not come after a second without a change does not come.
 */
static int anic_settle_cpu(__u32 number, void *nothing)
{
	struct anic_cpu *cpu = anic_cpu_of(number);
	__u64 arrived, sent, missing, lost;

	if (!cpu)
		return 1; /* no CPU has this number, nor any after it */
	arrived = ANIC_READ_ONCE(cpu->arrived);
	sent = ANIC_READ_ONCE(cpu->sent);
	missing = sent - arrived;
	lost = cpu->lost;
	if (sent != cpu->sent_before || arrived != cpu->arrived_before) {
		cpu->sent_before = sent;
		cpu->arrived_before = arrived;
		cpu->quiet = 0;
	} else if (cpu->quiet < ANIC_STEER_QUIET) {
		cpu->quiet++;
	}
	if (cpu->quiet == ANIC_STEER_QUIET)
		lost = missing;
	else if ((__s64)(missing - lost) > ANIC_STEER_QUEUE + ANIC_STEER_MARGIN)
		lost = missing - ANIC_STEER_QUEUE - ANIC_STEER_MARGIN;
	if ((__s64)(lost - missing) > 0)
		lost = missing; /* it came after all */
	if (lost != cpu->lost)
		cpu->lost = lost;
	return 0;
}

__weak __noinline int anic_settle_cpus(void)
{
	return bpf_loop(ANIC_CPUS_MAX, anic_settle_cpu, NULL, 0);
}

#endif
