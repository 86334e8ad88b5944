/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * The policy in force, as tables. There are two slots; generation g stands in slot g % 2. Userspace fills the
 * slot that is not in force, and the anic_commit program makes it the one that is, by one word. Ids of
 * tenants and services are stable: who keeps its name keeps its id, and with it its counters.
 */
#ifndef ANIC_ABI_POLICY_H
#define ANIC_ABI_POLICY_H

#include "abi/types.h"

#define ANIC_DIGEST_LEN 32 /* SHA-256 */
#define ANIC_DSCPS 64
#define ANIC_WEIGHT_MAX 1000
#define ANIC_SENDERS_MAX 4096
#define ANIC_CGROUP_DEPTH_MAX 16 /* of a cgroup that a policy names, below the root */

/*
 * The key of the tries anic_remotes and anic_locals: an IPv6 prefix. The value is a tenant id. IPv4 addresses
 * are the second of its words and ANIC_PREFIX_IPV4 the first: at each node the kernel compares 64 bits first,
 * and of v4-mapped addresses (RFC 4291, 2.5.5.2), as which people know them, these are all the same. Of IPv6,
 * all else below ::/16 is reserved (RFC 4291, 2.4): it has no longer prefix than this.
 */
#define ANIC_PREFIX_IPV4 0x0000ffff
#define ANIC_PREFIX_IPV4_BITS 32
#define ANIC_PREFIX_RESERVED_BITS 16

struct anic_prefix {
	__u32 length; /* bits, 0 to 128 */
	__u32 address_be[4];
};
ANIC_ASSERT(sizeof(struct anic_prefix) == 20);

/*
 * The value of anic_ports: what a port means, whoever it belongs to. Its index is the port, plus ANIC_PORTS
 * for TCP. One access says whether any further look-up can find something.
 */
#define ANIC_PORTS 65536
#define ANIC_PORTS_MAX (2 * ANIC_PORTS)

struct anic_port {
	__u16 server; /* the service of any tenant that has it as its local port, or 0 */
	__u16 client; /* ... as its remote port */
	__u8 control; /* enum anic_role: the ends at which it is control traffic */
	__u8 tenants; /* enum anic_role: the ends at which single tenants have services */
	__u16 owners; /* if there are: the index in anic_owners */
};
ANIC_ASSERT(sizeof(struct anic_port) == 8);

/* The value of anic_owners: the services that single tenants have on one port, by tenant id less 1. */
#define ANIC_OWNERS_MAX ANIC_SERVICES_MAX /* each has a service at least; [0] stays empty */

struct anic_owners {
	__u16 server[ANIC_TENANTS_MAX - 1];
	__u16 client[ANIC_TENANTS_MAX - 1];
};
ANIC_ASSERT(sizeof(struct anic_owners) == 256);

/* A port that means something to one tenant: as userspace compiles it, before it is put into struct
 * anic_owners. */
struct anic_owned_port {
	__u16 port;
	__u8 tenant;
	__u8 protocol; /* IPPROTO_UDP or IPPROTO_TCP */
	__u8 role;     /* ANIC_ROLE_SERVER or ANIC_ROLE_CLIENT */
	__u8 _pad[3];
};
ANIC_ASSERT(sizeof(struct anic_owned_port) == 8);

/* The key of anic_senders: who sent what leaves this host. The value is a tenant id (__u32). */
enum anic_sender_kind {
	ANIC_SENDER_NONE = 0,
	ANIC_SENDER_MARK = 1,	/* of the skb (SO_MARK) */
	ANIC_SENDER_CGROUP = 2, /* cgroup2 id of the socket, or of one above it */
	ANIC_SENDER__MAX = 3,
};

struct anic_sender {
	__u64 id;
	__u32 kind; /* enum anic_sender_kind */
	__u32 _pad;
};
ANIC_ASSERT(sizeof(struct anic_sender) == 16);

#define ANIC_NO_OWNER 0xffffffff /* no user's id: (uid_t)-1 */

/* The value of anic_services, indexed by slot * ANIC_SERVICES_MAX + id. An unused row is zero. */
struct anic_service {
	char name[ANIC_NAME_LEN];
	__u16 port;
	__u8 protocol; /* IPPROTO_UDP or IPPROTO_TCP */
	__u8 role;     /* enum anic_role */
	__u8 tenant;   /* id, or 0 for any */
	__u8 cls;      /* enum anic_class */
	__u8 path;     /* enum anic_path */
	__u8 fresh;    /* 1: the id had another name before, so that anic_commit clears its counters */
	__u32 owner;   /* uid of who may own its AF_XDP sockets, or ANIC_NO_OWNER */
	__u32 _pad;
};
ANIC_ASSERT(sizeof(struct anic_service) == ANIC_NAME_LEN + 16);

/* The value of anic_tenants, indexed by slot * ANIC_TENANTS_MAX + id. An unused row has no name. */
struct anic_tenant {
	char name[ANIC_NAME_LEN];
	__u8 cls;   /* enum anic_class: what no service and no DSCP says otherwise */
	__u8 fresh; /* as of a service */
	__u8 _pad[6];
};
ANIC_ASSERT(sizeof(struct anic_tenant) == ANIC_NAME_LEN + 8);

/* What a policy has, so that what it has not costs nothing. */
enum anic_uses {
	ANIC_USES_LOCALS = 1,  /* prefixes of local addresses */
	ANIC_USES_MARKS = 2,   /* tenants by mark */
	ANIC_USES_CGROUPS = 4, /* tenants by cgroup */
	ANIC_FACES_WORKLOAD =
		8,	   /* the interface is the host's end of a workload's: local and remote are swapped */
	ANIC_USES_FQ = 16, /* not of the policy: the interface has fq at its root, which keeps packets until
			      they may leave */
	ANIC_USES_CPUS = 32,	     /* lanes are spread over CPUs */
	ANIC_USES_CPUS_TCP = 64,     /* ... TCP too. Not of the policy: cpumap of this kernel does GRO */
	ANIC_USES_ESCALATIONS = 128, /* not of the policy: services are treated as another class */
};

/* The value of anic_policies, indexed by slot. */
struct anic_policy {
	__u32 uses;	     /* enum anic_uses */
	__u32 cgroup_depths; /* bit d: the policy names a cgroup d levels below the root */
	__u32 control_alarm; /* control packets a second, on all CPUs, above which it is an alarm; 0: none */
	__u32 prefixes;	     /* how many there are; tenants and services have rows */
	__u64 link_rate_bps; /* 0: not stated */
	__u64 committed_at_ns;	      /* wall clock, since 1970 */
	__u8 dscp[ANIC_DSCPS];	      /* enum anic_class, or 0 */
	__u8 digest[ANIC_DIGEST_LEN]; /* SHA-256 of the policy in canonical form */
	char name[ANIC_NAME_LEN];
};
ANIC_ASSERT(sizeof(struct anic_policy) == 160);

/*
 * The one entry of anic_state, which BPF programs alone write once userspace has frozen it. A packet reads
 * `word` once.
 */
#define ANIC_HASH_KEYS 14 /* a pair for each 64-bit word of a key */

struct anic_state {
	__u64 word;	   /* generation in bits 0 to 31, enum anic_uses in bits 32 to 47, and in the rest how
			      many policies came in force; 0: none. An escalation adds ANIC_SLOTS to the
			      generation, which voids the flow cache, and is no other policy */
	__u64 hash_factor; /* odd; like the keys random, of this instance: nobody can aim at an entry of the
			      flow cache */
	__u32 hash_keys[ANIC_HASH_KEYS];
	/* For owners of AF_XDP sockets, a clock that costs nothing to read: it goes on at each tick, like
	 * CLOCK_MONOTONIC, but by ANIC_OWNER_STEP_NS at most, so that a late tick makes nobody late */
	__u64 tick_ns;
	__u64 ticked_ns; /* CLOCK_MONOTONIC: of the last tick */
};
ANIC_ASSERT(sizeof(struct anic_state) == 88);
#define ANIC_STATE_POLICIES(word) ((__u32)((word) >> 48))
#define ANIC_STATE_WORD(generation, uses, policies)                                                          \
	((__u64)(policies) << 48 | (__u64)((uses) & 0xffff) << 32 | (__u32)(generation))

/* The argument of the anic_prepare program. */
struct anic_prepare {
	__u32 expected; /* the generation in force; another one is refused */
	__u32 _pad;
};
ANIC_ASSERT(sizeof(struct anic_prepare) == 8);

#endif
