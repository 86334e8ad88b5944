// SPDX-License-Identifier: GPL-2.0-only
/*
 * Not at any hook: one session of an agent, loaded beside the instance, whose maps it uses. Whoever has the
 * ring, the page and the program can propose, and nothing more; when the session is over, neither.
 */
#include "session/session.bpf.h"

SEC("raw_tp")
int anic_drain(struct anic_draining *order)
{
	return anic_drain_at(order, 0);
}

char LICENSE[] SEC("license") = "GPL";
