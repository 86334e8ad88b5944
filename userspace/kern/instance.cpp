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
#include <span>
#include <system_error>
#include <utility>

#include "abi/share.h"
#include "base/clock.hpp"
#include "base/hex.hpp"
#include "kern/audit_ring.hpp"
#include "kern/clsact.hpp"
#include "kern/guardian.hpp"
#include "kern/maps.hpp"
#include "kern/napi.hpp"
#include "kern/queue_rules.hpp"
#include "kern/steering.hpp"
#include "policy/compile.hpp"

namespace agentnic::kern {
namespace {

constexpr const char* kMetaPin = "anic_meta";
constexpr const char* kCountersPin = "anic_counters";
constexpr std::uint64_t kTickLate = 2'000'000'000;

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
  if (meta.abi_version != ANIC_ABI_VERSION) {  // what comes after mode may mean something else
    const anic_meta theirs = std::exchange(meta, {});
    std::memcpy(&meta, &theirs, offsetof(anic_meta, egress_hook));
  }
  return meta;
}

/// The id of the map by which our programs are known.
std::uint32_t counters_id(const PinDir& dir) {
  const auto fd = open_pin(dir, kCountersPin);
  return fd ? map_id(fd->get()) : 0;
}

/// The interface and program of a pinned link; ifindex 0 once the interface is gone.
struct LinkState {
  std::uint32_t ifindex = 0;
  std::uint32_t prog_id = 0;
};
std::optional<LinkState> read_link(const PinDir& dir, const char* pin) {
  const auto fd = open_pin(dir, pin);
  bpf_link_info info{};
  std::uint32_t size = sizeof(info);
  if (!fd || bpf_link_get_info_by_fd(fd->get(), &info, &size) != 0) return std::nullopt;
  // The kernel's struct has the interface index in the same place for XDP and tcx links.
  return LinkState{info.xdp.ifindex, info.prog_id};
}

/// What of an instance is found by its map, because no link is pinned for it: in a dispatcher, or in clsact.
struct Unlinked {
  std::optional<DispatcherMember> member;
  std::vector<TcFilter> filters;

  [[nodiscard]] const TcFilter* filter(anic_direction direction) const {
    const auto found = std::ranges::find(filters, direction, &TcFilter::direction);
    return found == filters.end() ? nullptr : &*found;
  }
};
Unlinked find_unlinked(const InstanceStatus& status) {
  const std::uint32_t counters = counters_id(status.dir);
  if (!status.netns || counters == 0) return {};
  auto found = status.netns->run([&]() -> Result<Unlinked> {
    Unlinked there;
    there.member = find_in_dispatcher(status.meta.ifindex, counters);
    if (auto filters = clsact_filters_of(status.meta.ifindex, counters)) there.filters = std::move(*filters);
    return there;
  });
  return found ? std::move(*found) : Unlinked{};
}

/// Where the ingress program is, as far as it is known without asking the interface. False: nowhere.
bool find_ingress(InstanceStatus& status, const std::optional<LinkState>& link, const Unlinked& unlinked) {
  if (link) {
    status.ifindex = link->ifindex;
    status.prog_id = link->prog_id;
    return true;
  }
  // Without a link, the instance exists from the moment in which the program is there, which is before the
  // attach has written so.
  if (unlinked.member) {
    status.prog_id = unlinked.member->prog_id;
    status.meta.hook = ANIC_HOOK_XDP_DISPATCHER;
    status.meta.mode = static_cast<__u8>(unlinked.member->mode);
  } else if (const TcFilter* filter = unlinked.filter(ANIC_DIRECTION_IN)) {
    status.prog_id = filter->prog_id;
    status.meta.hook = ANIC_HOOK_CLSACT;
    status.meta.mode = ANIC_MODE_TC;
  } else {
    return false;
  }
  status.ifindex = status.meta.ifindex;
  return true;
}

/// Judges what is attached of an instance whose meta map is known to be ours.
void judge(InstanceStatus& status) {
  constexpr const char* kGone =
      "the interface is gone or in another namespace, or the program was forced off it; detach removes what "
      "is left";
  const auto link = read_link(status.dir, kLinkPin);
  const auto egress = read_link(status.dir, kEgressPin);
  const Unlinked unlinked = link && egress ? Unlinked{} : find_unlinked(status);
  // A pinned link outlives what it was for; of the others nothing is left but what the attach wrote at its
  // end.
  const bool finished = status.meta.hook == ANIC_HOOK_XDP_DISPATCHER || status.meta.hook == ANIC_HOOK_CLSACT;
  if (!find_ingress(status, link, unlinked) && !finished) {
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
      if (link && !is_on_interface(status.ifindex, ANIC_DIRECTION_IN, hook, status.prog_id))
        return std::string();
      char buffer[IF_NAMESIZE] = {};
      return std::string(::if_indextoname(status.ifindex, buffer) != nullptr ? buffer : "");
    });
    if (!name || name->empty()) return;
    status.ifname = *name;
  }
  if (status.netns && (egress ? egress->ifindex == 0 : unlinked.filter(ANIC_DIRECTION_OUT) == nullptr)) {
    status.problem = "the egress program was forced off the interface; detach, and attach again";
    return;
  }
  status.health = Health::Attached;
  status.problem.clear();
}

/// What has no link goes by hand: a dispatcher's program, filters of clsact, and the offload that the attach
/// turned off.
Status undo_in_namespace(const anic_meta& meta, std::uint32_t counters) {
  ANIC_TRY(leave_dispatcher(meta.ifindex, counters));
  for (const TcFilter& filter : ANIC_TRY(clsact_filters_of(meta.ifindex, counters)))
    ANIC_TRY(clsact_detach(meta.ifindex, filter));
  if (meta.clsact_is_ours != 0) ANIC_TRY(clsact_remove_if_empty(meta.ifindex));
  char name[IF_NAMESIZE] = {};
  if (meta.vlan_offload_off != 0 && ::if_indextoname(meta.ifindex, name) != nullptr)
    ANIC_TRY(set_rx_vlan(name, true));
  return {};
}

/// A link can be detached from outside its namespace; what has none, an offload, queues and NAPIs cannot.
Status refuse_unreachable(const PinDir& dir) {
  const auto meta = read_meta(dir);
  if (!meta || NetNs::find(dir.netns_inode, meta->netns_cookie) || !NetNs::has_processes(dir.netns_inode))
    return {};
  if (meta->hook != ANIC_HOOK_XDP_DISPATCHER && meta->hook != ANIC_HOOK_CLSACT &&
      meta->egress_hook != ANIC_HOOK_CLSACT && meta->vlan_offload_off == 0 && !has_queues_aside(dir) &&
      !has_napi_record(dir))
    return {};
  return fail(Exit::Failed,
              fmt::format("detach from {}: its network namespace (inode {}) has no name here", dir.ifname,
                          dir.netns_inode),
              "run it inside that namespace: nsenter --net=/proc/PID/ns/net agentnic-load detach");
}

/// Everything but the pinned links. The interface may be gone.
Status undo_unlinked(const PinDir& dir) {
  const std::uint32_t counters = counters_id(dir);
  const auto meta = read_meta(dir);
  if (counters == 0 || !meta || meta->ifindex == 0) return {};
  std::uint32_t attached_id = 0;
  if (const auto netns = NetNs::find(dir.netns_inode, meta->netns_cookie)) {
    ANIC_TRY(netns->run([&]() -> Result<bool> {
      char name[IF_NAMESIZE] = {};
      if (::if_indextoname(meta->ifindex, name) != nullptr) ANIC_TRY(undo_in_namespace(*meta, counters));
      return true;
    }));
    const auto there = netns->run([&] { return attached_xdp(meta->ifindex); });
    attached_id = there ? there->id : 0;
  }
  sweep_dispatchers(meta->ifindex, counters, attached_id);
  return {};
}

Status detach_link(const PinDir& dir, const char* pin) {
  const auto link = open_pin(dir, pin);
  // A link whose interface is gone answers ENOLINK; it has nothing left to detach.
  if (link && bpf_link_detach(link->get()) != 0 && errno != ENOLINK)
    return fail_errno(errno, "detach the link " + dir.pin(pin));
  return {};
}

std::uint64_t count_untaken(const PinDir& dir) {
  if (has_recorder(dir)) return 0;
  const auto maps = Maps::pinned(dir);
  if (!maps) return 0;
  const auto ring = AuditRing::open(*maps, false);
  return ring ? ring->unread_bytes() / ANIC_AUDIT_TAKES : 0;
}

/// detach_instance() for who holds the lock.
Result<DetachReport> detach_locked(const PinDir& dir) {
  std::error_code ignored;
  if (!std::filesystem::exists(dir.path(), ignored)) return DetachReport{};
  ANIC_TRY(refuse_unreachable(dir));
  // First, so that what comes on these queues is elsewhere before its program goes; what fails there keeps no
  // program on the interface, but the record in its pins.
  const auto queues = give_back_locked(dir);
  // A veth's NAPIs may go with the program.
  const auto napi = restore_napi_locked(dir);
  ANIC_TRY(detach_link(dir, kLinkPin));
  ANIC_TRY(detach_link(dir, kEgressPin));
  ANIC_TRY(undo_unlinked(dir));
  if (!queues) return fail(queues.error());
  if (!napi) return fail(napi.error());
  DetachReport report{.was_there = true, .untaken_records = 0, .notes = *queues};
  report.notes.insert(report.notes.end(), napi->begin(), napi->end());
  // Once nothing is attached any more. What is half made, or of another version, has none.
  static_cast<void>(end_audit(dir).has_value());
  report.untaken_records = count_untaken(dir);
  ANIC_TRY(remove_pin_dir(dir));
  return report;
}

anic_meta make_meta(const NetNs& netns, const Interface& interface) {
  anic_meta meta{};
  meta.abi_version = ANIC_ABI_VERSION;
  meta.meta_size = sizeof(meta);
  meta.netns_cookie = netns.cookie();
  meta.attached_at_ns = wall_ns();
  meta.ifindex = interface.ifindex;
  meta.queues = interface.rx_queues;
  std::ranges::copy(interface.name, meta.ifname);
  return meta;
}

/// The report of an instance that is there already, if it is what was asked for.
Result<AttachReport> accept_existing(const InstanceStatus& status, const policy::Policy& policy,
                                     const AttachOptions& options) {
  const auto& meta = status.meta;
  const anic_policy& in_force = status.in_force.policy;
  const std::string what = fmt::format("attach to {}", status.ifname);
  const std::string hint = fmt::format("agentnic-load detach {} first", status.ifname);
  if (!std::ranges::equal(policy.digest, in_force.digest)) {
    return fail(Exit::Failed,
                fmt::format("{}: policy {} (sha256 {}) is in force, not this one", what, in_force.name,
                            hex(std::span(in_force.digest).first(6))),
                fmt::format("agentnic-load update {} --policy FILE", status.ifname));
  }
  const auto modes = plan_modes(options.mode, policy).modes;
  if (std::ranges::find(modes, meta.mode) == modes.end()) {
    return fail(Exit::Failed, fmt::format("{}: it is attached in mode {}", what, mode_name(meta.mode)), hint);
  }
  AttachReport report;
  report.hook = static_cast<anic_hook>(meta.hook);
  report.mode = static_cast<anic_mode>(meta.mode);
  report.egress_hook = static_cast<anic_hook>(meta.egress_hook);
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

bool hides_vlan_tags(const Interface& interface, const ModePlan& plan) {
  return plan.modes.front() != ANIC_MODE_TC && read_offloads(interface.name).rx_vlan.value_or(false);
}

/// What the first mode that will be tried costs, and should be known before. Inside the namespace.
Result<std::vector<std::string>> warnings(const Interface& interface, const ModePlan& plan) {
  std::vector<std::string> found;
  if (plan.modes.front() == ANIC_MODE_NATIVE && interface.driver == "veth") {
    found.emplace_back(
        "native XDP on a veth turns TSO off at its peer: one TCP stream was seen to fall from 14 to 4 "
        "Gbit/s; "
        "--mode skb and --mode tc keep it");
  }
  if (hides_vlan_tags(interface, plan))
    found.emplace_back("VLAN receive offload is turned off, so that XDP sees tags; detach turns it on again");
  return found;
}

/// XDP does not see a VLAN tag that the driver has taken off. Says so in meta, before it is done.
Status turn_vlan_offload_off(const Object& object, const Interface& interface, const ModePlan& plan,
                             anic_meta& meta) {
  if (!hides_vlan_tags(interface, plan)) return {};
  meta.vlan_offload_off = 1;
  const Maps maps = ANIC_TRY(object.maps());
  ANIC_TRY(maps.write(kMetaPin, 0, meta));
  if (Status off = set_rx_vlan(interface.name, false); !off) {
    meta.vlan_offload_off = 0;
    ANIC_TRY(maps.write(kMetaPin, 0, meta));
    Error error = off.error();
    error.what =
        fmt::format("attach anic_xdp to {}: XDP would not see VLAN tags: {}", interface.name, error.what);
    error.hint = "--mode tc";
    return fail(std::move(error));
  }
  return {};
}

Status pin_link(const Attachment& done, const PinDir& dir, const char* pin) {
  if (done.link && bpf_obj_pin(done.link.get(), dir.pin(pin).c_str()) != 0)
    return fail_errno(errno, "pin " + dir.pin(pin));
  return {};
}

/// Inside the namespace: egress first, ingress last.
Result<AttachReport> attach_programs(const Object& object, const NetNs& netns, const Interface& interface,
                                     const ModePlan& plan, const PinDir& dir, const policy::Napi& napi,
                                     const AttachOptions& options) {
  const Maps maps = ANIC_TRY(object.maps());
  anic_meta meta{};
  ANIC_TRY(maps.read(kMetaPin, 0, meta));
  AttachReport report;
  report.why = plan.why;
  if (plan.modes.front() != ANIC_MODE_TC) ANIC_TRY(refuse_foreign_xdp(interface));
  ANIC_TRY(turn_vlan_offload_off(object, interface, plan, meta));
  // Said before it is made, so that whoever cleans up after a kill knows.
  if (!ANIC_TRY(has_tcx(object, interface)))
    meta.clsact_is_ours = ANIC_TRY(has_clsact(interface.ifindex)) ? 0 : 1;
  ANIC_TRY(maps.write(kMetaPin, 0, meta));
  const Attachment out = ANIC_TRY(attach_egress(object, interface));
  meta.egress_hook = static_cast<__u8>(out.hook);
  ANIC_TRY(maps.write(kMetaPin, 0, meta));
  ANIC_TRY(pin_link(out, dir, kEgressPin));

  const Attachment in = ANIC_TRY(attach(object, interface, plan));
  report.hook = in.hook;
  report.mode = in.mode;
  report.egress_hook = out.hook;
  report.notes.insert(report.notes.end(), in.notes.begin(), in.notes.end());
  ANIC_TRY(check_required(options, report.hook, report.mode, interface.name));
  meta.hook = static_cast<__u8>(report.hook);
  meta.mode = static_cast<__u8>(report.mode);
  ANIC_TRY(maps.write(kMetaPin, 0, meta));
  if (report.mode == ANIC_MODE_NATIVE)
    ANIC_TRY(open_cpu_queues(maps, object.commit().arrive_fd, ANIC_TRY(read_spread(maps))));
  // With the program there, because a veth's NAPIs come with it.
  for (std::string& note : ANIC_TRY(set_napi_locked(netns, dir, interface, report.mode, napi)))
    report.notes.push_back(std::move(note));
  ANIC_TRY(pin_link(in, dir, kLinkPin));
  const std::uint32_t uses = ANIC_TRY(read_in_force(maps)).policy.uses;
  for (const std::string& note : steering_notes(uses, report.mode, interface.driver))
    report.notes.push_back(note);
  return report;
}

/// Everything after "the directory is free".
Result<AttachReport> build(const PinDir& dir, const NetNs& netns, const Interface& interface,
                           const policy::Policy& policy, const AttachOptions& options) {
  const ModePlan plan = plan_modes(options.mode, policy);
  policy::Tables tables = ANIC_TRY(tables_of(policy, {}));
  ANIC_TRY(choose_egress(netns, interface.ifindex, tables));
  std::optional<ChainKey> chain_key;
  if (options.chain_key) chain_key = ANIC_TRY(options.chain_key());
  const Object object = ANIC_TRY(Object::load(possible_cpus(), chain_key));
  const Maps maps = ANIC_TRY(object.maps());
  ANIC_TRY(install(
      maps,
      {.prepare_fd = object.commit().prepare_fd, .commit_fd = object.commit().commit_fd, .arrive_fd = -1},
      std::move(tables)));
  ANIC_TRY(object.start());
  ANIC_TRY(maps.write(kMetaPin, 0, make_meta(netns, interface)));
  ANIC_TRY(make_pin_dir(dir));
  ANIC_TRY(object.pin(dir));
  for (const std::string& warning : ANIC_TRY(netns.run([&] { return warnings(interface, plan); })))
    options.warn(warning);
  return netns.run(
      [&] { return attach_programs(object, netns, interface, plan, dir, policy.napi, options); });
}

}  // namespace

Status choose_egress(const NetNs& netns, std::uint32_t ifindex, policy::Tables& tables) {
  const RootQdisc root = ANIC_TRY(netns.run([&] { return root_qdisc(ifindex); }));
  if (root.keeps_times) tables.policy.uses |= ANIC_USES_FQ;
  return {};
}

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
  ANIC_TRY(need_napi(policy.napi, "attach to " + interface.name));
  const UniqueFd lock = ANIC_TRY(lock_pins());
  if (const auto existing = ANIC_TRY(existing_instance(netns, interface))) {
    AttachReport report = ANIC_TRY(accept_existing(*existing, policy, options));
    ANIC_TRY(check_required(options, report.hook, report.mode, interface.name));
    report.notes = ANIC_TRY(set_napi_locked(netns, existing->dir, interface, report.mode, policy.napi));
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
  ANIC_TRY(need_napi(policy.napi, "attach to " + forecast.interface.name));
  forecast.plan = plan_modes(options.mode, policy);
  forecast.warnings = ANIC_TRY(netns.run([&] { return warnings(forecast.interface, forecast.plan); }));
  forecast.tables = ANIC_TRY(tables_of(policy, {}));
  forecast.memory_bytes = memory_bytes(forecast.tables, possible_cpus());
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

Result<DetachReport> detach_instance(const PinDir& dir) {
  ANIC_TRY(need_privileges("detach from " + dir.ifname));
  std::error_code ignored;
  if (!std::filesystem::exists(kPinRoot, ignored)) return DetachReport{};
  const UniqueFd lock = ANIC_TRY(lock_pins());
  auto report = detach_locked(dir);
  prune_pins();
  return report;
}

void look_at_limits(InstanceStatus& status) {
  if (status.health != Health::Attached || !status.netns) return;
  const auto interface = status.netns->run([&] { return find_interface(status.ifname); });
  status.notes = steering_notes(status.in_force.policy.uses, static_cast<anic_mode>(status.meta.mode),
                                interface ? interface->driver : "");
  const auto root = status.netns->run([&] { return root_qdisc(status.ifindex); });
  if (root) status.root_qdisc = root->kind;
  const anic_policy& policy = status.in_force.policy;
  if (policy.link_rate_bps == 0) return;
  if (root && (policy.uses & ANIC_USES_FQ) != 0 && !root->keeps_times) {
    status.notes.push_back(
        fmt::format("limits are not kept at egress: packets are given a time, and {0} at the root of {1} "
                    "does not wait for "
                    "it; tc qdisc replace dev {1} root fq, or agentnic-load update {1} --policy FILE",
                    root->kind, status.ifname));
  }
  status.notes.emplace_back("not limited: what stays on this host (lo), and what AF_XDP sockets send");
  anic_sharing sharing{};
  const auto maps = Maps::pinned(status.dir);
  if (!maps || !maps->read("anic_sharing", ANIC_DIRECTION_IN, sharing)) return;
  const std::uint64_t now = monotonic_ns();
  if (now > sharing.last_ns && now - sharing.last_ns > kTickLate) {
    status.notes.push_back(fmt::format("rates were last shared out {} s ago; agentnic-load upgrade {}",
                                       (now - sharing.last_ns) / 1'000'000'000, status.ifname));
  }
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
  if (const auto maps = Maps::pinned(dir)) {
    if (const auto in_force = read_in_force(*maps)) status.in_force = *in_force;
  }
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

Result<InstanceStatus> need_attached(const NetNs& netns, const std::string& ifname, const std::string& verb) {
  auto status = find_instance(netns, ifname);
  const std::string what = fmt::format("{} {}", verb, ifname + netns.suffix());
  if (!status) {
    ANIC_TRY(netns.run([&] { return find_interface(ifname); }));
    return fail(Exit::Failed, what + ": agentnic is not attached to it",
                fmt::format("agentnic-load attach {} --policy FILE", ifname));
  }
  if (status->health == Health::OtherAbi)
    return fail(Exit::Unsupported, fmt::format("{}: {}", what, status->problem));
  if (status->health != Health::Attached)
    return fail(Exit::Failed, fmt::format("{}: {}", what, status->problem));
  return std::move(*status);
}

Result<XskSlots> open_xsk_slots(const NetNs& netns, const std::string& ifname) {
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
  return XskSlots{.sockets = ANIC_TRY(open_pin(status->dir, "anic_xsks")),
                  .pages = ANIC_TRY(open_pin(status->dir, "anic_xsk_pages"))};
}

}  // namespace agentnic::kern
