/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The judgement of one proposal, by the rules and in the order of docs/guardian.md. The proposal is in the
 * scratch, where its sender cannot reach it any more; the guardian's lock is held.
 */
#ifndef ANIC_JUDGE_BPF_H
#define ANIC_JUDGE_BPF_H

#include "guardian.bpf.h"

#define ANIC_SECOND_NS 1000000000ULL

/* --- form --- */

static __always_inline int anic_has_class(__u32 kind)
{
	return kind == ANIC_CHANGE_QUEUE_WEIGHT_ADJUST || kind == ANIC_CHANGE_PATH_SWITCH ||
	       kind == ANIC_CHANGE_QUEUE_REBALANCE;
}

static __always_inline int anic_scope_is_formed(const struct anic_proposal *p, __u32 generation)
{
	const struct anic_service *service;

	if (anic_has_class(p->kind) ? !p->cls || p->cls >= ANIC_CLASS__MAX : p->cls)
		return 0;
	if (p->kind == ANIC_CHANGE_QUEUE_REBALANCE ? p->bucket >= ANIC_STEER_BUCKETS : p->bucket)
		return 0;
	if (p->kind != ANIC_CHANGE_FLOW_CLASS_ESCALATE)
		return !p->service;
	service = anic_service_at(generation, p->service);
	return p->service && service && service->cls && (!service->tenant || service->tenant == p->tenant);
}

static __always_inline int anic_value_is_formed(const struct anic_proposal *p, __u32 generation,
						const struct anic_lane *whole)
{
	const struct anic_lane *link =
		anic_lane_in(generation, ANIC_PROFILE_POLICY, ANIC_LANE(0, ANIC_CLASS_NONE));

	switch (p->kind) {
	case ANIC_CHANGE_QUEUE_WEIGHT_ADJUST:
		return p->value <= 0xffffffff;
	case ANIC_CHANGE_BULK_PATH_THROTTLE:
		return link && link->ceiling_bps;
	case ANIC_CHANGE_FLOW_CLASS_ESCALATE:
		return p->value && p->value < ANIC_CLASS__MAX;
	case ANIC_CHANGE_PATH_SWITCH:
		return p->value == ANIC_PATH_KERNEL || p->value == ANIC_PATH_XSK;
	case ANIC_CHANGE_QUEUE_REBALANCE:
		return p->value < ANIC_CPUS_MAX;
	case ANIC_CHANGE_QUOTA_BORROW:
		return link && link->ceiling_bps && whole->ceiling_bps;
	}
	return 0;
}

static __always_inline int anic_is_formed(const struct anic_proposal *p, __u32 generation)
{
	const struct anic_lane *whole;

	if (p->size != sizeof(*p) || p->_pad || p->_pad2 || !p->kind || p->kind >= ANIC_CHANGE__MAX ||
	    p->duration_ns > ANIC_DURATION_MAX_NS || !p->tenant || p->tenant >= ANIC_TENANTS_MAX)
		return 0;
	whole = anic_lane_in(generation, ANIC_PROFILE_POLICY, ANIC_LANE(p->tenant, ANIC_CLASS_NONE));
	return whole && whole->weight && anic_scope_is_formed(p, generation) &&
	       anic_value_is_formed(p, generation, whole);
}

/* --- what it is about --- */

/* The class that a session must have been granted, or 0. */
static __always_inline __u32 anic_class_asked(const struct anic_proposal *p)
{
	if (p->kind == ANIC_CHANGE_BULK_PATH_THROTTLE)
		return ANIC_CLASS_BULK;
	return p->kind == ANIC_CHANGE_FLOW_CLASS_ESCALATE ? p->value : p->cls;
}

/* --- grants --- */

/* What the policy treats the service of an escalation as; 0: it is about none. */
static __always_inline __u32 anic_class_before(const struct anic_proposal *p, __u32 generation)
{
	const struct anic_service *service =
		p->kind == ANIC_CHANGE_FLOW_CLASS_ESCALATE ? anic_service_at(generation, p->service) : NULL;

	return service ? service->cls : 0;
}

/* `before`: anic_class_before(). Who has not got that class takes nothing out of it. */
static __always_inline int anic_grants(const struct anic_grants *grants, const struct anic_proposal *p,
				       __u32 before)
{
	__u32 cls = anic_class_asked(p);

	if (!(grants->tenants >> ((p->tenant - 1) & 63) & 1) || !(grants->kinds >> (p->kind & 31) & 1))
		return 0;
	if (before && !(grants->classes >> (before & 31) & 1))
		return 0;
	/* what is asked of control traffic is refused by C1, which is what there is to say about it */
	if (cls && cls != ANIC_CLASS_CONTROL && !(grants->classes >> (cls & 31) & 1))
		return 0;
	return p->kind != ANIC_CHANGE_PATH_SWITCH || grants->paths >> (p->value & 31) & 1;
}

/* Whether the policy spreads this lane over that CPU. */
static __always_inline int anic_has_cpu(const struct anic_proposal *p)
{
	__u32 lane = ANIC_LANE(p->tenant, p->cls), i;
	const struct anic_steering *steering = bpf_map_lookup_elem(&anic_steering, &lane);

	if (!steering || !steering->used)
		return 1; /* C2 says what is wrong */
	for (i = 0; i < ANIC_STEER_BUCKETS; i++) {
		if (steering->stated.cpu[i] == p->value + 1)
			return 1;
	}
	return 0;
}

static __always_inline int anic_is_granted(__u32 slot)
{
	const struct anic_scratch *scratch = anic_scratch_of();
	const struct anic_session *session = anic_session_in(slot);
	const struct anic_guarding *guarding;
	const struct anic_proposal *p;
	__u32 agent, before;

	if (!scratch || !session)
		return 0;
	guarding = anic_guarding_of(scratch->generation);
	p = &scratch->proposal;
	before = anic_class_before(p, scratch->generation);
	if (!guarding || !anic_grants(&session->asked, p, before))
		return 0;
	agent = session->agent;
	if (agent && (agent >= ANIC_AGENTS_MAX || !anic_grants(&guarding->agents[agent].grants, p, before)))
		return 0;
	return p->kind != ANIC_CHANGE_QUEUE_REBALANCE || p->cls == ANIC_CLASS_CONTROL || anic_has_cpu(p);
}

/* --- what must be there --- */

static __always_inline int anic_can_be(const struct anic_proposal *p, __u32 generation)
{
	__u32 id = ANIC_LANE(p->tenant, p->cls);
	const struct anic_steering *steering;
	const struct anic_lane *lane;

	if (p->kind == ANIC_CHANGE_PATH_SWITCH && p->value == ANIC_PATH_XSK) {
		lane = anic_lane_in(generation, ANIC_PROFILE_POLICY, id);
		return lane && lane->path == ANIC_PATH_XSK;
	}
	if (p->kind == ANIC_CHANGE_QUEUE_REBALANCE) {
		steering = bpf_map_lookup_elem(&anic_steering, &id);
		return steering && steering->used;
	}
	return 1;
}

/* --- rates of change --- */

static __always_inline __u64 anic_interval(__u32 a_second)
{
	return a_second ? ANIC_SECOND_NS / a_second : ANIC_SECOND_NS;
}

static __always_inline int anic_rate_allows(__u64 due_ns, __u64 interval_ns, __u64 now_ns)
{
	return (__s64)(due_ns - now_ns) <= (__s64)(ANIC_SECOND_NS - interval_ns);
}

static __always_inline __u64 anic_rate_takes(__u64 due_ns, __u64 interval_ns, __u64 now_ns)
{
	return ((__s64)(due_ns - now_ns) > 0 ? due_ns : now_ns) + interval_ns;
}

/* --- the row of anic_actions --- */

struct anic_finding {
	__u32 tenant;
	__u32 target;
	__u64 forget_ns; /* rows that were not changed for so long */
	__u64 now_ns;
};

/* Looks for the target's row; else remembers in the scratch the first that is free, plus 1. */
static int anic_find_row(__u32 i, void *context)
{
	const struct anic_finding *finding = context;
	struct anic_scratch *scratch = anic_scratch_of();
	__u32 row = finding->tenant * ANIC_ACTIONS_MAX + i;
	const struct anic_action *action = anic_action_at(row);

	if (!action || !scratch)
		return 1;
	if (action->target == finding->target) {
		scratch->row = row + 1;
		return 1;
	}
	if (scratch->row)
		return 0;
	if (!action->target ||
	    (!action->in_force && anic_has_passed(finding->now_ns, action->changed_ns, finding->forget_ns) &&
	     action->blocked_ns <= finding->now_ns))
		scratch->row = row + 1;
	return 0;
}

/* The row of the target, or one that is free, or NULL; scratch->row is its index. */
static __always_inline struct anic_action *anic_row_for(struct anic_scratch *scratch,
							const struct anic_envelope *envelope)
{
	struct anic_finding finding = {
		.tenant = scratch->tenant,
		.target = scratch->target,
		.forget_ns = anic_max(envelope->oscillation_ns, envelope->instability_ns),
		.now_ns = scratch->now_ns,
	};

	scratch->row = 0;
	bpf_loop(ANIC_ACTIONS_MAX, anic_find_row, &finding, 0);
	if (!scratch->row)
		return NULL;
	return anic_action_at(--scratch->row);
}

/* --- values --- */

/* Each rewriting says which invariant it was. */
static __always_inline void anic_rewrite(struct anic_scratch *scratch, __u64 value, __u32 invariant)
{
	if (value == scratch->value)
		return;
	scratch->value = value;
	scratch->invariant = invariant;
	scratch->rewritten |= 1U << invariant;
}

static __always_inline __u64 anic_within(__u64 value, __u64 least, __u64 most)
{
	return anic_max(anic_min(value, most), least);
}

static __always_inline void anic_limit_time(struct anic_scratch *scratch,
					    const struct anic_envelope *envelope)
{
	__u32 kind = ANIC_TARGET_KIND(scratch->target);

	if (kind != ANIC_CHANGE_FLOW_CLASS_ESCALATE && kind != ANIC_CHANGE_QUOTA_BORROW)
		return;
	if (scratch->duration_ns && scratch->duration_ns <= envelope->duration_ns)
		return;
	scratch->duration_ns = envelope->duration_ns;
	scratch->invariant = ANIC_INVARIANT_R6;
	scratch->rewritten |= 1U << ANIC_INVARIANT_R6;
}

/* R6, R2, R1, I2: what is in the range stays there when it is brought within a step. */
static __always_inline int anic_rewrite_all(void)
{
	struct anic_scratch *scratch = anic_scratch_of();
	const struct anic_envelope *envelope = anic_envelope_of(scratch);
	const struct anic_lane *lane;
	__u64 was, most, step;

	if (!scratch || !envelope)
		return 0;
	anic_limit_time(scratch, envelope);
	was = scratch->observed;
	switch (ANIC_TARGET_KIND(scratch->target)) {
	case ANIC_CHANGE_QUEUE_WEIGHT_ADJUST:
		step = envelope->weight_step;
		anic_rewrite(scratch, anic_within(scratch->value, envelope->weight_min, envelope->weight_max),
			     ANIC_INVARIANT_R2);
		anic_rewrite(scratch, anic_within(scratch->value, was > step ? was - step : 0, was + step),
			     ANIC_INVARIANT_R1);
		break;
	case ANIC_CHANGE_BULK_PATH_THROTTLE:
		lane = anic_lane_in(scratch->generation, ANIC_PROFILE_POLICY,
				    ANIC_LANE(scratch->tenant, ANIC_CLASS_BULK));
		most = anic_value(scratch->generation, scratch->tenant, scratch->target, scratch->stated);
		step = was / 100 * envelope->throttle_percent;
		anic_rewrite(scratch, anic_min(scratch->value, most), ANIC_INVARIANT_R2);
		anic_rewrite(scratch, anic_within(scratch->value, was - anic_min(was, step), was + step),
			     ANIC_INVARIANT_R1);
		if (lane)
			anic_rewrite(scratch,
				     anic_max(scratch->value,
					      anic_least_bulk(scratch->generation, scratch->tenant, lane)),
				     ANIC_INVARIANT_I2);
		break;
	case ANIC_CHANGE_QUOTA_BORROW:
		anic_rewrite(scratch, anic_min(scratch->value, envelope->borrow_max_bps), ANIC_INVARIANT_R2);
		anic_rewrite(scratch, anic_min(scratch->value, was + envelope->borrow_step_bps),
			     ANIC_INVARIANT_R1);
		break;
	}
	return 0;
}

/* --- I1: what the others are guaranteed --- */

static int anic_add_minimum(__u32 tenant, void *nothing)
{
	struct anic_scratch *scratch = anic_scratch_of();
	const struct anic_lane *whole;

	if (!scratch)
		return 1;
	whole = anic_lane_in(scratch->generation, ANIC_PROFILE_POLICY, ANIC_LANE(tenant, ANIC_CLASS_NONE));
	if (whole && tenant != scratch->tenant)
		scratch->sum_bps += whole->rate_bps;
	return 0;
}

static __always_inline int anic_leaves_minimums(struct anic_scratch *scratch)
{
	const struct anic_lane *link =
		anic_lane_in(scratch->generation, ANIC_PROFILE_POLICY, ANIC_LANE(0, ANIC_CLASS_NONE));

	if (ANIC_TARGET_KIND(scratch->target) != ANIC_CHANGE_QUOTA_BORROW || !link)
		return 1;
	scratch->sum_bps = 0;
	bpf_loop(ANIC_TENANTS_MAX, anic_add_minimum, NULL, 0);
	return scratch->stated + scratch->value + scratch->sum_bps <= link->ceiling_bps;
}

/* --- R5 --- */

static __always_inline int anic_direction_of(const struct anic_scratch *scratch)
{
	if (scratch->value == scratch->observed)
		return 0;
	return scratch->value > scratch->observed ? 1 : 2;
}

/* Whether the change goes back on the last one, so soon; and then, whether that was once too often. */
static __always_inline int anic_oscillates(struct anic_scratch *scratch, const struct anic_action *action,
					   const struct anic_envelope *envelope)
{
	int direction = anic_direction_of(scratch);
	__u32 flips = action->flips;

	scratch->flips = 0;
	if (!direction || action->target != scratch->target || !action->direction ||
	    action->direction == direction ||
	    anic_has_passed(scratch->now_ns, action->changed_ns, envelope->oscillation_ns))
		return 0;
	if (anic_has_passed(scratch->now_ns, action->flips_ns, envelope->oscillation_ns))
		flips = 0;
	if (flips >= envelope->flips)
		return 1;
	scratch->flips = flips + 1;
	return 0;
}

/* --- the judgement --- */

/* What can be said without the value in force. 0, or the enum anic_invariant that rejects it. */
static __always_inline int anic_judge_scope(__u32 slot)
{
	struct anic_scratch *scratch = anic_scratch_of();
	const struct anic_proposal *p;

	if (!scratch)
		return ANIC_INVARIANT_FORM;
	p = &scratch->proposal;
	if (!anic_is_formed(p, scratch->generation))
		return ANIC_INVARIANT_FORM;
	if (!anic_is_granted(slot))
		return ANIC_INVARIANT_I3;
	if (anic_is_in_failsafe(p->tenant))
		return ANIC_INVARIANT_L4;
	if (anic_class_asked(p) == ANIC_CLASS_CONTROL)
		return ANIC_INVARIANT_C1;
	return anic_can_be(p, scratch->generation) ? 0 : ANIC_INVARIANT_C2;
}

/* The rest. It leaves in the scratch what is to be done. */
__weak __noinline int anic_judge_value(__u32 slot)
{
	struct anic_scratch *scratch = anic_scratch_of();
	const struct anic_session *session = anic_session_in(slot);
	const struct anic_guard *guard = anic_guard_of();
	const struct anic_chain *chain = anic_chain_of();
	const struct anic_envelope *envelope = anic_envelope_of(scratch);
	const struct anic_action *action;
	const struct anic_ward *ward;
	__u32 generation, tenant;

	if (!scratch || !envelope || !session || !guard || !chain)
		return ANIC_INVARIANT_FORM;
	generation = scratch->generation;
	tenant = scratch->tenant = scratch->proposal.tenant;
	ward = anic_ward_of(tenant);
	if (!ward)
		return ANIC_INVARIANT_FORM;
	scratch->target = anic_target_of(&scratch->proposal);
	scratch->stated = anic_raw(generation, tenant, scratch->target, 1);
	scratch->observed = anic_value(generation, tenant, scratch->target,
				       anic_raw(generation, tenant, scratch->target, 0));
	scratch->value = scratch->proposal.value;
	scratch->duration_ns = scratch->proposal.duration_ns;
	scratch->tenant_interval_ns = anic_interval(envelope->changes_of_tenant);
	scratch->interval_ns = anic_interval(envelope->changes);
	if (!anic_rate_allows(ward->changes_due, scratch->tenant_interval_ns, scratch->now_ns) ||
	    !anic_rate_allows(guard->changes_due, scratch->interval_ns, scratch->now_ns))
		return ANIC_INVARIANT_R3;
	action = anic_row_for(scratch, envelope);
	if (action && action->target == scratch->target && action->blocked_ns > scratch->now_ns)
		return ANIC_INVARIANT_L3;
	anic_rewrite_all();
	if (!anic_leaves_minimums(scratch))
		return ANIC_INVARIANT_I1;
	if (action && anic_oscillates(scratch, action, envelope))
		return ANIC_INVARIANT_R5;
	scratch->raw = anic_raw_of(generation, tenant, scratch->target, scratch->stated, scratch->value);
	if (!action)
		return ANIC_INVARIANT_R4;
	if (!(action->target == scratch->target && action->in_force) && scratch->raw != scratch->stated &&
	    ward->in_force >= envelope->actions)
		return ANIC_INVARIANT_R4;
	return anic_may_record(chain, 1 + !!session->pending) ? 0 : ANIC_INVARIANT_A1;
}

/* --- what follows --- */

/* Changes it, and keeps what must be known of the change. */
static __always_inline int anic_apply(__u64 session)
{
	struct anic_scratch *scratch = anic_scratch_of();
	struct anic_guard *guard = anic_guard_of();
	struct anic_action *action;
	struct anic_ward *ward;
	__u32 in_force;

	if (!scratch || !guard)
		return 0;
	action = anic_action_at(scratch->row);
	ward = anic_ward_of(scratch->tenant);
	if (!action || !ward)
		return 0;
	ward->changes_due = anic_rate_takes(ward->changes_due, scratch->tenant_interval_ns, scratch->now_ns);
	guard->changes_due = anic_rate_takes(guard->changes_due, scratch->interval_ns, scratch->now_ns);
	if (action->target != scratch->target) {
		*action = (struct anic_action){};
		action->target = scratch->target;
	}
	if (scratch->value != scratch->observed) {
		anic_put(scratch->generation, scratch->tenant, scratch->target, scratch->raw);
		action->changed_ns = scratch->now_ns;
		action->direction = anic_direction_of(scratch);
		if (scratch->flips) {
			action->flips = scratch->flips;
			if (scratch->flips == 1)
				action->flips_ns = scratch->now_ns;
		}
	}
	in_force = scratch->raw != scratch->stated;
	ward->in_force += in_force - action->in_force;
	action->in_force = in_force;
	action->session = session;
	action->stated = anic_value(scratch->generation, scratch->tenant, scratch->target, scratch->stated);
	action->value = scratch->value;
	action->until_ns = scratch->duration_ns ? scratch->now_ns + scratch->duration_ns : 0;
	return 0;
}

/* The record of a decision: of what was proposed, and what became of it. */
static __always_inline struct anic_record *anic_record_decision(struct anic_scratch *scratch, __u64 session,
								__u32 decided, __u32 invariant)
{
	struct anic_record *record = anic_new_record(scratch, ANIC_RECORD_DECISION);
	const struct anic_proposal *p = &scratch->proposal;

	record->session = session;
	record->tenant = p->tenant;
	record->cls = p->cls;
	record->service = p->service;
	record->bucket = p->bucket;
	record->proposed = p->kind;
	record->decided = decided;
	record->invariant = invariant;
	record->requested = p->value;
	record->observed = scratch->observed;
	__builtin_memcpy(record->reason, p->reason, sizeof(record->reason));
	if (invariant == ANIC_INVARIANT_FORM) /* whatever stands there */
		record->tenant = 0;
	return record;
}

static __always_inline int anic_is_same(const struct anic_record *a, const struct anic_record *b)
{
	/* what is refused whatever it asks for, in any number, is one record */
	if (a->invariant == ANIC_INVARIANT_L4 || a->invariant == ANIC_INVARIANT_A1)
		return a->tenant == b->tenant && a->invariant == b->invariant;
	return a->tenant == b->tenant && a->proposed == b->proposed && a->cls == b->cls &&
	       a->service == b->service && a->bucket == b->bucket && a->requested == b->requested &&
	       a->invariant == b->invariant;
}

static __always_inline void anic_answer(const struct anic_scratch *scratch, struct anic_answer *answer,
					__u32 decided, __u32 invariant, __u64 seq)
{
	int rejected = decided == ANIC_DECIDED_REJECT;

	answer->cookie = scratch->proposal.cookie;
	answer->decided = decided;
	answer->invariant = invariant;
	answer->_pad[0] = answer->_pad[1] = 0;
	answer->rewritten = rejected ? 0 : scratch->rewritten;
	answer->observed = scratch->observed;
	answer->requested = scratch->proposal.value;
	answer->approved = rejected ? scratch->observed : scratch->value;
	answer->until_ns = !rejected && scratch->duration_ns ? scratch->now_ns + scratch->duration_ns : 0;
	answer->seq = seq;
}

/* A rejection: counted together with those before it that are the same. */
__weak __noinline int anic_reject(__u32 slot, __u32 invariant)
{
	struct anic_scratch *scratch = anic_scratch_of();
	struct anic_session *session = anic_session_in(slot);
	const struct anic_envelope *envelope = anic_envelope_of(scratch);
	struct anic_record *record;

	if (!scratch || !envelope || !session)
		return 0;
	record = anic_record_decision(scratch, session->id, ANIC_DECIDED_REJECT, invariant);
	record->approved = scratch->observed;
	if (session->pending && anic_is_same(&session->rejection, record)) {
		session->rejection.count++;
	} else {
		anic_flush_rejection(session);
		session->rejection = *record;
		session->pending = 1;
	}
	session->decided[ANIC_DECIDED_REJECT]++;
	if (invariant == ANIC_INVARIANT_R5 &&
	    anic_count_instability(scratch->tenant, envelope, scratch->now_ns))
		scratch->unstable = scratch->tenant;
	if (invariant != ANIC_INVARIANT_L4 && invariant != ANIC_INVARIANT_A1 &&
	    ++session->rejected_in_row >= envelope->rejections)
		scratch->over = ANIC_FAILSAFE_REJECTIONS;
	return 0;
}

/* An approval: its room in the ring is known to be there, so that no change is without its record. */
static __always_inline int anic_approve(__u32 slot, __u32 decided)
{
	struct anic_scratch *scratch = anic_scratch_of();
	struct anic_session *session = anic_session_in(slot);
	struct anic_record *record;

	if (!scratch || !session)
		return 0;
	anic_flush_rejection(session);
	anic_apply(session->id);
	record = anic_record_decision(scratch, session->id, decided, scratch->invariant);
	record->rewritten = scratch->rewritten;
	record->approved = scratch->value;
	record->until_ns = scratch->duration_ns ? scratch->now_ns + scratch->duration_ns : 0;
	session->decided[decided & 3]++;
	session->rejected_in_row = 0;
	anic_keep(record);
	return 0;
}

/*
 * Judges the proposal in the scratch, does what follows, and answers. 1: what comes of it must be done before
 * the next one.
 */
__weak __noinline int anic_judge(__u32 slot, struct anic_answer *answer)
{
	struct anic_scratch *scratch = anic_scratch_of();
	struct anic_session *session = anic_session_in(slot);
	__u32 invariant, decided = ANIC_DECIDED_REJECT;
	__u64 seq = 0;

	if (!scratch || !session || !answer)
		return 1;
	scratch->observed = 0;
	scratch->rewritten = 0;
	scratch->invariant = 0;
	scratch->tenant = 0;
	invariant = anic_judge_scope(slot);
	if (!invariant)
		invariant = anic_judge_value(slot);
	if (invariant) {
		anic_reject(slot, invariant);
	} else {
		invariant = scratch->invariant;
		decided = scratch->rewritten ? ANIC_DECIDED_REWRITE : ANIC_DECIDED_APPROVE;
		anic_approve(slot, decided);
		seq = scratch->record.seq;
	}
	anic_answer(scratch, answer, decided, invariant, seq);
	return scratch->over || scratch->unstable;
}

/* What a proposal led to beyond itself, once no proposal is looked at. */
static __always_inline void anic_conclude(struct anic_scratch *scratch, __u32 slot)
{
	if (scratch->over)
		anic_end_session(slot, scratch->over, ANIC_INVARIANT_L2);
	else if (scratch->unstable)
		anic_fail(scratch->unstable, ANIC_FAILSAFE_INSTABILITY, ANIC_INVARIANT_L2, slot);
}

#endif
