/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The maps of the instance object. Each .bpf.c includes this; `bpftool gen object` joins the weak
 * definitions and rejects two that differ. Names have at most 15 characters.
 */
#ifndef ANIC_MAPS_BPF_H
#define ANIC_MAPS_BPF_H

#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

#include "abi/flow.h"
#include "abi/meta.h"
#include "abi/stats.h"

/* What each destination port means: an array, because a hash lookup costs ten times as much. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 2 * ANIC_PORTS);
	__uint(map_flags, BPF_F_RDONLY_PROG);
	__type(key, __u32);
	__type(value, struct anic_port);
} anic_ports SEC(".maps") __weak;

/* The AF_XDP socket of each receive queue. An empty slot means path A. */
struct {
	__uint(type, BPF_MAP_TYPE_XSKMAP);
	__uint(max_entries, ANIC_QUEUES_MAX);
	__type(key, __u32);
	__type(value, __u32);
} anic_xsks SEC(".maps") __weak;

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct anic_counters);
} anic_counters SEC(".maps") __weak;

/* For userspace only: names and ports of the services. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, ANIC_SERVICES_MAX);
	__uint(map_flags, BPF_F_RDONLY_PROG);
	__type(key, __u32);
	__type(value, struct anic_service);
} anic_services SEC(".maps") __weak;

/* For userspace only: which interface this instance is for. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__uint(map_flags, BPF_F_RDONLY_PROG);
	__type(key, __u32);
	__type(value, struct anic_meta);
} anic_meta SEC(".maps") __weak;

#endif
