// SPDX-License-Identifier: Apache-2.0
#include "kern/object.hpp"

#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <fcntl.h>
#include <fmt/format.h>
#include <sys/random.h>

#include <instance.skel.h>
#include <algorithm>
#include <cerrno>
#include <string_view>

#include "abi/policy.h"
#include "kern/libbpf_log.hpp"

namespace agentnic::kern {
namespace {

using BpfObject = std::unique_ptr<bpf_object, void (*)(bpf_object*)>;

Status load_skeleton(instance_bpf* skeleton) {
  const int code = instance_bpf::load(skeleton);
  if (code == 0) return {};
  const std::string said = take_libbpf_warning();
  return fail_errno(code, "load the BPF object",
                    code == -EPERM
                        ? "run as root, or with CAP_BPF and CAP_NET_ADMIN"
                        : fmt::format("-v shows the verifier's log; the last warning was: {}", said));
}

/// Maps with an element for each CPU.
void size_for_cpus(instance_bpf* skeleton, unsigned cpus) {
  for (bpf_map* map : {skeleton->maps.anic_counters, skeleton->maps.anic_cpumap, skeleton->maps.anic_cpus})
    bpf_map__set_max_entries(map, cpus);
}

template <typename T>
Status draw(T& value) {
  if (::getrandom(&value, sizeof(value), 0) != static_cast<ssize_t>(sizeof(value)))
    return fail_errno(errno, "draw random keys");
  return {};
}

/// The chain before its first record.
Result<anic_chain> begin_chain(const std::optional<ChainKey>& chain_key) {
  anic_chain chain{};
  if (!chain_key) {
    ANIC_TRY(draw(chain.key));
  } else if (chain_key->number == 0) {
    return fail(Exit::BadInput, "begin the audit's chain: number 0 is that of a key drawn at random");
  } else {
    chain.number = chain_key->number;
    std::ranges::copy(chain_key->key, chain.key);
  }
  return chain;
}

/// Draws the keys of the flow cache's hash and of the audit's chain; then userspace can write neither them
/// nor lanes nor what is the guardian's any more.
Status seal(const Maps& maps, const std::optional<ChainKey>& chain_key) {
  anic_state state{};
  ANIC_TRY(draw(state));
  state.word = 0;
  state.tick_ns = 0;
  state.ticked_ns = 0;
  state.hash_factor |= 1;
  ANIC_TRY(maps.write("anic_state", 0, state));
  ANIC_TRY(maps.write("anic_chain", 0, ANIC_TRY(begin_chain(chain_key))));
  for (const char* name : {"anic_state", "anic_lanes", "anic_buckets", "anic_claims", "anic_levels",
                           "anic_sharing", "anic_steering", "anic_turns", "anic_modes", "anic_guarding",
                           "anic_guard", "anic_wards", "anic_actions", "anic_sessions", "anic_dumps",
                           "anic_chain", "anic_waiting", "anic_scratch", "anic_escalated"}) {
    if (bpf_map_freeze(maps.fd(name)) != 0) return fail_errno(errno, fmt::format("freeze map {}", name));
  }
  return {};
}

/// What keeps an existing map from being the object's, or nothing.
std::string misfit(const bpf_map* wanted, int there_fd) {
  const char* name = bpf_map__name(wanted);
  bpf_map_info there{};
  std::uint32_t size = sizeof(there);
  if (bpf_map_get_info_by_fd(there_fd, &there, &size) != 0) return fmt::format("map {} is not pinned", name);
  const auto differs = [&](const char* what, std::uint64_t old_value, std::uint64_t new_value) {
    return old_value == new_value
               ? std::string()
               : fmt::format("map {} has {} {}, the new programs need {}", name, what, old_value, new_value);
  };
  for (const std::string& found : {differs("type", there.type, bpf_map__type(wanted)),
                                   differs("key size", there.key_size, bpf_map__key_size(wanted)),
                                   differs("value size", there.value_size, bpf_map__value_size(wanted)),
                                   differs("max entries", there.max_entries, bpf_map__max_entries(wanted))}) {
    if (!found.empty()) return found;
  }
  return {};
}

}  // namespace

void Object::Destroy::operator()(instance_bpf* skeleton) const noexcept { instance_bpf::destroy(skeleton); }

Result<Object> Object::load(unsigned cpus, const std::optional<ChainKey>& chain_key) {
  Object object;
  object.skeleton_.reset(instance_bpf::open());
  if (!object.skeleton_) return fail_errno(errno, "open the BPF object");
  size_for_cpus(object.skeleton_.get(), cpus);
  ANIC_TRY(load_skeleton(object.skeleton_.get()));
  const Maps maps = ANIC_TRY(object.maps());
  ANIC_TRY(seal(maps, chain_key));
  return object;
}

Result<Object> Object::load_over(const Maps& maps) {
  Object object;
  object.skeleton_.reset(instance_bpf::open());
  if (!object.skeleton_) return fail_errno(errno, "open the BPF object");
  size_for_cpus(object.skeleton_.get(), possible_cpus());
  bpf_map* map = nullptr;
  bpf_object__for_each_map(map, object.skeleton_->obj) {
    const int there = maps.fd(bpf_map__name(map));
    if (const std::string why = misfit(map, there); !why.empty())
      return fail(Exit::Unsupported, why, "detach, and attach again; counters and flows begin anew");
    if (const int code = bpf_map__reuse_fd(map, there); code != 0)
      return fail_errno(code, fmt::format("use the pinned map {}", bpf_map__name(map)));
  }
  ANIC_TRY(load_skeleton(object.skeleton_.get()));
  return object;
}

int Object::xdp_fd() const noexcept { return bpf_program__fd(skeleton_->progs.anic_xdp); }
int Object::tc_in_fd() const noexcept { return bpf_program__fd(skeleton_->progs.anic_tc_in); }
int Object::tc_out_fd() const noexcept { return bpf_program__fd(skeleton_->progs.anic_tc_out); }
CommitPrograms Object::commit() const noexcept {
  return {.prepare_fd = bpf_program__fd(skeleton_->progs.anic_prepare),
          .commit_fd = bpf_program__fd(skeleton_->progs.anic_commit),
          .arrive_fd = bpf_program__fd(skeleton_->progs.anic_arrive)};
}

std::vector<std::pair<const char*, int>> Object::pinned_programs() const {
  const auto& progs = skeleton_->progs;
  return {{kPreparePin, bpf_program__fd(progs.anic_prepare)},
          {kCommitPin, bpf_program__fd(progs.anic_commit)},
          {kArrivePin, bpf_program__fd(progs.anic_arrive)},
          {kOpenPin, bpf_program__fd(progs.anic_open)},
          {kClosePin, bpf_program__fd(progs.anic_close)},
          {kFailsafePin, bpf_program__fd(progs.anic_failsafe)},
          {kNotePin, bpf_program__fd(progs.anic_note)},
          {kEndPin, bpf_program__fd(progs.anic_end)}};
}

Status Object::start() const {
  LIBBPF_OPTS(bpf_test_run_opts, options);
  if (bpf_prog_test_run_opts(bpf_program__fd(skeleton_->progs.anic_start), &options) != 0)
    return fail_errno(errno, "run anic_start");
  if (const int code = static_cast<int>(options.retval); code != 0)
    return fail_errno(code, "start the timer that shares rates out");
  return {};
}

Result<Maps> Object::maps() const {
  Maps maps;
  const bpf_map* map = nullptr;
  bpf_object__for_each_map(map, skeleton_->obj) {
    UniqueFd copy(::fcntl(bpf_map__fd(map), F_DUPFD_CLOEXEC, 0));
    if (!copy) return fail_errno(errno, fmt::format("hold map {}", bpf_map__name(map)));
    maps.add(bpf_map__name(map), std::move(copy));
  }
  return maps;
}

Status Object::pin(const PinDir& dir) const {
  const auto pin_as = [&](int fd, const char* name) -> Status {
    if (bpf_obj_pin(fd, dir.pin(name).c_str()) != 0) return fail_errno(errno, "pin " + dir.pin(name));
    return {};
  };
  const bpf_map* map = nullptr;
  bpf_object__for_each_map(map, skeleton_->obj) ANIC_TRY(pin_as(bpf_map__fd(map), bpf_map__name(map)));
  for (const auto& [name, fd] : pinned_programs()) ANIC_TRY(pin_as(fd, name));
  return {};
}

Result<BpfObject> Object::open_for_dispatcher() const {
  std::size_t size = 0;
  const void* elf = instance_bpf::elf_bytes(&size);
  BpfObject copy(bpf_object__open_mem(elf, size, nullptr), bpf_object__close);
  if (!copy) return fail_errno(errno, "open the BPF object for the dispatcher");
  bpf_map* map = nullptr;
  bpf_object__for_each_map(map, copy.get()) {
    const bpf_map* loaded = bpf_object__find_map_by_name(skeleton_->obj, bpf_map__name(map));
    if (const int code = bpf_map__reuse_fd(map, bpf_map__fd(loaded)); code != 0) {
      return fail_errno(code, fmt::format("share map {} with the dispatcher's program", bpf_map__name(map)));
    }
  }
  bpf_program* program = nullptr;
  bpf_object__for_each_program(program, copy.get()) {
    bpf_program__set_autoload(program, std::string_view(bpf_program__name(program)) == "anic_xdp");
  }
  return copy;
}

}  // namespace agentnic::kern
