/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * One packet's decision and its accounting, shared by every hook. A hook parses, decides, moves the packet
 * if it can, and leaves through anic_finish(): its only exit, so that nothing goes uncounted.
 */
#ifndef ANIC_CLASSIFY_BPF_H
#define ANIC_CLASSIFY_BPF_H

#include "lib/parse.h"
#include "maps.bpf.h"

/* Words, not bytes: clang packs bytes into one register, and Linux 6.1 then loses their bounds. */
struct anic_decision {
	__u32 reason;  /* enum anic_reason */
	__u32 cls;     /* enum anic_class */
	__u32 service; /* id, or 0 */
	__u32 xsk;     /* 1: the policy wants path B; the hook decides whether it can */
};

static __always_inline struct anic_decision anic_decide(const struct anic_pkt *pkt)
{
	struct anic_decision d = { .reason = ANIC_REASON_PASS_DEFAULT, .cls = ANIC_CLASS_DEFAULT };
	const struct anic_port *port;
	__u32 index = pkt->dst_port;

	switch (pkt->kind) {
	case ANIC_KIND_NONE:
		d.reason = ANIC_REASON_PASS_UNPARSED;
		return d;
	case ANIC_KIND_ICMP:
		if (!anic_icmp_is_control(pkt))
			return d;
		__attribute__((fallthrough));
	case ANIC_KIND_ARP:
		d.reason = ANIC_REASON_PASS_CONTROL;
		d.cls = ANIC_CLASS_CONTROL;
		return d;
	case ANIC_KIND_TCP:
		index += ANIC_PORTS;
		break;
	case ANIC_KIND_UDP:
		break;
	default:
		if (pkt->fragment == ANIC_FRAGMENT_LATER)
			d.reason = ANIC_REASON_PASS_FRAGMENT;
		return d;
	}
	if (pkt->fragment == ANIC_FRAGMENT_LATER) {
		d.reason = ANIC_REASON_PASS_FRAGMENT;
		return d;
	}
	port = bpf_map_lookup_elem(&anic_ports, &index);
	if (!port || port->cls == ANIC_CLASS_NONE)
		return d;
	d.cls = port->cls;
	d.service = port->service;
	if (port->cls == ANIC_CLASS_CONTROL)
		d.reason = ANIC_REASON_PASS_CONTROL;
	else if (port->path == ANIC_PATH_XSK && pkt->fragment == ANIC_FRAGMENT_FIRST)
		d.reason = ANIC_REASON_PASS_FRAGMENT; /* an AF_XDP socket does not reassemble */
	else if (port->path == ANIC_PATH_XSK)
		d.xsk = 1;
	else
		d.reason = ANIC_REASON_PASS_SERVICE;
	return d;
}

/* Counts the packet and returns the verdict, whatever became of the counting. */
static __always_inline int anic_finish(int verdict, struct anic_decision d, __u64 packets, __u64 bytes)
{
	__u32 zero = 0;
	struct anic_counters *c = bpf_map_lookup_elem(&anic_counters, &zero);

	if (!c)
		return verdict; /* cannot be: the array has this entry */
	if (d.reason < ANIC_REASON__MAX) {
		c->by_reason[d.reason].packets += packets;
		c->by_reason[d.reason].bytes += bytes;
	}
	if (d.cls < ANIC_CLASS__MAX) {
		c->by_class[d.cls].packets += packets;
		c->by_class[d.cls].bytes += bytes;
	}
	if (d.service) {
		c->by_service[d.service].packets += packets;
		c->by_service[d.service].bytes += bytes;
	}
	return verdict;
}

#endif
