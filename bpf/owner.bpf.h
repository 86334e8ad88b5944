/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Whether the owner of an AF_XDP socket keeps up. An XSKMAP falls back only where there is no socket: what is
 * redirected to one whose ring is full, or whose owner is stopped, is lost.
 */
#ifndef ANIC_OWNER_BPF_H
#define ANIC_OWNER_BPF_H

#include "maps.bpf.h"

/* NULL: the socket of this queue has no page, and is nobody's business. */
static __always_inline struct anic_owner *anic_owner_of(__u32 queue)
{
	void *page = bpf_map_lookup_elem(&anic_xsk_pages, &queue);
	__u32 zero = 0;

	return page ? bpf_map_lookup_elem(page, &zero) : NULL;
}

/*
 * `now_ns`: of the last tick. What the owner says is looked at once a tick, and when the credit that it gave
 * is spent: its half of the page is written all the time, and would have to come from its CPU for each frame.
 * What it has consumed and has room for never seems more in sum than it is, as x86 shows it: it stores `room`
 * first. Several CPUs that come here at once may each send one frame more.
 */
static __always_inline int anic_keeps_up(struct anic_owner *owner, __u64 now_ns)
{
	__u64 sent = ANIC_READ_ONCE(owner->sent), consumed, beat;
	__u32 room;

	if (owner->looked_ns == now_ns && (__s64)(owner->limit - sent) > 0)
		return 1;
	consumed = ANIC_READ_ONCE(owner->consumed);
	beat = ANIC_READ_ONCE(owner->beat);
	room = ANIC_READ_ONCE(owner->room);
	if ((__s64)(sent - consumed) <= 0 || beat != owner->beats) {
		owner->beats = beat;
		owner->alive_ns = now_ns;
	}
	owner->looked_ns = now_ns;
	owner->limit = (__s64)(now_ns - owner->alive_ns) < ANIC_OWNER_STALE_NS ? consumed + room : sent;
	return (__s64)(owner->limit - sent) > 0;
}

/*
 * The time of frame `n`, the owner's count of which begins with 1. It is a sample if no other is outstanding.
 * Of CPUs that come here at once the last one's stays. An owner can spoil its own samples only.
 */
static __always_inline void anic_sample(struct anic_owner *owner, __u64 n)
{
	if (n % ANIC_OWNER_SAMPLE_EVERY != 1 || owner->sample_at != ANIC_READ_ONCE(owner->sampled))
		return;
	/*
	 * The owner reads sample_at first. x86 shows stores in the order of the program, which the compiler
	 * keeps here; elsewhere a sample may be seen with the time of the one before it.
	 */
	ANIC_WRITE_ONCE(owner->sample_ns, bpf_ktime_get_ns());
	barrier();
	ANIC_WRITE_ONCE(owner->sample_at, n);
}

/* To the socket of its queue: the verdict, and its reason. Without one, or one that takes it: path A. */
static __always_inline int anic_to_owner(struct xdp_md *xdp, __u64 now_ns, __u32 *reason)
{
	__u32 queue = xdp->rx_queue_index, longest;
	struct anic_owner *owner = anic_owner_of(queue);
	int verdict;

	longest = owner ? ANIC_READ_ONCE(owner->longest) : 0;
	if (bpf_xdp_get_buff_len(xdp) > (longest ? longest : ANIC_XSK_FRAME_MAX)) {
		/* Whatever the IP header says; the page of one that is gone says nothing. */
		*reason = owner && !bpf_map_lookup_elem(&anic_xsks, &queue) ? ANIC_REASON_PASS_NO_SOCKET
									    : ANIC_REASON_PASS_TOO_LONG;
		return XDP_PASS;
	}

	if (owner && !anic_keeps_up(owner, now_ns)) {
		if (bpf_map_lookup_elem(&anic_xsks, &queue)) {
			__sync_fetch_and_add(&owner->refused, 1);
			*reason = ANIC_REASON_PASS_STALLED;
		} else {
			*reason = ANIC_REASON_PASS_NO_SOCKET;
		}
		return XDP_PASS;
	}
	verdict = bpf_redirect_map(&anic_xsks, queue, XDP_PASS);
	*reason = verdict == XDP_REDIRECT ? ANIC_REASON_REDIRECT_XSK : ANIC_REASON_PASS_NO_SOCKET;
	if (owner && verdict == XDP_REDIRECT)
		anic_sample(owner, __sync_fetch_and_add(&owner->sent, 1) + 1);
	return verdict;
}

#endif
