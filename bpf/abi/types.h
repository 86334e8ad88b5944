/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * The words that kernel and userspace share: versions, limits, and the enums that maps hold.
 *
 * Everything under bpf/abi is plain C that also compiles as C++. Types have fixed widths, padding is
 * named, sizes are asserted beside each struct, enum values are explicit and never renumbered, and
 * zero is never a valid id. Fields are in host byte order unless their name ends in _be.
 */
#ifndef ANIC_ABI_TYPES_H
#define ANIC_ABI_TYPES_H

#include <linux/types.h>

#ifdef __cplusplus
#define ANIC_ASSERT(cond) static_assert(cond, #cond)
#else
#define ANIC_ASSERT(cond) _Static_assert(cond, #cond)
#endif

/* Changes whenever a pinned map changes its shape or its meaning. */
#define ANIC_ABI_VERSION 9

#define ANIC_NAME_LEN 32	/* names of policies, tenants and services, with the final NUL */
#define ANIC_TENANTS_MAX 65	/* tenant ids are 1 to 64; 0 is traffic of no tenant, control included */
#define ANIC_SERVICES_MAX 10240 /* service ids are 1 to 10239; 0 is "no service" */
#define ANIC_QUEUES_MAX 256	/* queues that are counted, and that can own an AF_XDP socket */
#define ANIC_SLOTS 2		/* of policy: generation g is in slot g % 2 */

/* What traffic is for. */
enum anic_class {
	ANIC_CLASS_NONE = 0,
	ANIC_CLASS_CONTROL = 1,	  /* ARP, neighbour discovery, ICMP errors, and what the policy lists */
	ANIC_CLASS_DEFAULT = 2,	  /* what no rule names */
	ANIC_CLASS_RPC = 3,	  /* agent RPC, 64 B to 8 KB */
	ANIC_CLASS_RETRIEVAL = 4, /* retrieval, 1 to 64 KB */
	ANIC_CLASS_BULK = 5,	  /* state transfer, 64 KB to 4 MB */
	ANIC_CLASS__MAX = 6,
};

/* Where a packet goes. */
enum anic_path {
	ANIC_PATH_NONE = 0,
	ANIC_PATH_KERNEL = 1, /* path A */
	ANIC_PATH_XSK = 2,    /* path B */
	ANIC_PATH__MAX = 3,
};

/* Which way a packet goes, as the interface sees it. */
enum anic_direction {
	ANIC_DIRECTION_IN = 0,
	ANIC_DIRECTION_OUT = 1,
	ANIC_DIRECTION__MAX = 2,
};

/* Which end of a flow a service names. */
enum anic_role {
	ANIC_ROLE_NONE = 0,
	ANIC_ROLE_SERVER = 1, /* the local port */
	ANIC_ROLE_CLIENT = 2, /* the remote port */
	ANIC_ROLE_BOTH = 3,   /* either: the bits of both */
	ANIC_ROLE__MAX = 4,
};

/* Where a program sits, as the pinned meta map records it. */
enum anic_hook {
	ANIC_HOOK_NONE = 0,
	ANIC_HOOK_XDP_LINK = 1,	      /* one program under a bpf_link of its own */
	ANIC_HOOK_XDP_DISPATCHER = 2, /* one of several under libxdp's dispatcher */
	ANIC_HOOK_TCX = 3,	      /* a tcx link */
	ANIC_HOOK_CLSACT = 4,	      /* a filter of a clsact qdisc, where there is no tcx */
	ANIC_HOOK__MAX = 5,
};

/* How the ingress program runs there. */
enum anic_mode {
	ANIC_MODE_NONE = 0,
	ANIC_MODE_NATIVE = 1, /* XDP in the driver */
	ANIC_MODE_SKB = 2,    /* generic XDP, after the skb was made */
	ANIC_MODE_TC = 3,     /* not XDP */
	ANIC_MODE__MAX = 4,
};

#endif
