// SPDX-License-Identifier: Apache-2.0
#include "kern/steering.hpp"

#include <bpf/bpf.h>
#include <bpf/btf.h>
#include <fmt/format.h>
#include <linux/bpf.h>

#include <cerrno>
#include <charconv>
#include <cstring>
#include <memory>
#include <set>
#include <string_view>

#include "abi/steer.h"
#include "base/file.hpp"

namespace agentnic::kern {
namespace {

constexpr const char* kOnline = "/sys/devices/system/cpu/online";

/// A list such as "0-3,6" of sysfs.
std::set<unsigned> parse_cpu_list(std::string_view text) {
  std::set<unsigned> cpus;
  const char* at = text.data();
  const char* const end = at + text.size();
  while (at != end) {
    unsigned first = 0;
    auto [next, error] = std::from_chars(at, end, first);
    if (error != std::errc()) break;
    unsigned last = first;
    if (next != end && *next == '-') next = std::from_chars(next + 1, end, last).ptr;
    for (unsigned cpu = first; cpu <= last && cpu < ANIC_CPUS_MAX; ++cpu) cpus.insert(cpu);
    at = next != end ? next + 1 : end;
  }
  return cpus;
}

Status put_queue(const Maps& maps, std::uint32_t cpu, int arrive_fd) {
  bpf_cpumap_val value{};
  value.qsize = ANIC_STEER_QUEUE;
  value.bpf_prog.fd = arrive_fd;
  if (bpf_map_update_elem(maps.fd("anic_cpumap"), &cpu, &value, BPF_ANY) != 0)
    return fail_errno(errno, fmt::format("make the queue of CPU {} in the cpumap", cpu));
  return {};
}

bool has_queue(const Maps& maps, std::uint32_t cpu) {
  bpf_cpumap_val value{};
  return bpf_map_lookup_elem(maps.fd("anic_cpumap"), &cpu, &value) == 0 && value.qsize != 0;
}

}  // namespace

bool cpumap_does_gro() {
  const std::unique_ptr<btf, decltype(&btf__free)> kernel(btf__load_vmlinux_btf(), btf__free);
  if (!kernel) return false;
  const int id = btf__find_by_name_kind(kernel.get(), "bpf_cpu_map_entry", BTF_KIND_STRUCT);
  const btf_type* entry = id > 0 ? btf__type_by_id(kernel.get(), static_cast<__u32>(id)) : nullptr;
  if (entry == nullptr) return false;
  const btf_member* member = btf_members(entry);
  for (unsigned i = 0; i < btf_vlen(entry); ++i) {
    const char* name = btf__name_by_offset(kernel.get(), member[i].name_off);
    if (name != nullptr && std::strcmp(name, "gro") == 0) return true;
  }
  return false;
}

std::vector<std::string> steering_notes(std::uint32_t uses, anic_mode mode, const std::string& driver) {
  if ((uses & ANIC_USES_CPUS) == 0) return {};
  if (mode == ANIC_MODE_SKB) {
    return {
        "cpus are not followed in mode skb: kernels were seen to lose what generic XDP redirects to a CPU"};
  }
  if (mode == ANIC_MODE_TC) return {"cpus are not followed in mode tc, which cannot redirect to a CPU"};
  std::vector<std::string> notes;
  if ((uses & ANIC_USES_CPUS_TCP) == 0)
    notes.emplace_back("TCP stays on the CPU that it comes to: cpumap of this kernel does no GRO");
  if (driver == "veth") {
    notes.emplace_back(
        "what is steered has lost word of its checksum: senders on this veth must complete theirs, by "
        "ethtool -K PEER tx off");
  }
  return notes;
}

Status fit_steering(policy::Tables& tables) {
  if ((tables.policy.uses & ANIC_USES_CPUS) == 0) return {};
  const std::string list = ANIC_TRY(read_file(kOnline, 4096));
  const std::set<unsigned> online = parse_cpu_list(list);
  for (std::uint32_t lane = 0; lane < tables.spread.size(); ++lane) {
    for (const unsigned cpu : policy::cpus_of(tables.spread[lane])) {
      if (online.contains(cpu)) continue;
      const std::uint32_t tenant = lane / ANIC_CLASS__MAX;
      return fail(Exit::Unsupported,
                  fmt::format("spread lane {}/{} over CPU {}, which is not online",
                              tenant == 0 ? "(none)" : tables.tenants[tenant].name,
                              policy::class_name(lane % ANIC_CLASS__MAX), cpu),
                  fmt::format("CPUs online: {}", list.substr(0, list.find('\n'))));
    }
  }
  if (cpumap_does_gro()) tables.policy.uses |= ANIC_USES_CPUS_TCP;
  return {};
}

Status open_cpu_queues(const Maps& maps, int arrive_fd, std::span<const anic_spread> lanes) {
  for (const anic_spread& spread : lanes) {
    for (const unsigned cpu : policy::cpus_of(spread)) {
      if (!has_queue(maps, cpu)) ANIC_TRY(put_queue(maps, cpu, arrive_fd));
    }
  }
  return {};
}

Status renew_cpu_queues(const Maps& maps, int arrive_fd) {
  for (std::uint32_t cpu = 0; cpu < possible_cpus(); ++cpu) {
    if (has_queue(maps, cpu)) ANIC_TRY(put_queue(maps, cpu, arrive_fd));
  }
  return {};
}

}  // namespace agentnic::kern
