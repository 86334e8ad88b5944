// SPDX-License-Identifier: Apache-2.0
#include "kern/instance.hpp"

#include <bpf/bpf.h>
#include <fmt/format.h>
#include <linux/capability.h>
#include <net/if.h>
#include <sys/syscall.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <system_error>
#include <utility>

#include "base/clock.hpp"
#include "policy/compile.hpp"

namespace agentnic::kern {
namespace {

constexpr const char* kLinkPin = "link";
constexpr const char* kMetaPin = "anic_meta";
constexpr const char* kCountersPin = "anic_counters";

Result<UniqueFd> open_pin(const PinDir& dir, const char* name) {
  UniqueFd fd(bpf_obj_get(dir.pin(name).c_str()));
  if (!fd) return fail_errno(errno, "open the pin " + dir.pin(name));
  return fd;
}

/// The meta map, whatever version wrote it: as much as both know. Zero beyond.
Result<anic_meta> read_meta(const PinDir& dir) {
  const UniqueFd fd = ANIC_TRY(open_pin(dir, kMetaPin));
  bpf_map_info info{};
  std::uint32_t size = sizeof(info);
  if (bpf_map_get_info_by_fd(fd.get(), &info, &size) != 0)
    return fail_errno(errno, "read " + dir.pin(kMetaPin));
  std::vector<std::uint8_t> value(std::max<std::size_t>(info.value_size, sizeof(anic_meta)));
  const std::uint32_t zero = 0;
  if (bpf_map_lookup_elem(fd.get(), &zero, value.data()) != 0)
    return fail_errno(errno, "read " + dir.pin(kMetaPin));
  anic_meta meta{};
  std::memcpy(&meta, value.data(), sizeof(meta));
  return meta;
}

std::uint32_t map_id(const PinDir& dir, const char* name) {
  const auto fd = open_pin(dir, name);
  bpf_map_info info{};
  std::uint32_t size = sizeof(info);
  return fd && bpf_map_get_info_by_fd(fd->get(), &info, &size) == 0 ? info.id : 0;
}

/// The interface and program of a pinned link; ifindex 0 once the interface is gone.
struct LinkState {
  std::uint32_t ifindex = 0;
  std::uint32_t prog_id = 0;
};
std::optional<LinkState> read_link(const PinDir& dir) {
  const auto fd = open_pin(dir, kLinkPin);
  bpf_link_info info{};
  std::uint32_t size = sizeof(info);
  if (!fd || bpf_link_get_info_by_fd(fd->get(), &info, &size) != 0) return std::nullopt;
  // The kernel's struct has the interface index in the same place for XDP and tcx links.
  return LinkState{info.xdp.ifindex, info.prog_id};
}

/// Our program in the dispatcher of the instance's interface.
std::optional<DispatcherMember> dispatcher_membership(const InstanceStatus& status) {
  const std::uint32_t counters = map_id(status.dir, kCountersPin);
  if (!status.netns || counters == 0) return std::nullopt;
  const auto found = status.netns->run([&]() -> Result<std::optional<DispatcherMember>> {
    return find_in_dispatcher(status.meta.ifindex, counters);
  });
  return found ? *found : std::nullopt;
}

/// Judges a link or a dispatcher membership whose meta map is known to be ours.
void judge(InstanceStatus& status) {
  constexpr const char* kGone =
      "the interface is gone or in another namespace, or the program was forced off it; detach removes what "
      "is left";
  const auto link = read_link(status.dir);
  status.ifindex = link ? link->ifindex : 0;
  status.prog_id = link ? link->prog_id : 0;
  // Under a dispatcher there is no link: the instance exists from the moment in which the program is there,
  // which is before the attach has written so.
  if (const auto member = link ? std::nullopt : dispatcher_membership(status)) {
    status.prog_id = member->prog_id;
    status.ifindex = status.meta.ifindex;
    status.meta.hook = ANIC_HOOK_XDP_DISPATCHER;
    status.meta.mode = static_cast<__u8>(member->mode);
  } else if (!link && status.meta.hook != ANIC_HOOK_XDP_DISPATCHER) {
    status.problem = "an attach was stopped half-way, or is going on; attach again, or detach";
    return;
  }
  status.health = Health::Gone;
  status.problem = kGone;
  if (status.ifindex == 0) return;
  if (status.netns) {
    const auto name = status.netns->run([&]() -> Result<std::string> {
      // A moved interface has its index in another namespace, where it may be anybody's here.
      const auto hook = static_cast<anic_hook>(status.meta.hook);
      if (link && !is_on_interface(status.ifindex, hook, status.prog_id)) return std::string();
      char buffer[IF_NAMESIZE] = {};
      return std::string(::if_indextoname(status.ifindex, buffer) != nullptr ? buffer : "");
    });
    if (!name || name->empty()) return;
    status.ifname = *name;
  }
  status.health = Health::Attached;
  status.problem.clear();
}

/// Where there is no link pin: our program may sit in a dispatcher, be it by a whole attach or by half of
/// one.
Status take_out_of_dispatcher(const PinDir& dir) {
  const std::uint32_t counters = map_id(dir, kCountersPin);
  const auto meta = read_meta(dir);
  if (counters == 0 || !meta || meta->ifindex == 0) return {};
  const auto netns = NetNs::find(dir.netns_inode, meta->netns_cookie);
  std::uint32_t attached_id = 0;
  if (netns) {
    ANIC_TRY(netns->run([&]() -> Result<bool> { return leave_dispatcher(meta->ifindex, counters); }));
    const auto there = netns->run([&] { return attached_xdp(meta->ifindex); });
    attached_id = there ? there->id : 0;
  } else if (meta->hook == ANIC_HOOK_XDP_DISPATCHER && NetNs::has_processes(dir.netns_inode)) {
    // A link could be detached from outside; a dispatcher's program cannot.
    return fail(Exit::Failed,
                fmt::format("detach from {}: its network namespace (inode {}) has no name here", dir.ifname,
                            dir.netns_inode),
                "run it inside that namespace: nsenter --net=/proc/PID/ns/net agentnic-load detach");
  }
  sweep_dispatchers(meta->ifindex, counters, attached_id);
  return {};
}

/// detach_instance() for who holds the lock.
Result<bool> detach_locked(const PinDir& dir) {
  std::error_code ignored;
  if (!std::filesystem::exists(dir.path(), ignored)) return false;
  if (const auto link = open_pin(dir, kLinkPin)) {
    // A link whose interface is gone answers ENOLINK; it has nothing left to detach.
    if (bpf_link_detach(link->get()) != 0 && errno != ENOLINK) {
      return fail_errno(errno, "detach the link " + dir.pin(kLinkPin));
    }
  } else {
    ANIC_TRY(take_out_of_dispatcher(dir));
  }
  ANIC_TRY(remove_pin_dir(dir));
  return true;
}

anic_meta make_meta(const NetNs& netns, const Interface& interface, const policy::Policy& policy) {
  anic_meta meta{};
  meta.abi_version = ANIC_ABI_VERSION;
  meta.meta_size = sizeof(meta);
  meta.netns_cookie = netns.cookie();
  meta.attached_at_ns = wall_ns();
  meta.ifindex = interface.ifindex;
  meta.queues = interface.rx_queues;
  std::ranges::copy(policy.digest, meta.policy_digest);
  std::ranges::copy(policy.name, meta.policy_name);
  std::ranges::copy(interface.name, meta.ifname);
  return meta;
}

/// The report of an instance that is there already, if it is what was asked for.
Result<AttachReport> accept_existing(const InstanceStatus& status, const policy::Policy& policy,
                                     const AttachOptions& options) {
  const auto& meta = status.meta;
  const std::string what = fmt::format("attach to {}", status.ifname);
  const std::string hint = fmt::format("agentnic-load detach {} first", status.ifname);
  if (!std::ranges::equal(policy.digest, meta.policy_digest)) {
    return fail(Exit::Failed,
                fmt::format("{}: policy {} (sha256 {}) is in force, not this one", what, meta.policy_name,
                            policy::digest_text(meta.policy_digest, 6)),
                hint);
  }
  const auto modes = plan_modes(options.mode, policy.needs_xsk()).modes;
  if (std::ranges::find(modes, meta.mode) == modes.end()) {
    return fail(Exit::Failed, fmt::format("{}: it is attached in mode {}", what, mode_name(meta.mode)), hint);
  }
  AttachReport report;
  report.hook = static_cast<anic_hook>(meta.hook);
  report.mode = static_cast<anic_mode>(meta.mode);
  report.already = true;
  return report;
}

Status check_required(const AttachOptions& options, anic_hook hook, anic_mode mode,
                      const std::string& ifname) {
  for (const std::string& word : options.require) {
    const bool met = word == "dispatcher" ? hook == ANIC_HOOK_XDP_DISPATCHER : word == mode_name(mode);
    if (!met) {
      return fail(Exit::Unsupported,
                  fmt::format("attach to {}: required {}, obtained {} ({})", ifname, word, mode_name(mode),
                              hook_name(hook)),
                  "drop --require, or see agentnic-load status for what there is");
    }
  }
  return {};
}

/// The instance that is attached to an interface, or nothing when one can be made; an error when its pins are
/// not free for that.
Result<std::optional<InstanceStatus>> existing_instance(const NetNs& netns, const Interface& interface) {
  const std::string what = fmt::format("attach to {}: ", interface.name);
  auto ours = find_instance(netns, interface.name);
  if (ours && ours->health == Health::OtherAbi) return fail(Exit::Failed, what + ours->problem);
  if (ours && ours->health == Health::Attached) return ours;
  const auto by_name = inspect_instance(PinDir{netns.inode(), interface.name});
  if (by_name && by_name->health == Health::Attached) {
    return fail(Exit::Failed,
                fmt::format("{}its pins are held by {}, which had this name before", what, by_name->ifname),
                fmt::format("agentnic-load detach {}", by_name->ifname));
  }
  return std::nullopt;
}

/// Everything between "the directory is free" and the link's pin.
Result<AttachReport> build(const PinDir& dir, const NetNs& netns, const Interface& interface,
                           const policy::Policy& policy, const AttachOptions& options) {
  const ModePlan plan = plan_modes(options.mode, policy.needs_xsk());
  const Object object = ANIC_TRY(Object::load());
  ANIC_TRY(object.fill(policy::compile(policy)));
  anic_meta meta = make_meta(netns, interface, policy);
  ANIC_TRY(object.write_meta(meta));
  ANIC_TRY(make_pin_dir(dir));
  ANIC_TRY(object.pin_maps(dir));

  Attachment done = ANIC_TRY(netns.run([&] { return attach(object, interface, plan); }));
  ANIC_TRY(check_required(options, done.hook, done.mode, interface.name));
  meta.hook = static_cast<__u8>(done.hook);
  meta.mode = static_cast<__u8>(done.mode);
  ANIC_TRY(object.write_meta(meta));
  if (done.link && bpf_obj_pin(done.link.get(), dir.pin(kLinkPin).c_str()) != 0) {
    return fail_errno(errno, "pin " + dir.pin(kLinkPin));
  }
  AttachReport report;
  report.hook = done.hook;
  report.mode = done.mode;
  report.why = plan.why;
  report.notes = std::move(done.notes);
  return report;
}

}  // namespace

Status need_privileges(const std::string& verb) {
  __user_cap_header_struct header{_LINUX_CAPABILITY_VERSION_3, 0};
  __user_cap_data_struct data[2] = {};
  if (::syscall(SYS_capget, &header, data) != 0)
    return fail_errno(errno, "read the capabilities of this process");
  const auto has = [&](unsigned cap) { return (data[cap / 32].effective & (1U << (cap % 32))) != 0; };
  if (has(CAP_SYS_ADMIN) || has(CAP_BPF)) {
    if (has(CAP_NET_ADMIN)) return {};
  }
  return fail_errno(EPERM, verb, "run as root, or with CAP_BPF and CAP_NET_ADMIN");
}

Result<AttachReport> attach_instance(const NetNs& netns, const std::string& ifname,
                                     const policy::Policy& policy, const AttachOptions& options) {
  const Interface interface = ANIC_TRY(netns.run([&] { return find_interface(ifname); }));
  ANIC_TRY(need_privileges("attach to " + interface.name));
  const UniqueFd lock = ANIC_TRY(lock_pins());
  if (const auto existing = ANIC_TRY(existing_instance(netns, interface))) {
    AttachReport report = ANIC_TRY(accept_existing(*existing, policy, options));
    ANIC_TRY(check_required(options, report.hook, report.mode, interface.name));
    return report;
  }
  const PinDir dir{netns.inode(), interface.name};
  ANIC_TRY(detach_locked(dir));  // what an interrupted attach or a vanished interface left
  auto report = build(dir, netns, interface, policy, options);
  if (!report) {
    // The first error is the one to tell; a failure to clean up is met again by the next call.
    static_cast<void>(detach_locked(dir).has_value());
    prune_pins();
  }
  return report;
}

Result<AttachForecast> forecast_attach(const NetNs& netns, const std::string& ifname,
                                       const policy::Policy& policy, const AttachOptions& options) {
  AttachForecast forecast;
  forecast.interface = ANIC_TRY(netns.run([&] { return find_interface(ifname); }));
  forecast.plan = plan_modes(options.mode, policy.needs_xsk());
  forecast.memory_bytes = Object::memory_bytes(possible_cpus());
  forecast.pins = PinDir{netns.inode(), forecast.interface.name}.path();
  if (const auto existing = ANIC_TRY(existing_instance(netns, forecast.interface))) {
    const AttachReport report = ANIC_TRY(accept_existing(*existing, policy, options));
    ANIC_TRY(check_required(options, report.hook, report.mode, ifname));
    forecast.already = true;
    return forecast;
  }
  for (const std::string& word : options.require) {
    const auto fits = [&](anic_mode mode) {
      return word == "dispatcher" ? mode != ANIC_MODE_TC : word == mode_name(mode);
    };
    if (std::ranges::none_of(forecast.plan.modes, fits)) {
      return fail(Exit::Unsupported,
                  fmt::format("attach to {}: required {}, which would not be tried", ifname, word));
    }
  }
  if (forecast.plan.modes.front() != ANIC_MODE_TC) {
    ANIC_TRY(netns.run([&] { return refuse_foreign_xdp(forecast.interface); }));
  }
  return forecast;
}

Result<bool> detach_instance(const PinDir& dir) {
  ANIC_TRY(need_privileges("detach from " + dir.ifname));
  std::error_code ignored;
  if (!std::filesystem::exists(kPinRoot, ignored)) return false;
  const UniqueFd lock = ANIC_TRY(lock_pins());
  auto was_there = detach_locked(dir);
  prune_pins();
  return was_there;
}

std::optional<InstanceStatus> inspect_instance(const PinDir& dir) {
  std::error_code ignored;
  if (!std::filesystem::exists(dir.path(), ignored)) return std::nullopt;
  InstanceStatus status;
  status.dir = dir;
  status.ifname = dir.ifname;
  const auto meta = read_meta(dir);
  if (!meta) {
    status.problem = "an attach was stopped half-way; attach again, or detach";
    return status;
  }
  status.meta = *meta;
  if (meta->abi_version != ANIC_ABI_VERSION || meta->meta_size != sizeof(anic_meta)) {
    status.health = Health::OtherAbi;
    status.problem = fmt::format(
        "pinned with ABI {} ({} bytes of meta), this program has ABI {} ({} bytes); detach it, then attach "
        "again",
        meta->abi_version, meta->meta_size, ANIC_ABI_VERSION, sizeof(anic_meta));
    return status;
  }
  status.netns = NetNs::find(dir.netns_inode, meta->netns_cookie);
  judge(status);
  return status;
}

std::optional<InstanceStatus> find_instance(const NetNs& netns, const std::string& ifname) {
  const auto interface = netns.run([&] { return find_interface(ifname); });
  for (const PinDir& dir : list_pin_dirs()) {
    if (!interface || dir.netns_inode != netns.inode()) continue;
    auto status = inspect_instance(dir);
    if (status && status->health == Health::Attached && status->ifindex == interface->ifindex) return status;
  }
  auto by_name = inspect_instance(PinDir{netns.inode(), ifname});
  if (by_name && by_name->health == Health::Attached)
    return std::nullopt;  // to an interface that was renamed
  return by_name;
}

Result<Stats> read_stats(const InstanceStatus& status) {
  const PinDir& dir = status.dir;
  if (status.health == Health::OtherAbi || status.health == Health::Incomplete) {
    return fail(Exit::Failed, fmt::format("read the counters of {}: {}", status.ifname, status.problem));
  }
  const UniqueFd counters = ANIC_TRY(open_pin(dir, kCountersPin));
  std::vector<anic_counters> per_cpu(possible_cpus());
  const std::uint32_t zero = 0;
  if (bpf_map_lookup_elem(counters.get(), &zero, per_cpu.data()) != 0)
    return fail_errno(errno, "read " + dir.pin(kCountersPin));
  Stats stats;
  const auto add = [](anic_count& sum, const anic_count& part) {
    sum.packets += part.packets;
    sum.bytes += part.bytes;
  };
  for (const anic_counters& cpu : per_cpu) {
    for (std::size_t i = 0; i < ANIC_REASON__MAX; ++i) add(stats.total.by_reason[i], cpu.by_reason[i]);
    for (std::size_t i = 0; i < ANIC_CLASS__MAX; ++i) add(stats.total.by_class[i], cpu.by_class[i]);
    for (std::size_t i = 0; i < ANIC_SERVICES_MAX; ++i) add(stats.total.by_service[i], cpu.by_service[i]);
  }
  const UniqueFd services = ANIC_TRY(open_pin(dir, "anic_services"));
  for (std::uint32_t id = 1; id < ANIC_SERVICES_MAX; ++id) {
    anic_service service{};
    if (bpf_map_lookup_elem(services.get(), &id, &service) != 0)
      return fail_errno(errno, "read " + dir.pin("anic_services"));
    if (service.name[0] == '\0') break;
    stats.services.push_back(service);
  }
  return stats;
}

Result<UniqueFd> open_xsks(const NetNs& netns, const std::string& ifname) {
  const std::string what = fmt::format("open the AF_XDP slots of {}: ", ifname);
  const auto status = find_instance(netns, ifname);
  if (!status || status->health != Health::Attached) {
    return fail(Exit::Failed, what + (status ? status->problem : "agentnic is not attached to it"),
                fmt::format("agentnic-load attach {} --policy FILE", ifname));
  }
  if (status->meta.mode == ANIC_MODE_TC) {
    return fail(Exit::Unsupported, what + "agentnic is attached at TC, which cannot redirect to them",
                "detach, and attach with --mode native or skb");
  }
  return open_pin(status->dir, "anic_xsks");
}

}  // namespace agentnic::kern
