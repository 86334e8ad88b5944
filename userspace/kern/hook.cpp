// SPDX-License-Identifier: Apache-2.0
#include "kern/hook.hpp"

#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <fcntl.h>
#include <fmt/format.h>
#include <linux/if_link.h>
#include <sys/file.h>
#include <xdp/libxdp.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <filesystem>
#include <memory>
#include <span>
#include <system_error>

#include "base/file.hpp"
#include "kern/clsact.hpp"
#include "kern/libbpf_log.hpp"
#include "kern/maps.hpp"

namespace agentnic::kern {
namespace {

using Multiprog = std::unique_ptr<xdp_multiprog, decltype(&xdp_multiprog__close)>;
using XdpProg = std::unique_ptr<xdp_program, decltype(&xdp_program__close)>;

constexpr std::size_t kTcxProgramsMax = 64;
constexpr const char* kLibxdpPins = "/sys/fs/bpf/xdp";

// From <linux/bpf.h> of Linux 6.6; Debian 12 has the header of 6.1.
constexpr bpf_attach_type tcx_type(anic_direction direction) {
  return static_cast<bpf_attach_type>(direction == ANIC_DIRECTION_IN ? 46 : 47);
}

/// The text of an errno from an attach; some do not speak for themselves.
std::string reason(int code, const Interface& interface) {
  if (std::abs(code) == ENOSPC && interface.driver == "veth") {
    return "fewer receive queues here than transmit queues at the peer of this veth";
  }
  return std::generic_category().message(std::abs(code));
}

Multiprog multiprog_of(std::uint32_t ifindex) {
  xdp_multiprog* found = xdp_multiprog__get_from_ifindex(static_cast<int>(ifindex));
  return {libxdp_get_error(found) == 0 ? found : nullptr, xdp_multiprog__close};
}

bool is_dispatcher(const Multiprog& progs) {
  return progs && !xdp_multiprog__is_legacy(progs.get()) && xdp_multiprog__program_count(progs.get()) > 0;
}

/// Our program among those of a dispatcher; borrowed from `progs`.
xdp_program* find_ours(const Multiprog& progs, std::uint32_t map_id) {
  if (!progs) return nullptr;
  if (!is_dispatcher(progs)) {
    // Left by libxdp's silent fallback to a single program, if we were killed before we saw it.
    xdp_program* alone = xdp_multiprog__main_prog(progs.get());
    return alone != nullptr && uses_map(xdp_program__fd(alone), map_id) ? alone : nullptr;
  }
  xdp_program* prog = nullptr;
  while ((prog = xdp_multiprog__next_prog(prog, progs.get())) != nullptr) {
    if (uses_map(xdp_program__fd(prog), map_id)) return prog;
  }
  return nullptr;
}

xdp_attach_mode libxdp_mode(anic_mode mode) {
  return mode == ANIC_MODE_NATIVE ? XDP_MODE_NATIVE : XDP_MODE_SKB;
}

/// Errors with which a driver or kernel says "not this mode", as opposed to "not now" or "not you".
bool means_unsupported(int code) {
  code = std::abs(code);
  return code == EOPNOTSUPP || code == EINVAL || code == ERANGE || code == ENOSPC || code == ENOSYS;
}

/// 0, or -errno. On success the program is under the dispatcher of the interface.
int attach_dispatcher(const Object& object, const Interface& interface, anic_mode mode) {
  auto copy = object.open_for_dispatcher();
  if (!copy) return -EINVAL;
  xdp_program* made = xdp_program__from_bpf_obj(copy->get(), "xdp.frags");
  if (const auto code = libxdp_get_error(made); code != 0) return static_cast<int>(code);
  const XdpProg prog(made, xdp_program__close);
  const int ifindex = static_cast<int>(interface.ifindex);
  if (const int code = xdp_program__attach(prog.get(), ifindex, libxdp_mode(mode), 0); code != 0) return code;
  if (is_dispatcher(multiprog_of(interface.ifindex))) return 0;
  xdp_program__detach(prog.get(), ifindex, libxdp_mode(mode), 0);  // libxdp fell back to netlink, silently
  return -EOPNOTSUPP;
}

Result<Attachment> attach_xdp_link(int prog_fd, const Interface& interface, anic_mode mode, int& code) {
  LIBBPF_OPTS(bpf_link_create_opts, options);
  options.flags = mode == ANIC_MODE_NATIVE ? XDP_FLAGS_DRV_MODE : XDP_FLAGS_SKB_MODE;
  const int fd = bpf_link_create(prog_fd, static_cast<int>(interface.ifindex), BPF_XDP, &options);
  code = fd < 0 ? fd : 0;
  if (fd < 0) {
    return fail(means_unsupported(code) ? Exit::Unsupported : Exit::Failed,
                fmt::format("attach anic_xdp to {} ({}): {}", interface.name, mode_name(mode),
                            reason(code, interface)),
                mode == ANIC_MODE_NATIVE ? "--mode skb" : "--mode auto");
  }
  Attachment done;
  done.hook = ANIC_HOOK_XDP_LINK;
  done.mode = mode;
  done.link.reset(fd);
  return done;
}

UniqueFd make_tcx_link(int prog_fd, const Interface& interface, anic_direction direction) {
  LIBBPF_OPTS(bpf_link_create_opts, options);
  return UniqueFd(
      bpf_link_create(prog_fd, static_cast<int>(interface.ifindex), tcx_type(direction), &options));
}

Error tcx_error(int code, const Interface& interface, anic_direction direction) {
  return Error::from_errno(
      code, fmt::format("attach {} to {} (tcx)",
                        direction == ANIC_DIRECTION_IN ? "anic_tc_in" : "anic_tc_out", interface.name));
}

/// tcx, else a filter of a clsact qdisc.
Result<Attachment> attach_tc(int prog_fd, const Interface& interface, anic_direction direction) {
  Attachment done;
  done.mode = ANIC_MODE_TC;
  done.link = make_tcx_link(prog_fd, interface, direction);
  if (done.link) {
    done.hook = ANIC_HOOK_TCX;
    return done;
  }
  if (!means_unsupported(errno)) return fail(tcx_error(errno, interface, direction));
  ANIC_TRY(clsact_attach(interface, direction, prog_fd));
  done.hook = ANIC_HOOK_CLSACT;
  return done;
}

/// One mode, over the dispatcher where that works. `code` says why not, 0 on success.
Result<Attachment> attach_mode(const Object& object, const Interface& interface, anic_mode mode, int& code) {
  if (mode == ANIC_MODE_TC) {
    auto done = attach_tc(object.tc_in_fd(), interface, ANIC_DIRECTION_IN);
    code = done ? 0 : -EIO;
    return done;
  }
  if (Status vacant = refuse_foreign_xdp(interface); !vacant) {
    code = -EBUSY;
    return fail(vacant.error());
  }
  std::string note = "single program: this kernel refuses the extension programs of libxdp's dispatcher";
  if (dispatcher_works()) {
    code = attach_dispatcher(object, interface, mode);
    if (code == 0) {
      Attachment done;
      done.hook = ANIC_HOOK_XDP_DISPATCHER;
      done.mode = mode;
      return done;
    }
    note = fmt::format("single program: libxdp's dispatcher was refused: {}", reason(code, interface));
  }
  Attachment done = ANIC_TRY(attach_xdp_link(object.xdp_fd(), interface, mode, code));
  done.notes.push_back(note);
  return done;
}

}  // namespace

ModePlan plan_modes(ModeRequest request, const policy::Policy& policy) {
  switch (request) {
    case ModeRequest::Native:
      return {{ANIC_MODE_NATIVE}, "asked for"};
    case ModeRequest::Skb:
      return {{ANIC_MODE_SKB}, "asked for"};
    case ModeRequest::Tc:
      return {{ANIC_MODE_TC},
              policy.needs_xsk()
                  ? "asked for; its xsk services take path A, because TC cannot redirect to AF_XDP"
                  : "asked for"};
    case ModeRequest::Auto:
      break;
  }
  if (policy.needs_xsk())
    return {{ANIC_MODE_NATIVE, ANIC_MODE_SKB}, "the policy has an xsk service, which needs XDP"};
  if (policy.steers())
    return {{ANIC_MODE_NATIVE, ANIC_MODE_TC}, "the policy spreads flows over CPUs, which needs native XDP"};
  return {{ANIC_MODE_TC, ANIC_MODE_NATIVE, ANIC_MODE_SKB},
          "no service needs XDP, and TC leaves TSO and GRO as they are"};
}

bool dispatcher_works() {
  const bool works = libbpf_probe_bpf_prog_type(BPF_PROG_TYPE_EXT, nullptr) == 1;
  take_libbpf_warning();
  return works;
}

Status refuse_foreign_xdp(const Interface& interface) {
  const XdpProgram there = ANIC_TRY(attached_xdp(interface.ifindex));
  if (there.id == 0) return {};
  if (there.name.empty()) {
    return fail(
        Exit::Failed,
        fmt::format("attach anic_xdp to {}: an XDP program (id {}) is there", interface.name, there.id),
        "run it as root to see whose it is");
  }
  if (dispatcher_works() && is_dispatcher(multiprog_of(interface.ifindex))) return {};
  return fail(Exit::Failed,
              fmt::format("attach anic_xdp to {}: XDP program {} (id {}) is there, and it is not agentnic's",
                          interface.name, there.name, there.id),
              fmt::format("take it off first (ip link set dev {} xdp off, or its own tool), or use --mode tc",
                          interface.name));
}

Result<Attachment> attach(const Object& object, const Interface& interface, const ModePlan& plan) {
  std::vector<std::string> notes;
  for (const anic_mode mode : plan.modes) {
    int code = 0;
    Result<Attachment> tried = attach_mode(object, interface, mode, code);
    if (tried) {
      tried->notes.insert(tried->notes.begin(), notes.begin(), notes.end());
      return tried;
    }
    if (mode == plan.modes.back() || !means_unsupported(code)) return tried;
    notes.push_back(fmt::format("not {}: {}", mode_name(mode), reason(code, interface)));
  }
  return fail(Exit::Failed, fmt::format("attach to {}: no mode to try", interface.name));
}

Result<Attachment> attach_alone(const Object& object, const Interface& interface, anic_mode mode) {
  int code = 0;
  return attach_xdp_link(object.xdp_fd(), interface, mode, code);
}

Result<bool> has_tcx(const Object& object, const Interface& interface) {
  const UniqueFd link = make_tcx_link(object.tc_out_fd(), interface, ANIC_DIRECTION_OUT);
  if (link) return true;
  if (!means_unsupported(errno)) return fail(tcx_error(errno, interface, ANIC_DIRECTION_OUT));
  return false;
}

Result<Attachment> attach_egress(const Object& object, const Interface& interface) {
  return attach_tc(object.tc_out_fd(), interface, ANIC_DIRECTION_OUT);
}

bool is_on_interface(std::uint32_t ifindex, anic_direction direction, anic_hook hook, std::uint32_t prog_id) {
  if (hook != ANIC_HOOK_TCX) {
    const auto there = attached_xdp(ifindex);
    return there && there->id == prog_id;
  }
  std::array<std::uint32_t, kTcxProgramsMax> ids{};
  LIBBPF_OPTS(bpf_prog_query_opts, query);
  query.prog_ids = ids.data();
  query.prog_cnt = ids.size();
  return bpf_prog_query_opts(static_cast<int>(ifindex), tcx_type(direction), &query) == 0 &&
         std::find(ids.begin(), ids.begin() + query.prog_cnt, prog_id) != ids.begin() + query.prog_cnt;
}

Result<bool> leave_dispatcher(std::uint32_t ifindex, std::uint32_t map_id) {
  bool was_there = false;
  for (;; was_there = true) {  // an upgrade that was killed leaves two
    const Multiprog progs = multiprog_of(ifindex);
    xdp_program* ours = find_ours(progs, map_id);
    if (ours == nullptr) return was_there;
    const int code =
        xdp_program__detach(ours, static_cast<int>(ifindex), xdp_multiprog__attach_mode(progs.get()), 0);
    if (code != 0) {
      return fail_errno(code,
                        fmt::format("take anic_xdp out of the dispatcher of interface index {}", ifindex),
                        take_libbpf_warning());
    }
  }
}

Status replace_in_dispatcher(const Object& object, const Interface& interface, std::uint32_t map_id,
                             anic_mode mode) {
  const std::string what = fmt::format("upgrade anic_xdp in the dispatcher of {}", interface.name);
  std::vector<std::uint32_t> old;
  const Multiprog before = multiprog_of(interface.ifindex);
  for (xdp_program* prog = nullptr; (prog = xdp_multiprog__next_prog(prog, before.get())) != nullptr;) {
    if (uses_map(xdp_program__fd(prog), map_id)) old.push_back(xdp_program__id(prog));
  }
  if (old.empty()) return fail(Exit::Failed, what + ": it is not there any more");
  if (const int code = attach_dispatcher(object, interface, mode); code != 0)
    return fail_errno(code, what, take_libbpf_warning());
  for (const std::uint32_t id : old) {
    const Multiprog now = multiprog_of(interface.ifindex);
    xdp_program* prog = nullptr;
    while ((prog = xdp_multiprog__next_prog(prog, now.get())) != nullptr && xdp_program__id(prog) != id) {
    }
    const int code = prog == nullptr ? 0
                                     : xdp_program__detach(prog, static_cast<int>(interface.ifindex),
                                                           xdp_multiprog__attach_mode(now.get()), 0);
    if (code != 0) return fail_errno(code, what, take_libbpf_warning());
  }
  return {};
}

void sweep_dispatchers(std::uint32_t ifindex, std::uint32_t map_id, std::uint32_t attached_id) {
  const UniqueFd lock(::open(kLibxdpPins, O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!lock || ::flock(lock.get(), LOCK_EX) != 0) return;  // libxdp holds it over each change
  const std::string of_interface = fmt::format("dispatch-{}-", ifindex);
  for (const std::string& name : list_folder(kLibxdpPins)) {
    if (!name.starts_with(of_interface) || name == of_interface + std::to_string(attached_id)) continue;
    const std::string folder = fmt::format("{}/{}", kLibxdpPins, name);
    const bool held_ours = std::ranges::any_of(list_folder(folder), [&](const std::string& pin) {
      const UniqueFd prog(pin.ends_with("-prog") ? bpf_obj_get(fmt::format("{}/{}", folder, pin).c_str())
                                                 : -1);
      return prog && uses_map(prog.get(), map_id);
    });
    std::error_code ignored;
    if (held_ours) std::filesystem::remove_all(folder, ignored);
  }
}

std::optional<DispatcherMember> find_in_dispatcher(std::uint32_t ifindex, std::uint32_t map_id) {
  const Multiprog progs = multiprog_of(ifindex);
  const xdp_program* ours = is_dispatcher(progs) ? find_ours(progs, map_id) : nullptr;
  if (ours == nullptr) return std::nullopt;
  const bool native = xdp_multiprog__attach_mode(progs.get()) == XDP_MODE_NATIVE;
  return DispatcherMember{xdp_program__id(ours), native ? ANIC_MODE_NATIVE : ANIC_MODE_SKB};
}

std::string hook_name(std::uint8_t hook) {
  constexpr std::array<const char*, ANIC_HOOK__MAX> kNames = {"?", "xdp-link", "xdp-dispatcher", "tcx",
                                                              "clsact"};
  return kNames[hook < ANIC_HOOK__MAX ? hook : 0];
}

std::string mode_name(std::uint8_t mode) {
  constexpr std::array<const char*, ANIC_MODE__MAX> kNames = {"?", "native", "skb", "tc"};
  return kNames[mode < ANIC_MODE__MAX ? mode : 0];
}

}  // namespace agentnic::kern
