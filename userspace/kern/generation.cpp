// SPDX-License-Identifier: Apache-2.0
#include "kern/generation.hpp"

#include <bpf/bpf.h>
#include <fcntl.h>
#include <fmt/format.h>
#include <netinet/in.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cerrno>
#include <cstring>
#include <fstream>
#include <iterator>
#include <numeric>
#include <span>
#include <utility>
#include <vector>

#include "abi/flow.h"
#include "abi/meta.h"
#include "abi/share.h"
#include "abi/stats.h"
#include "abi/turn.h"
#include "base/clock.hpp"
#include "base/user.hpp"
#include "kern/order.hpp"
#include "kern/steering.hpp"

namespace agentnic::kern {
namespace {

constexpr std::size_t kBatch = 4096;
constexpr int kCommitTries = 10;

/// The inner map of `outer` in this slot.
Result<UniqueFd> open_inner(const Maps& maps, const char* outer, std::uint32_t slot) {
  std::uint32_t id = 0;
  ANIC_TRY(maps.read(outer, slot, id));
  UniqueFd fd(bpf_map_get_fd_by_id(id));
  if (!fd) return fail_errno(errno, fmt::format("open slot {} of map {}", slot, outer));
  return fd;
}

/// All keys and values of an inner map.
template <typename Key, typename Value>
Result<std::map<Key, Value>> read_all(const Maps& maps, const char* outer, std::uint32_t slot) {
  const UniqueFd inner = ANIC_TRY(open_inner(maps, outer, slot));
  std::map<Key, Value> all;
  std::vector<Key> keys(kBatch);
  std::vector<Value> values(kBatch);
  std::array<std::byte, 64> place{};  // where the kernel goes on
  bool first = true;
  for (bool more = true; more; first = false) {
    LIBBPF_OPTS(bpf_map_batch_opts, batch);
    auto count = static_cast<std::uint32_t>(kBatch);
    more = bpf_map_lookup_batch(inner.get(), first ? nullptr : place.data(), place.data(), keys.data(),
                                values.data(), &count, &batch) == 0;
    if (!more && errno != ENOENT) return fail_errno(errno, fmt::format("read map {}", outer));
    for (std::uint32_t i = 0; i < count; ++i) all.emplace(keys[i], values[i]);
  }
  return all;
}

/// A map of the kind that `outer` holds, filled.
template <typename Key, typename Value>
Result<UniqueFd> make_inner(const char* outer, bpf_map_type type, std::uint32_t max_entries,
                            std::uint32_t flags, const std::map<Key, Value>& entries) {
  LIBBPF_OPTS(bpf_map_create_opts, options);
  options.map_flags = flags;
  UniqueFd fd(bpf_map_create(type, outer, sizeof(Key), sizeof(Value), max_entries, &options));
  if (!fd) return fail_errno(errno, fmt::format("make a map for {} with {} entries", outer, max_entries));
  std::vector<Key> keys;
  std::vector<Value> values;
  const auto flush = [&]() -> Status {
    LIBBPF_OPTS(bpf_map_batch_opts, batch);
    auto count = static_cast<std::uint32_t>(keys.size());
    if (count != 0 && bpf_map_update_batch(fd.get(), keys.data(), values.data(), &count, &batch) != 0)
      return fail_errno(errno, fmt::format("fill map {}", outer));
    keys.clear();
    values.clear();
    return {};
  };
  for (const auto& [key, value] : entries) {
    keys.push_back(key);
    values.push_back(value);
    if (keys.size() == kBatch) ANIC_TRY(flush());
  }
  ANIC_TRY(flush());
  return fd;
}

std::uint32_t room_for(std::size_t entries) {
  return static_cast<std::uint32_t>(std::max<std::size_t>(entries, 1));
}

/// Waits until no program is running that read the generation word before the last commit: the kernel ends a
/// write to a map of maps with a grace period (maybe_wait_bpf_programs() in kernel/bpf/syscall.c), and what
/// is written here is what stands there.
Status settle(const Maps& maps, std::uint32_t slot) {
  const UniqueFd inner = ANIC_TRY(open_inner(maps, "anic_remotes", slot));
  return maps.write("anic_remotes", slot, inner.get());
}

/// `count` rows from `first`, zero beyond `rows`.
template <typename Row>
Status write_rows(const Maps& maps, const char* name, std::uint32_t first, std::uint32_t count,
                  std::span<const Row> rows) {
  std::vector<Row> values(rows.begin(), rows.end());
  values.resize(count);
  std::vector<std::uint32_t> indices(count);
  std::iota(indices.begin(), indices.end(), first);
  LIBBPF_OPTS(bpf_map_batch_opts, batch);
  if (bpf_map_update_batch(maps.fd(name), indices.data(), values.data(), &count, &batch) != 0)
    return fail_errno(errno, fmt::format("fill map {}", name));
  return {};
}

/// Ports with their owners, as the kernel has them.
struct PortTables {
  std::vector<anic_port> ports;     ///< by port_index()
  std::vector<anic_owners> owners;  ///< [0] stays empty
};

PortTables join_owners(const policy::Tables& tables) {
  PortTables joined{std::vector<anic_port>(ANIC_PORTS_MAX), std::vector<anic_owners>(1)};
  for (const auto& [index, port] : tables.ports) joined.ports[index] = port;
  for (const auto& [key, service] : tables.owned) {
    anic_port& port = joined.ports[policy::port_index(key.protocol, key.port)];
    if (port.owners == 0) {
      port.owners = static_cast<__u16>(joined.owners.size());
      joined.owners.emplace_back();
    }
    anic_owners& block = joined.owners[port.owners];
    const std::span ends(key.role == ANIC_ROLE_SERVER ? block.server : block.client);
    ends[key.tenant - 1U] = static_cast<__u16>(service);
  }
  return joined;
}

/// The other way round.
void part_owners(PortTables joined, policy::Tables& tables) {
  for (std::uint32_t index = 0; index < joined.ports.size(); ++index) {
    anic_port& port = joined.ports[index];
    if (port == anic_port{}) continue;
    const auto add = [&](std::span<const __u16> ends, std::uint8_t role) {
      for (std::size_t i = 0; i < ends.size(); ++i) {
        if (ends[i] == 0) continue;
        const anic_owned_port key{
            .port = static_cast<__u16>(index % ANIC_PORTS),
            .tenant = static_cast<__u8>(i + 1),
            .protocol = static_cast<__u8>(index >= ANIC_PORTS ? IPPROTO_TCP : IPPROTO_UDP),
            .role = role,
            ._pad = {}};
        tables.owned[key] = ends[i];
      }
    };
    if (port.owners != 0) {
      const anic_owners& block = joined.owners[port.owners];
      add(block.server, ANIC_ROLE_SERVER);
      add(block.client, ANIC_ROLE_CLIENT);
    }
    port.owners = 0;
    tables.ports.emplace(index, port);
  }
}

Status fill_slot(const Maps& maps, std::uint32_t slot, const policy::Tables& tables) {
  const auto put = [&](const char* outer, bpf_map_type type, std::uint32_t room, std::uint32_t flags,
                       const auto& entries) -> Status {
    const UniqueFd inner = ANIC_TRY(make_inner(outer, type, room, flags, entries));
    return maps.write(outer, slot, inner.get());
  };
  const auto put_trie = [&](const char* outer, const auto& prefixes) {
    return put(outer, BPF_MAP_TYPE_LPM_TRIE, room_for(prefixes.size()), BPF_F_NO_PREALLOC, prefixes);
  };
  ANIC_TRY(put_trie("anic_remotes", tables.remotes));
  ANIC_TRY(put_trie("anic_locals", tables.locals));
  ANIC_TRY(put("anic_senders", BPF_MAP_TYPE_HASH, room_for(tables.senders.size()), 0, tables.senders));
  const PortTables ports = join_owners(tables);
  ANIC_TRY(
      write_rows<anic_owners>(maps, "anic_owners", slot * ANIC_OWNERS_MAX, ANIC_OWNERS_MAX, ports.owners));
  ANIC_TRY(write_rows<anic_port>(maps, "anic_ports", slot * ANIC_PORTS_MAX, ANIC_PORTS_MAX, ports.ports));
  ANIC_TRY(write_rows<anic_service>(maps, "anic_services", slot * ANIC_SERVICES_MAX, ANIC_SERVICES_MAX,
                                    tables.services));
  ANIC_TRY(write_rows<anic_tenant>(maps, "anic_tenants", slot * ANIC_TENANTS_MAX, ANIC_TENANTS_MAX,
                                   tables.tenants));
  ANIC_TRY(
      write_rows<anic_lane>(maps, "anic_staging", 0, ANIC_PROFILES_STATED * ANIC_LANES_MAX, tables.lanes));
  ANIC_TRY(write_rows<anic_spread>(maps, "anic_spread", 0, ANIC_LANES_MAX, tables.spread));
  ANIC_TRY(maps.write("anic_staged", 0, tables.guarding));
  return maps.write("anic_policies", slot, tables.policy);
}

/// Rows whose id had no name, or another one, in the generation before: their counters begin anew.
template <typename Row>
void mark_fresh(std::vector<Row>& rows, const std::vector<Row>& before) {
  for (std::size_t id = 1; id < rows.size(); ++id) {
    const bool same = id < before.size() && std::strncmp(rows[id].name, before[id].name, ANIC_NAME_LEN) == 0;
    rows[id].fresh = rows[id].name[0] != '\0' && !same ? 1 : 0;
  }
}

/// `count` rows from `first` on.
template <typename Row>
Result<std::vector<Row>> read_rows(const Maps& maps, const char* name, std::uint32_t first,
                                   std::uint32_t count) {
  std::vector<Row> rows(count);
  std::vector<std::uint32_t> indices(count);
  std::uint32_t before = first - 1;
  std::uint32_t last = 0;
  LIBBPF_OPTS(bpf_map_batch_opts, batch);
  const std::uint32_t wanted = count;
  const int code = bpf_map_lookup_batch(maps.fd(name), first == 0 ? nullptr : &before, &last, indices.data(),
                                        rows.data(), &count, &batch);
  if ((code != 0 && errno != ENOENT) || count != wanted)
    return fail_errno(code != 0 ? errno : EIO, fmt::format("read map {}", name));
  if constexpr (requires { rows[0].fresh; }) {
    for (Row& row : rows) row.fresh = 0;  // the kernel's, not the policy's
  }
  return rows;
}

Result<std::string> cgroup2_root() {
  std::ifstream mounts("/proc/self/mounts");
  std::string device;
  std::string where;
  std::string type;
  std::string rest;
  while (mounts >> device >> where >> type && std::getline(mounts, rest)) {
    if (type == "cgroup2") return where;
  }
  return fail(Exit::Unsupported, "find the cgroup2 file system: none is mounted",
              "mount -t cgroup2 none /sys/fs/cgroup, or name no cgroups in the policy");
}

/// A cgroup's id is the file handle of its folder.
Result<std::uint64_t> cgroup_id(const std::string& folder) {
  constexpr std::size_t kIdBytes = sizeof(std::uint64_t);
  alignas(file_handle) std::array<std::byte, sizeof(file_handle) + kIdBytes> buffer{};
  auto* handle = reinterpret_cast<file_handle*>(buffer.data());
  handle->handle_bytes = kIdBytes;
  int mount_id = 0;
  if (::name_to_handle_at(AT_FDCWD, folder.c_str(), handle, &mount_id, 0) != 0) {
    const int code = errno;
    if (code == ENOENT)
      return fail(Exit::BadInput, fmt::format("find the cgroup {}: there is none", folder), "mkdir makes it");
    return fail_errno(code, "find the id of the cgroup " + folder);
  }
  std::uint64_t id = 0;
  std::memcpy(&id, buffer.data() + sizeof(file_handle), sizeof(id));
  return id;
}

/// Users' names become their ids.
Status find_owners(policy::Tables& tables) {
  for (const auto& [id, user] : tables.users) {
    anic_service& service = tables.services[id];
    auto uid = find_uid(user);
    if (!uid) {
      uid.error().what =
          fmt::format("find the owner of service {}: {}", policy::name_in(service.name), uid.error().what);
      return fail(std::move(uid.error()));
    }
    service.owner = *uid;
  }
  tables.users.clear();
  return {};
}

/// Runs a program with `argument`; its answer is 0 or -errno.
Result<int> run_prepare(int prog_fd, anic_prepare argument) {
  LIBBPF_OPTS(bpf_test_run_opts, options);
  options.ctx_in = &argument;
  options.ctx_size_in = sizeof(argument);
  if (bpf_prog_test_run_opts(prog_fd, &options) != 0) return fail_errno(errno, "run anic_prepare");
  return static_cast<int>(options.retval);
}

/// Puts the filled slot in force. An escalation may come between: it leaves the slot what it is, and is
/// another generation.
Status commit(const Maps& maps, const CommitPrograms& programs, std::uint32_t expected, std::uint32_t uses,
              std::uint64_t now_ns) {
  const std::uint32_t parity = expected % ANIC_SLOTS;
  int code = -ESTALE;
  for (int tries = 0; code == -ESTALE && expected % ANIC_SLOTS == parity && tries < kCommitTries; ++tries) {
    code = ANIC_TRY(run_prepare(programs.prepare_fd, {.expected = expected, ._pad = 0}));
    if (code == 0) {
      anic_order order{};
      order.now_ns = now_ns;
      order.wall_ns = wall_ns();
      order.what = std::uint64_t{uses} << 32U | expected;
      code = ANIC_TRY(run_order(programs.commit_fd, order, "run anic_commit"));
    }
    if (code == -ESTALE) expected = ANIC_TRY(read_in_force(maps)).generation;
  }
  if (code != 0)
    return fail_errno(code, fmt::format("put the policy in force after generation {}", expected));
  return {};
}

}  // namespace

Result<InForce> read_in_force(const Maps& maps) {
  anic_state state{};
  ANIC_TRY(maps.read("anic_state", 0, state));
  InForce found;
  found.generation = static_cast<std::uint32_t>(state.word);
  if (found.generation != 0)
    ANIC_TRY(maps.read("anic_policies", found.generation % ANIC_SLOTS, found.policy));
  return found;
}

Result<policy::Tables> read_names(const Maps& maps) {
  const InForce in_force = ANIC_TRY(read_in_force(maps));
  policy::Tables tables;
  if (in_force.generation == 0) return tables;
  const std::uint32_t slot = in_force.generation % ANIC_SLOTS;
  tables.tenants =
      ANIC_TRY(read_rows<anic_tenant>(maps, "anic_tenants", slot * ANIC_TENANTS_MAX, ANIC_TENANTS_MAX));
  tables.services =
      ANIC_TRY(read_rows<anic_service>(maps, "anic_services", slot * ANIC_SERVICES_MAX, ANIC_SERVICES_MAX));
  while (tables.services.size() > 1 && tables.services.back().name[0] == '\0') tables.services.pop_back();
  return tables;
}

Result<std::vector<anic_spread>> read_spread(const Maps& maps) {
  std::vector<anic_spread> spread;
  for (const anic_steering& steering :
       ANIC_TRY(read_rows<anic_steering>(maps, "anic_steering", 0, ANIC_LANES_MAX)))
    spread.push_back(steering.stated);
  return spread;
}

Result<policy::Tables> read_tables(const Maps& maps) {
  const InForce in_force = ANIC_TRY(read_in_force(maps));
  policy::Tables tables = ANIC_TRY(read_names(maps));
  if (in_force.generation == 0) return tables;
  const std::uint32_t slot = in_force.generation % ANIC_SLOTS;
  tables.policy = in_force.policy;
  tables.policy.committed_at_ns = 0;
  tables.remotes = ANIC_TRY((read_all<anic_prefix, std::uint32_t>(maps, "anic_remotes", slot)));
  tables.locals = ANIC_TRY((read_all<anic_prefix, std::uint32_t>(maps, "anic_locals", slot)));
  tables.senders = ANIC_TRY((read_all<anic_sender, std::uint32_t>(maps, "anic_senders", slot)));
  PortTables ports;
  ports.owners =
      ANIC_TRY(read_rows<anic_owners>(maps, "anic_owners", slot * ANIC_OWNERS_MAX, ANIC_OWNERS_MAX));
  ports.ports = ANIC_TRY(read_rows<anic_port>(maps, "anic_ports", slot * ANIC_PORTS_MAX, ANIC_PORTS_MAX));
  part_owners(std::move(ports), tables);
  tables.lanes = ANIC_TRY(read_rows<anic_lane>(maps, "anic_lanes", slot * ANIC_PROFILE__MAX * ANIC_LANES_MAX,
                                               ANIC_PROFILES_STATED * ANIC_LANES_MAX));
  tables.spread = ANIC_TRY(read_spread(maps));
  ANIC_TRY(maps.read("anic_guarding", slot, tables.guarding));
  return tables;
}

policy::Ids ids_of(const policy::Tables& tables) {
  policy::Ids ids;
  for (std::size_t id = 1; id < tables.tenants.size(); ++id) {
    if (const char* name = tables.tenants[id].name; *name != '\0')
      ids.tenants[name] = static_cast<std::uint16_t>(id);
  }
  for (std::size_t id = 1; id < tables.services.size(); ++id) {
    if (const char* name = tables.services[id].name; *name != '\0')
      ids.services[name] = static_cast<std::uint16_t>(id);
  }
  for (std::size_t id = 1; id < ANIC_AGENTS_MAX; ++id) {
    if (const char* name = tables.guarding.agents[id].name; *name != '\0')
      ids.agents[name] = static_cast<std::uint16_t>(id);
  }
  return ids;
}

Result<std::vector<XskService>> xsk_services_in_force(const Maps& maps) {
  for (int tries = 0; tries < kCommitTries; ++tries) {
    const std::uint32_t generation = ANIC_TRY(read_in_force(maps)).generation;
    const policy::Tables tables = ANIC_TRY(read_names(maps));
    // the slot of a generation is filled anew only after the next one is in force
    if (ANIC_TRY(read_in_force(maps)).generation != generation) continue;
    std::vector<XskService> services;
    for (const anic_service& row : tables.services) {
      if (row.path != ANIC_PATH_XSK) continue;
      services.push_back({.name = policy::name_in(row.name),
                          .owner = row.owner,
                          .protocol = row.protocol,
                          .port = row.port,
                          .role = static_cast<anic_role>(row.role)});
    }
    return services;
  }
  return fail(Exit::Failed, "read the services in force: the policy changes all the time");
}

Result<policy::Tables> tables_of(const policy::Policy& policy, const policy::Ids& ids) {
  policy::Tables tables = policy::compile(policy, ANIC_TRY(policy::assign_ids(policy, ids)));
  ANIC_TRY(fit_steering(tables));
  ANIC_TRY(find_owners(tables));
  if (tables.cgroups.empty()) return tables;
  const std::string root = ANIC_TRY(cgroup2_root());
  for (const auto& [path, tenant] : tables.cgroups) {
    const std::uint64_t id = ANIC_TRY(cgroup_id(root + "/" + path));
    tables.senders[{.id = id, .kind = ANIC_SENDER_CGROUP, ._pad = 0}] = tenant;
  }
  tables.cgroups.clear();
  return tables;
}

Status install(const Maps& maps, const CommitPrograms& programs, policy::Tables tables,
               std::uint64_t now_ns) {
  const policy::Tables before = ANIC_TRY(read_tables(maps));
  const InForce in_force = ANIC_TRY(read_in_force(maps));
  if (in_force.generation != 0) ANIC_TRY(settle(maps, in_force.generation % ANIC_SLOTS));
  mark_fresh(tables.tenants, before.tenants);
  mark_fresh(tables.services, before.services);
  tables.policy.committed_at_ns = wall_ns();
  ANIC_TRY(fill_slot(maps, (in_force.generation + 1) % ANIC_SLOTS, tables));
  if (programs.arrive_fd >= 0) ANIC_TRY(open_cpu_queues(maps, programs.arrive_fd, tables.spread));

  return commit(maps, programs, in_force.generation, tables.policy.uses, now_ns);
}

std::uint64_t memory_bytes(const policy::Tables& tables, unsigned cpus) {
  // Nodes as the kernel's allocator rounds them: a trie has up to one inner node for each leaf.
  constexpr std::uint64_t kTrieNode = 64;
  constexpr std::uint64_t kHashNode = 80;
  constexpr std::uint64_t kHashBucket = 16;
  const auto hash = [&](std::size_t entries) {
    const std::uint64_t room = std::max<std::size_t>(entries, 1);
    return room * kHashNode + std::bit_ceil(room) * kHashBucket;
  };
  const std::uint64_t slot = 2 * kTrieNode * (tables.remotes.size() + tables.locals.size()) +
                             hash(tables.senders.size() + tables.cgroups.size()) +
                             ANIC_OWNERS_MAX * sizeof(anic_owners) + ANIC_PORTS_MAX * sizeof(anic_port) +
                             ANIC_SERVICES_MAX * sizeof(anic_service) +
                             ANIC_TENANTS_MAX * sizeof(anic_tenant) + sizeof(anic_policy) +
                             ANIC_PROFILE__MAX * ANIC_LANES_MAX * sizeof(anic_lane);
  return ANIC_SLOTS * slot + ANIC_PROFILES_STATED * ANIC_LANES_MAX * sizeof(anic_lane) +
         ANIC_LANES_MAX * (sizeof(anic_spread) + sizeof(anic_steering)) +
         std::uint64_t{cpus} * (sizeof(anic_cpu) + sizeof(void*)) + ANIC_FLOW_SETS * sizeof(anic_flow_set) +
         std::uint64_t{cpus} * sizeof(anic_counters) + ANIC_BUCKETS_MAX * sizeof(anic_bucket) +
         ANIC_DIRECTION__MAX * (ANIC_CLAIMS_MAX * sizeof(anic_claim) + sizeof(anic_sharing)) +
         ANIC_LEVELS_MAX * sizeof(anic_level) + ANIC_LANES_MAX * sizeof(anic_turn_lane) + sizeof(anic_modes) +
         (ANIC_SLOTS + 1) * sizeof(anic_guarding) + sizeof(anic_guard) +
         ANIC_TENANTS_MAX * (sizeof(anic_ward) + sizeof(anic_dump)) + ANIC_ACTION_ROWS * sizeof(anic_action) +
         ANIC_SESSIONS_MAX * sizeof(anic_session) + sizeof(anic_chain) +
         ANIC_WAITING_MAX * sizeof(anic_record) + hash(ANIC_ACTION_ROWS) + ANIC_AUDIT_BYTES +
         ANIC_QUEUES_MAX * sizeof(void*) + sizeof(anic_state) + sizeof(anic_control) + sizeof(anic_meta);
}

}  // namespace agentnic::kern
