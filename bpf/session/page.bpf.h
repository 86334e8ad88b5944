/* SPDX-License-Identifier: GPL-2.0-only */
/* Which session this is, and the page of its holder. */
#ifndef ANIC_SESSION_PAGE_BPF_H
#define ANIC_SESSION_PAGE_BPF_H

#include "abi/observe.h"
#include "guardian.bpf.h"

/* Its holder maps it to read; frozen, so that nobody writes to it. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__uint(map_flags, BPF_F_MMAPABLE);
	__type(key, __u32);
	__type(value, struct anic_page);
} session_page SEC(".maps");

const volatile __u32 anic_session_slot = 0;
const volatile __u64 anic_session_id = 0;

static __always_inline struct anic_page *anic_page_of(void)
{
	__u32 zero = 0;

	return bpf_map_lookup_elem(&session_page, &zero);
}

#endif
