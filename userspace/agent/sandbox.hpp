// SPDX-License-Identifier: Apache-2.0
#pragma once

/// What an agent is kept in. docs/agent.md says what each part keeps it from.

#include <sys/types.h>

#include <cstdint>
#include <functional>
#include <string>

#include "agent/cgroup.hpp"
#include "base/result.hpp"

namespace agentnic::agent {

/// Whom it runs as, and whether it may use the network.
struct Confinement {
  uid_t uid = 0;
  gid_t gid = 0;
  bool network = false;
};

/// Bad input when there is no such user, or when it is root.
Result<Confinement> confinement_of(const std::string& user);

/// Starts a process in the cgroup and in namespaces of its own; when this one ends, the kernel kills it. It
/// calls `run`, whose answer is its exit status. Only where no other thread runs.
Result<pid_t> start_confined(const Cgroup& cgroup, const Confinement& confinement,
                             const std::function<int()>& run);

/// For somebody who has no privileges to give up: a copy of this process, which the kernel kills when this
/// one ends.
Result<pid_t> start_unconfined(const std::function<int()>& run);

/// Of such a copy: no terminal, and no way to get privileges.
Status give_up_chances();

/// Of the process that start_confined() made, before anything else: read-only files, no privileges, no way to
/// get some. It does not come back from this when its supervisor has ended.
Status give_up_privileges(const Cgroup& cgroup, const Confinement& confinement);

/// Of a process that has what it needs: it may compute, wait, read, write, and run BPF programs that it
/// holds, and nothing else.
Status allow_drains_alone();

/// Of a process that becomes somebody's program: no BPF, no tracing, no mounts, no namespaces, no keys, no
/// io_uring, no other death signal, and, without network, no sockets but connected pairs.
Status forbid_privileged_calls(bool network);

}  // namespace agentnic::agent
