// SPDX-License-Identifier: Apache-2.0
#pragma once

/// Generations of policy in the maps of an instance: reading the one in force, putting another in force.
///
/// Filling the idle slot changes nothing for any packet, nor does anic_prepare; anic_commit then changes one
/// word. Whatever stops before that leaves the old generation in force, and a slot that the next install
/// fills anew.

#include <cstdint>
#include <string>
#include <vector>

#include "base/result.hpp"
#include "kern/maps.hpp"
#include "policy/compile.hpp"

namespace agentnic::kern {

/// What is in force. Generation 0: nothing yet.
struct InForce {
  std::uint32_t generation = 0;
  anic_policy policy{};
};
Result<InForce> read_in_force(const Maps& maps);

/// Of the tables in force those that have names: tenants and services.
Result<policy::Tables> read_names(const Maps& maps);

/// A service on path xsk.
struct XskService {
  std::string name;
  std::uint32_t owner = ANIC_NO_OWNER;  ///< uid of who may own its AF_XDP sockets
  std::uint8_t protocol = 0;
  std::uint16_t port = 0;
  anic_role role = ANIC_ROLE_SERVER;
};

/// Those of the policy in force, by id, whether or not their lanes are kept on path A. Needs no lock: never
/// of two policies.
Result<std::vector<XskService>> xsk_services_in_force(const Maps& maps);

/// The CPUs of each lane, by id.
Result<std::vector<anic_spread>> read_spread(const Maps& maps);

/// The tables of the generation in force; cgroups are among the senders, by id.
Result<policy::Tables> read_tables(const Maps& maps);

/// The names of those tables.
policy::Ids ids_of(const policy::Tables& tables);

/// A policy as tables, with the ids that names have already; cgroups and owners are looked up, and bad input
/// if one is not there.
Result<policy::Tables> tables_of(const policy::Policy& policy, const policy::Ids& ids);

/// What a commit needs beside the maps; borrowed.
struct CommitPrograms {
  int prepare_fd = -1;
  int commit_fd = -1;
  int arrive_fd = -1;  ///< -1: no CPU gets a queue, and packets stay where they come
};

/// Fills the idle slot and puts it in force by running anic_prepare and anic_commit. Only for who holds the
/// lock of the pins. `now_ns`: CLOCK_MONOTONIC of tests, whose anic_commit looks at it.
Status install(const Maps& maps, const CommitPrograms& programs, policy::Tables tables,
               std::uint64_t now_ns = 0);

/// Bytes of kernel memory that all maps of an instance take at most with these tables in both slots and
/// `cpus` possible CPUs. Nodes of tries and hashes are counted as Linux 6.18 makes them.
std::uint64_t memory_bytes(const policy::Tables& tables, unsigned cpus);

}  // namespace agentnic::kern
