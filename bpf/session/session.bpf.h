/* SPDX-License-Identifier: GPL-2.0-only */
/* The drain of one session, for its program and for tests, which have a clock of their own. */
#ifndef ANIC_SESSION_BPF_H
#define ANIC_SESSION_BPF_H

#include "judge.bpf.h"
#include "session/observe.bpf.h"

#define ANIC_RING_BYTES (1 << 16)

struct {
	__uint(type, BPF_MAP_TYPE_USER_RINGBUF);
	__uint(max_entries, ANIC_RING_BYTES);
} session_ring SEC(".maps");

/* The kernel's own, of which only its type information says where what is: how far the ring was read. */
struct bpf_ringbuf {
	unsigned long consumer_pos;
} __attribute__((preserve_access_index));

struct bpf_ringbuf_map {
	struct bpf_ringbuf *rb;
} __attribute__((preserve_access_index));

/*
 * What was taken out of the ring and is not judged yet. Of one run at a time: `busy`, which nobody waits for,
 * and whose holder cannot be descheduled.
 */
struct anic_batch {
	__u32 busy;
	__u32 endless;					/* 1: see anic_read_ring() */
	__u64 taken;					/* so many, since the session began */
	__u64 judged;					/* number n is at n % ANIC_DRAIN_MAX */
	struct anic_proposal proposals[ANIC_DRAIN_MAX]; /* zeros: it was longer or shorter */
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct anic_batch);
} session_batch SEC(".maps");

static __always_inline struct anic_batch *anic_batch_of(void)
{
	__u32 zero = 0;

	return bpf_map_lookup_elem(&session_batch, &zero);
}

/* What its sender writes to the ring from now on is not looked at. */
static __always_inline void anic_copy_proposal(struct anic_proposal *to, const struct anic_proposal *from)
{
	const volatile __u64 *words = (const volatile __u64 *)from;
	__u64 *copy = (__u64 *)to;
	int i;

#pragma unroll
	for (i = 0; i < sizeof(*to) / sizeof(*copy); i++)
		copy[i] = words[i];
}

/*
 * Copies one proposal, while nobody's lock is held: it is the sender's ring that says how long this takes.
 * 1: there is room for no more. Short, because the verifier wants `sample` in a register all the time.
 */
static long anic_take_one(struct bpf_dynptr *sample, void *nothing)
{
	struct anic_batch *batch = anic_batch_of();
	const struct anic_proposal *proposal = NULL;
	struct anic_proposal *place;

	if (!batch)
		return 1;
	place = &batch->proposals[batch->taken % ANIC_DRAIN_MAX];
	batch->taken++;
	if (!bpf_dynptr_data(sample, 0, sizeof(*proposal) + 1)) /* else it is longer */
		proposal = bpf_dynptr_data(sample, 0, sizeof(*proposal));
	if (proposal)
		anic_copy_proposal(place, proposal);
	else
		__builtin_memset(place, 0, sizeof(*place));
	return batch->taken - batch->judged >= ANIC_DRAIN_MAX;
}

static __always_inline __u64 anic_ring_position(void)
{
	const struct bpf_ringbuf_map *ring = (const void *)&session_ring;

	return ring->rb->consumer_pos;
}

/*
 * Reads the ring as far as there is room. The kernel passes over samples that were taken back, and believes
 * the sender how many there are: 131,072 a call, and as many in the next. No ring that is used as it should
 * be has more than it holds. Of one that had, nothing is read any more.
 */
static __always_inline void anic_read_ring(struct anic_batch *batch)
{
	__u64 before = anic_ring_position();

	if (batch->endless || batch->taken - batch->judged >= ANIC_DRAIN_MAX)
		return;
	bpf_user_ringbuf_drain(&session_ring, anic_take_one, NULL, BPF_RB_NO_WAKEUP);
	if (anic_ring_position() - before > ANIC_RING_BYTES)
		batch->endless = 1;
}

/* Judges the next of the batch. 1: no other before what follows from it. */
static int anic_judge_next(__u32 i, void *nothing)
{
	struct anic_scratch *scratch = anic_scratch_of();
	struct anic_session *session = anic_session_in(anic_session_slot);
	struct anic_batch *batch = anic_batch_of();
	struct anic_page *page = anic_page_of();
	int stop;

	if (!scratch || !session || !page || !batch || batch->judged == batch->taken)
		return 1;
	scratch->proposal = batch->proposals[batch->judged % ANIC_DRAIN_MAX];
	batch->judged++;
	stop = anic_judge(anic_session_slot, &page->answers[session->answered % ANIC_DRAIN_MAX]);
	session->answered++;
	session->drained++;
	*(volatile __u64 *)&page->answered = session->answered;
	return stop != 0;
}

/* How many were answered, or -EBUSY: somebody else holds the lock, or -ESTALE: the session is over. */
static __always_inline int anic_drain_batch(struct anic_batch *batch, __u64 now_ns)
{
	struct anic_session *session = anic_session_in(anic_session_slot);
	const struct anic_guard *guard = anic_guard_of();
	struct anic_scratch *scratch;
	int drained;

	if (!session || session->id != anic_session_id)
		return -ESTALE;
	/* on a CPU of its caller's choice this is an interrupt, perhaps of who holds the lock */
	if (!guard || ANIC_READ_ONCE(guard->lock))
		return -EBUSY;
	anic_read_ring(batch);
	scratch = anic_lock_after(now_ns);
	if (!scratch)
		return -EBUSY;
	if (session->id != anic_session_id) {
		anic_unlock();
		return -ESTALE;
	}
	session->heard_ns = scratch->now_ns;
	session->drained = 0;
	if (batch->endless)
		scratch->over = ANIC_FAILSAFE_RING;
	else
		bpf_loop(ANIC_DRAIN_MAX, anic_judge_next, NULL, 0);
	drained = session->drained;
	anic_conclude(scratch, anic_session_slot);
	anic_unlock();
	return drained;
}

/*
 * The drain. Whoever has the program could attach it to a raw tracepoint; it asks for as many arguments as
 * hardly any has, and for a last one that none has.
 */
static __always_inline int anic_drain_at(const struct anic_draining *order, __u64 now_ns)
{
	struct anic_batch *batch = anic_batch_of();
	int code;

	if (!batch || *(const volatile __u64 *)&order->word != ANIC_DRAIN_WORD)
		return -EINVAL;
	if (__sync_val_compare_and_swap(&batch->busy, 0, 1))
		return -EBUSY;
	code = anic_drain_batch(batch, now_ns);
	if (order->observe == 1 && code >= 0)
		anic_observe(now_ns);
	__sync_lock_test_and_set(&batch->busy, 0);
	return code;
}

#endif
