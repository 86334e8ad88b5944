/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The maps of the instance object. Each .bpf.c includes this; `bpftool gen object` joins the weak
 * definitions and rejects two that differ. Names have at most 15 characters.
 */
#ifndef ANIC_MAPS_BPF_H
#define ANIC_MAPS_BPF_H

#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

#include "abi/audit.h"
#include "abi/flow.h"
#include "abi/guardian.h"
#include "abi/lane.h"
#include "abi/meta.h"
#include "abi/owner.h"
#include "abi/policy.h"
#include "abi/share.h"
#include "abi/stats.h"
#include "abi/steer.h"
#include "abi/turn.h"

/* What the guardian works on, one thing at a time. */
struct anic_scratch {
	__u64 now_ns;
	__u32 generation;
	__u32 over; /* the session that is drained: enum anic_failsafe that ends it */
	struct anic_proposal proposal;
	struct anic_record record;
	char reason[ANIC_TEXT_LEN]; /* of an operator */
	/* a judgement */
	__u32 tenant;
	__u32 target;
	__u32 row;	 /* of anic_actions */
	__u32 rewritten; /* as of struct anic_record */
	__u32 invariant; /* enum anic_invariant */
	__u32 flips;	 /* 1: it is a flip */
	__u64 observed;	 /* the value in force */
	__u64 value;	 /* the one that will be */
	__u64 raw;	 /* ... as it stands in the lane, table or map */
	__u64 stated;	 /* ... as the policy has it there */
	__u64 duration_ns;
	__u64 tenant_interval_ns; /* R3: between two changes of the tenant, on average */
	__u64 interval_ns;	  /* ... of all */
	/* a look at SLOs */
	__u64 since_ns; /* of the lanes that missed theirs: since when */
	__u64 missed_samples;
	__u64 missed_over;
	__u64 missed_slo_ns;
	__u32 missed_lane; /* the first, of which these are */
	__u32 missed_said; /* 1: there is a record of it */
	__u32 missed;	   /* lanes that missed theirs */
	__u32 again;	   /* ... twice in a row */
	__u32 lowered;	   /* limits of bulk */
	__u32 latest;	   /* the row of the change that is the latest, plus 1 */
	__u64 latest_ns;   /* when that was made */
	__u32 unstable;	   /* the tenant that did once too often what leads into fail-safe, or 0 */
	__u64 sum_bps;
};

#define ANIC_READ_ONCE(x) (*(const volatile __typeof__(x) *)&(x))
#define ANIC_WRITE_ONCE(x, value) (*(volatile __typeof__(x) *)&(x) = (value))

/* --- the policy: two slots, filled by userspace while they are not in force --- */

/* Sizes, not types: clang leaves the types that an inner map points to undefined. */
struct anic_trie {
	__uint(type, BPF_MAP_TYPE_LPM_TRIE);
	__uint(max_entries, 1);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(key_size, sizeof(struct anic_prefix));
	__uint(value_size, sizeof(__u32));
};

struct anic_sender_map {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1);
	__uint(key_size, sizeof(struct anic_sender));
	__uint(value_size, sizeof(__u32));
};

/* Tenant ids by the remote address. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY_OF_MAPS);
	__uint(max_entries, ANIC_SLOTS);
	__type(key, __u32);
	__array(values, struct anic_trie);
} anic_remotes SEC(".maps") __weak;

/* Tenant ids by the local address. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY_OF_MAPS);
	__uint(max_entries, ANIC_SLOTS);
	__type(key, __u32);
	__array(values, struct anic_trie);
} anic_locals SEC(".maps") __weak;

/* Tenant ids by who sends. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY_OF_MAPS);
	__uint(max_entries, ANIC_SLOTS);
	__type(key, __u32);
	__array(values, struct anic_sender_map);
} anic_senders SEC(".maps") __weak;

/* What each port means, to anybody: an array, because a hash lookup costs ten times as much, and not one in a
 * map of maps, whose elements a program gets by a call only. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, ANIC_SLOTS *ANIC_PORTS_MAX);
	__uint(map_flags, BPF_F_RDONLY_PROG);
	__type(key, __u32);
	__type(value, struct anic_port);
} anic_ports SEC(".maps") __weak;

/* What a port means to single tenants. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, ANIC_SLOTS *ANIC_OWNERS_MAX);
	__uint(map_flags, BPF_F_RDONLY_PROG);
	__type(key, __u32);
	__type(value, struct anic_owners);
} anic_owners SEC(".maps") __weak;

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, ANIC_SLOTS *ANIC_SERVICES_MAX);
	__uint(map_flags, BPF_F_RDONLY_PROG);
	__type(key, __u32);
	__type(value, struct anic_service);
} anic_services SEC(".maps") __weak;

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, ANIC_SLOTS *ANIC_TENANTS_MAX);
	__uint(map_flags, BPF_F_RDONLY_PROG);
	__type(key, __u32);
	__type(value, struct anic_tenant);
} anic_tenants SEC(".maps") __weak;

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, ANIC_SLOTS);
	__uint(map_flags, BPF_F_RDONLY_PROG);
	__type(key, __u32);
	__type(value, struct anic_policy);
} anic_policies SEC(".maps") __weak;

/* What anic_prepare copies into the lanes. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, ANIC_PROFILES_STATED *ANIC_LANES_MAX);
	__uint(map_flags, BPF_F_RDONLY_PROG);
	__type(key, __u32);
	__type(value, struct anic_lane);
} anic_staging SEC(".maps") __weak;

/* ... and anic_commit into the steering tables. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, ANIC_LANES_MAX);
	__uint(map_flags, BPF_F_RDONLY_PROG);
	__type(key, __u32);
	__type(value, struct anic_spread);
} anic_spread SEC(".maps") __weak;

/* ... and anic_prepare into anic_guarding. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__uint(map_flags, BPF_F_RDONLY_PROG);
	__type(key, __u32);
	__type(value, struct anic_guarding);
} anic_staged SEC(".maps") __weak;

/* --- written by BPF programs alone: userspace has frozen them --- */

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, ANIC_SLOTS *ANIC_PROFILE__MAX *ANIC_LANES_MAX);
	__type(key, __u32);
	__type(value, struct anic_lane);
} anic_lanes SEC(".maps") __weak;

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct anic_state);
} anic_state SEC(".maps") __weak;

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, ANIC_LANES_MAX);
	__type(key, __u32);
	__type(value, struct anic_steering);
} anic_steering SEC(".maps") __weak;

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, ANIC_BUCKETS_MAX);
	__type(key, __u32);
	__type(value, struct anic_bucket);
} anic_buckets SEC(".maps") __weak;

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, ANIC_DIRECTION__MAX *ANIC_CLAIMS_MAX);
	__type(key, __u32);
	__type(value, struct anic_claim);
} anic_claims SEC(".maps") __weak;

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, ANIC_LEVELS_MAX);
	__type(key, __u32);
	__type(value, struct anic_level);
} anic_levels SEC(".maps") __weak;

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, ANIC_DIRECTION__MAX);
	__type(key, __u32);
	__type(value, struct anic_sharing);
} anic_sharing SEC(".maps") __weak;

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, ANIC_LANES_MAX);
	__type(key, __u32);
	__type(value, struct anic_turn_lane);
} anic_turns SEC(".maps") __weak;

/* --- the guardian's: frozen, too --- */

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct anic_modes);
} anic_modes SEC(".maps") __weak;

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, ANIC_SLOTS);
	__type(key, __u32);
	__type(value, struct anic_guarding);
} anic_guarding SEC(".maps") __weak;

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct anic_guard);
} anic_guard SEC(".maps") __weak;

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, ANIC_TENANTS_MAX);
	__type(key, __u32);
	__type(value, struct anic_ward);
} anic_wards SEC(".maps") __weak;

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, ANIC_ACTION_ROWS);
	__type(key, __u32);
	__type(value, struct anic_action);
} anic_actions SEC(".maps") __weak;

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, ANIC_SESSIONS_MAX);
	__type(key, __u32);
	__type(value, struct anic_session);
} anic_sessions SEC(".maps") __weak;

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, ANIC_TENANTS_MAX);
	__type(key, __u32);
	__type(value, struct anic_dump);
} anic_dumps SEC(".maps") __weak;

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct anic_chain);
} anic_chain SEC(".maps") __weak;

/* Records that found no room in anic_audit: a ring of its own. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, ANIC_WAITING_MAX);
	__type(key, __u32);
	__type(value, struct anic_record);
} anic_waiting SEC(".maps") __weak;

/* Of who holds the lock of the guardian. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct anic_scratch);
} anic_scratch SEC(".maps") __weak;

/* Services of a tenant that are treated as another class. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, ANIC_ACTION_ROWS);
	__type(key, struct anic_escalation);
	__type(value, __u32);
} anic_escalated SEC(".maps") __weak;

/* Records, until somebody takes them. */
struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, ANIC_AUDIT_BYTES);
} anic_audit SEC(".maps") __weak;

/* --- the packet path's own --- */

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, ANIC_FLOW_SETS);
	__type(key, __u32);
	__type(value, struct anic_flow_set);
} anic_flows SEC(".maps") __weak;

/* The AF_XDP socket of each receive queue. An empty slot means path A. */
struct {
	__uint(type, BPF_MAP_TYPE_XSKMAP);
	__uint(max_entries, ANIC_QUEUES_MAX);
	__type(key, __u32);
	__type(value, __u32);
} anic_xsks SEC(".maps") __weak;

struct anic_xsk_page {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(key_size, sizeof(__u32));
	__uint(value_size, sizeof(struct anic_owner));
};

/* The page of its owner, a map of its own, so that an owner sees no other's. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY_OF_MAPS);
	__uint(max_entries, ANIC_QUEUES_MAX);
	__type(key, __u32);
	__array(values, struct anic_xsk_page);
} anic_xsk_pages SEC(".maps") __weak;

/* The queue of each CPU that lanes are spread over. An empty slot means that the packet stays where it is.
 * The loader sets their number to that of possible CPUs, as in the next two. */
struct {
	__uint(type, BPF_MAP_TYPE_CPUMAP);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct bpf_cpumap_val);
} anic_cpumap SEC(".maps") __weak;

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct anic_cpu);
} anic_cpus SEC(".maps") __weak;

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct anic_counters);
} anic_counters SEC(".maps") __weak;

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct anic_control);
} anic_control SEC(".maps") __weak;

/* For userspace only: which interface this instance is for. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__uint(map_flags, BPF_F_RDONLY_PROG);
	__type(key, __u32);
	__type(value, struct anic_meta);
} anic_meta SEC(".maps") __weak;

#endif
