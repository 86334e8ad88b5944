/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What the policy makes of a key: the look-ups behind the flow cache, once for each new flow and generation.
 * The order is the policy's contract: docs/policy.md, "The order of matching".
 */
#ifndef ANIC_LOOKUP_BPF_H
#define ANIC_LOOKUP_BPF_H

#include "lib/parse.h"
#include "maps.bpf.h"

#include <bpf/bpf_endian.h>

#define ANIC_VERDICT_CONTROL ANIC_VERDICT(0, ANIC_LANE(0, ANIC_CLASS_CONTROL), ANIC_REASON_PASS_CONTROL)
#define ANIC_VERDICT_UNKNOWN(reason) ANIC_VERDICT(0, ANIC_LANE(0, ANIC_CLASS_DEFAULT), reason)

/* `dst`: 1 for the destination. */
static __always_inline __u32 anic_tenant_by_prefix(void *tries, __u32 slot, const struct anic_key *key,
						   int dst)
{
	struct anic_prefix prefix; /* no initialiser: clang would copy it from a .rodata map */
	const __u64 *at = key->addresses_be;
	__u32 ipv4_be = dst ? ANIC_SECOND_HALF(at[0]) : ANIC_FIRST_HALF(at[0]);
	int ipv4 = !(ANIC_KEY_FLAGS(key->word) & ANIC_KEY_IPV6);
	void *trie = bpf_map_lookup_elem(tries, &slot);
	__u32 *tenant;

	if (!trie)
		return 0;
	prefix.length = 128;
	if (!ipv4) {
		prefix.address_be[0] = ANIC_FIRST_HALF(dst ? at[2] : at[0]);
		prefix.address_be[1] = ANIC_SECOND_HALF(dst ? at[2] : at[0]);
		prefix.address_be[2] = ANIC_FIRST_HALF(dst ? at[3] : at[1]);
		prefix.address_be[3] = ANIC_SECOND_HALF(dst ? at[3] : at[1]);
		if (!(prefix.address_be[0] & bpf_htonl(0xffff0000))) {
			ipv4 = !prefix.address_be[0] && !prefix.address_be[1] &&
			       prefix.address_be[2] == bpf_htonl(0xffff);
			ipv4_be = prefix.address_be[3];
			prefix.length = ANIC_PREFIX_RESERVED_BITS;
		}
	}
	if (ipv4) {
		prefix.length = 128;
		prefix.address_be[0] = bpf_htonl(ANIC_PREFIX_IPV4);
		prefix.address_be[1] = ipv4_be;
		prefix.address_be[2] = prefix.address_be[3] = 0;
	}
	tenant = bpf_map_lookup_elem(trie, &prefix);
	return tenant ? *tenant : 0;
}

/* The service of a tenant among the owners of a port, or 0. `client`: of its remote end. */
static __always_inline __u32 anic_owned_service(__u32 slot, __u32 tenant, __u32 owners, int client)
{
	const struct anic_owners *block;

	owners += slot * ANIC_OWNERS_MAX;
	block = bpf_map_lookup_elem(&anic_owners, &owners);
	tenant--;
	if (!block || tenant >= ANIC_TENANTS_MAX - 1)
		return 0;
	return client ? block->client[tenant] : block->server[tenant];
}

/* The class that packets of a service count as. */
static __always_inline __u32 anic_class_of(const struct anic_service *row, __u32 tenant, __u32 service,
					   __u32 uses)
{
	struct anic_escalation key = { .tenant = tenant, .service = service };
	const __u32 *cls = uses & ANIC_USES_ESCALATIONS ? bpf_map_lookup_elem(&anic_escalated, &key) : NULL;

	return cls && *cls < ANIC_CLASS__MAX ? *cls : row->cls;
}

/* `sender`: the tenant that sent it, if that is known; it goes before addresses. */
static __always_inline __u32 anic_match(const struct anic_key *key, __u32 uses, __u32 sender)
{
	int in = ANIC_KEY_DIRECTION(key->word) == ANIC_DIRECTION_IN;
	int local_is_dst = in == !(uses & ANIC_FACES_WORKLOAD);
	__u32 slot = key->generation % ANIC_SLOTS, tenant = sender, service = 0, index;
	__u8 protocol = ANIC_KEY_PROTOCOL(key->word), dscp = ANIC_KEY_DSCP(key->word);
	int later = ANIC_KEY_FLAGS(key->word) & ANIC_KEY_LATER;
	__u32 ports_be = ANIC_KEY_PORTS_BE(key->word);
	__u16 src_port = bpf_ntohl(ports_be) >> 16, dst_port = (__u16)bpf_ntohl(ports_be);
	__u16 local_port = local_is_dst ? dst_port : src_port,
	      remote_port = local_is_dst ? src_port : dst_port;
	struct anic_port local = {}, remote = {};
	const struct anic_service *row;
	const struct anic_tenant *owner;
	const struct anic_policy *policy;
	const struct anic_port *port;

	if (anic_has_ports(protocol) && !later) {
		__u32 base = slot * ANIC_PORTS_MAX + (protocol == IPPROTO_TCP ? ANIC_PORTS : 0);

		index = base + local_port;
		port = bpf_map_lookup_elem(&anic_ports, &index);
		if (port)
			local = *port;
		index = base + remote_port;
		port = bpf_map_lookup_elem(&anic_ports, &index);
		if (port)
			remote = *port;
		if ((local.control & ANIC_ROLE_SERVER) || (remote.control & ANIC_ROLE_CLIENT))
			return ANIC_VERDICT_CONTROL;
	}
	if (!tenant && (uses & ANIC_USES_LOCALS))
		tenant = anic_tenant_by_prefix(&anic_locals, slot, key, local_is_dst);
	if (!tenant)
		tenant = anic_tenant_by_prefix(&anic_remotes, slot, key, !local_is_dst);
	if (tenant >= ANIC_TENANTS_MAX)
		tenant = 0;
	if (protocol == IPPROTO_UDP && dst_port == ANIC_ROCE_PORT && !later)
		return ANIC_VERDICT(0, ANIC_LANE(tenant, ANIC_CLASS_BULK), ANIC_REASON_PASS_ROCE);

	if (tenant && (local.tenants & ANIC_ROLE_SERVER))
		service = anic_owned_service(slot, tenant, local.owners, 0);
	if (!service && tenant && (remote.tenants & ANIC_ROLE_CLIENT))
		service = anic_owned_service(slot, tenant, remote.owners, 1);
	if (!service)
		service = local.server ? local.server : remote.client;
	if (service && service < ANIC_SERVICES_MAX) {
		index = slot * ANIC_SERVICES_MAX + service;
		row = bpf_map_lookup_elem(&anic_services, &index);
		if (row && row->cls)
			return ANIC_VERDICT(service,
					    ANIC_LANE(tenant, anic_class_of(row, tenant, service, uses)),
					    row->path == ANIC_PATH_XSK && in ? ANIC_REASON_REDIRECT_XSK
									     : ANIC_REASON_PASS_SERVICE);
	}
	policy = bpf_map_lookup_elem(&anic_policies, &slot);
	if (policy && !later && dscp < ANIC_DSCPS && policy->dscp[dscp])
		return ANIC_VERDICT(0, ANIC_LANE(tenant, policy->dscp[dscp]), ANIC_REASON_PASS_DSCP);
	index = slot * ANIC_TENANTS_MAX + tenant;
	owner = bpf_map_lookup_elem(&anic_tenants, &index);
	return ANIC_VERDICT(0, ANIC_LANE(tenant, owner && owner->cls ? owner->cls : ANIC_CLASS_DEFAULT),
			    later ? ANIC_REASON_PASS_FRAGMENT : ANIC_REASON_PASS_DEFAULT);
}

/* Whether the flows of a lane are spread over CPUs. */
static __always_inline int anic_is_spread(const struct anic_key *key, __u32 uses, __u32 lane)
{
	const struct anic_steering *steering;

	if (!(uses & ANIC_USES_CPUS) || ANIC_KEY_DIRECTION(key->word) != ANIC_DIRECTION_IN)
		return 0;
	if (ANIC_KEY_PROTOCOL(key->word) == IPPROTO_TCP && !(uses & ANIC_USES_CPUS_TCP))
		return 0;
	steering = bpf_map_lookup_elem(&anic_steering, &lane);
	return steering && steering->used;
}

/*
 * anic_match(). Not static: the verifier takes such a function once, for any arguments, instead of following
 * every way through it to the end of each program.
 */
__weak __noinline __u32 anic_look_up(const struct anic_key *key, __u32 uses, __u32 sender)
{
	__u32 verdict;

	if (!key)
		return ANIC_VERDICT_UNKNOWN(ANIC_REASON_PASS_DEFAULT);
	verdict = anic_match(key, uses, sender);
	if (anic_is_spread(key, uses, ANIC_VERDICT_LANE(verdict)))
		verdict |= ANIC_VERDICT_SPREAD;
	return verdict;
}

#endif
