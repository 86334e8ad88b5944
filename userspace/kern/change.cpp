// SPDX-License-Identifier: Apache-2.0
#include "kern/change.hpp"

#include <bpf/bpf.h>
#include <fmt/format.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <utility>

#include "base/clock.hpp"
#include "kern/clsact.hpp"
#include "kern/napi.hpp"
#include "kern/object.hpp"
#include "kern/steering.hpp"
#include "policy/difference.hpp"

namespace agentnic::kern {
namespace {

/// The program that runs at one of the hooks, and the change of it.
class Running final {
 public:
  Running(const InstanceStatus& status, anic_direction direction, std::uint32_t counters_id)
      : status_(status), direction_(direction), counters_id_(counters_id) {}

  /// Puts `object`'s program in its place. Inside the namespace.
  [[nodiscard]] Status replace(const Object& object) {
    switch (hook()) {
      case ANIC_HOOK_XDP_DISPATCHER: {
        const Interface interface = ANIC_TRY(find_interface(status_.ifname));
        return replace_in_dispatcher(object, interface, counters_id_,
                                     static_cast<anic_mode>(status_.meta.mode));
      }
      case ANIC_HOOK_CLSACT:
        return replace_filter(prog_fd(object));
      default:
        return replace_link(prog_fd(object));
    }
  }

  /// Puts what ran before back, as far as the hook lets it.
  void restore() {
    if (!before_) return;
    const Status done =
        hook() == ANIC_HOOK_CLSACT ? replace_filter(before_.get()) : replace_link(before_.get());
    static_cast<void>(done.has_value());  // the error that led here is the one to tell
  }

 private:
  [[nodiscard]] anic_hook hook() const {
    return static_cast<anic_hook>(direction_ == ANIC_DIRECTION_IN ? status_.meta.hook
                                                                  : status_.meta.egress_hook);
  }

  [[nodiscard]] int prog_fd(const Object& object) const {
    if (direction_ == ANIC_DIRECTION_OUT) return object.tc_out_fd();
    return status_.meta.mode == ANIC_MODE_TC ? object.tc_in_fd() : object.xdp_fd();
  }

  Status replace_link(int prog_fd) {
    const char* pin = direction_ == ANIC_DIRECTION_IN ? kLinkPin : kEgressPin;
    const UniqueFd link = ANIC_TRY(open_pin(status_.dir, pin));
    bpf_link_info info{};
    std::uint32_t size = sizeof(info);
    if (bpf_link_get_info_by_fd(link.get(), &info, &size) == 0)
      before_.reset(bpf_prog_get_fd_by_id(info.prog_id));
    if (bpf_link_update(link.get(), prog_fd, nullptr) != 0)
      return fail_errno(errno, fmt::format("put a program under the link {}", status_.dir.pin(pin)));
    return {};
  }

  Status replace_filter(int prog_fd) {
    const auto filters = ANIC_TRY(clsact_filters_of(status_.ifindex, counters_id_));
    const auto ours = std::ranges::find(filters, direction_, &TcFilter::direction);
    if (ours == filters.end())
      return fail(Exit::Failed, fmt::format("upgrade {}: the filter is not there any more", status_.ifname));
    before_.reset(bpf_prog_get_fd_by_id(ours->prog_id));
    return clsact_replace(status_.ifindex, *ours, prog_fd);
  }

  const InstanceStatus& status_;
  anic_direction direction_;
  std::uint32_t counters_id_;
  UniqueFd before_;
};

/// The new program under the old name: at once, by a rename.
Status repin(const PinDir& dir, int prog_fd, const char* pin) {
  const std::string fresh = dir.pin(pin) + "_new";
  std::remove(fresh.c_str());  // of an upgrade that was killed
  if (bpf_obj_pin(prog_fd, fresh.c_str()) != 0) return fail_errno(errno, "pin " + fresh);
  if (std::rename(fresh.c_str(), dir.pin(pin).c_str()) != 0)
    return fail_errno(errno, "rename " + fresh + " to " + dir.pin(pin));
  return {};
}

}  // namespace

Result<UpdateReport> update_instance(const NetNs& netns, const std::string& ifname,
                                     const policy::Policy& policy, bool dry_run) {
  ANIC_TRY(need_privileges("update " + ifname));
  const UniqueFd lock = ANIC_TRY(lock_pins());
  const InstanceStatus status = ANIC_TRY(need_attached(netns, ifname, "update"));
  const Maps maps = ANIC_TRY(Maps::pinned(status.dir));
  policy::Tables before = ANIC_TRY(read_tables(maps));
  before.napi = ANIC_TRY(napi_in_force(status.dir));
  ANIC_TRY(need_napi(policy.napi, "update " + status.ifname));
  policy::Tables tables = ANIC_TRY(tables_of(policy, ids_of(before)));
  ANIC_TRY(choose_egress(netns, status.ifindex, tables));
  UpdateReport report;
  report.before = report.generation = status.in_force.generation;
  report.differences = policy::difference(before, tables);
  report.already = report.differences.empty();
  if (policy.needs_xsk() && status.meta.mode == ANIC_MODE_TC)
    report.notes.emplace_back(
        "it is attached at TC, which cannot redirect to AF_XDP: its xsk services take path A");
  const auto mode = static_cast<anic_mode>(status.meta.mode);
  const Interface interface = ANIC_TRY(netns.run([&] { return find_interface(status.ifname); }));
  for (const std::string& note : steering_notes(tables.policy.uses, mode, interface.driver))
    report.notes.push_back(note);
  if (report.already) return report;
  report.generation = status.in_force.generation + 1;
  if (dry_run) return report;
  const UniqueFd prepare = ANIC_TRY(open_pin(status.dir, kPreparePin));
  const UniqueFd commit = ANIC_TRY(open_pin(status.dir, kCommitPin));
  const UniqueFd arrive = ANIC_TRY(open_pin(status.dir, kArrivePin));
  CommitPrograms programs{.prepare_fd = prepare.get(), .commit_fd = commit.get(), .arrive_fd = -1};
  if (mode == ANIC_MODE_NATIVE) programs.arrive_fd = arrive.get();
  const auto set_napi = [&](const policy::Napi& napi) {
    return set_napi_locked(netns, status.dir, interface, mode, napi);
  };
  for (std::string& note : ANIC_TRY(set_napi(policy.napi))) report.notes.push_back(std::move(note));
  if (Status done = install(maps, programs, std::move(tables)); !done) {
    static_cast<void>(set_napi(before.napi).has_value());  // the error that led here is the one to tell
    return fail(done.error());
  }
  report.generation = ANIC_TRY(read_in_force(maps)).generation;
  return report;
}

Result<UpgradeReport> upgrade_instance(const NetNs& netns, const std::string& ifname) {
  ANIC_TRY(need_privileges("upgrade " + ifname));
  const UniqueFd lock = ANIC_TRY(lock_pins());
  const InstanceStatus status = ANIC_TRY(need_attached(netns, ifname, "upgrade"));
  const Maps maps = ANIC_TRY(Maps::pinned(status.dir));
  auto object = Object::load_over(maps);
  if (!object) {
    Error error = object.error();
    error.what = fmt::format("upgrade {}: {}; the old programs run on", status.ifname, error.what);
    return fail(std::move(error));
  }
  const std::uint32_t counters = map_id(maps.fd("anic_counters"));
  Running ingress(status, ANIC_DIRECTION_IN, counters);
  Running egress(status, ANIC_DIRECTION_OUT, counters);
  ANIC_TRY(netns.run([&]() -> Result<bool> {
    ANIC_TRY(egress.replace(*object));
    if (Status done = ingress.replace(*object); !done) {
      egress.restore();
      return fail(done.error());
    }
    return true;
  }));
  ANIC_TRY(renew_cpu_queues(maps, object->commit().arrive_fd));
  for (const auto& [name, fd] : object->pinned_programs()) ANIC_TRY(repin(status.dir, fd, name));
  ANIC_TRY(object->start());
  anic_meta meta = status.meta;
  meta.upgraded_at_ns = wall_ns();
  ANIC_TRY(maps.write("anic_meta", 0, meta));

  UpgradeReport report;
  report.old_prog_id = status.prog_id;
  const auto now = inspect_instance(status.dir);
  report.prog_id = now ? now->prog_id : 0;
  if (meta.hook == ANIC_HOOK_XDP_DISPATCHER)
    report.notes.emplace_back(
        "under the dispatcher both programs ran for a moment, and counted what passed twice");
  return report;
}

}  // namespace agentnic::kern
