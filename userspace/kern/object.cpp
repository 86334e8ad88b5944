// SPDX-License-Identifier: Apache-2.0
#include "kern/object.hpp"

#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <fmt/format.h>

#include <instance.skel.h>
#include <cerrno>
#include <span>

#include "abi/flow.h"
#include "abi/stats.h"
#include "kern/libbpf_log.hpp"

namespace agentnic::kern {
namespace {

template <typename Value>
Status write_entry(const bpf_map* map, std::uint32_t index, const Value& value) {
  if (bpf_map_update_elem(bpf_map__fd(map), &index, &value, BPF_ANY) != 0) {
    return fail_errno(errno, fmt::format("write entry {} of map {}", index, bpf_map__name(map)));
  }
  return {};
}

}  // namespace

void Object::Destroy::operator()(instance_bpf* skeleton) const noexcept { instance_bpf::destroy(skeleton); }

Result<Object> Object::load() {
  Object object;
  object.skeleton_.reset(instance_bpf::open());
  if (!object.skeleton_) return fail_errno(errno, "open the BPF object");
  if (const int code = instance_bpf::load(object.skeleton_.get()); code != 0) {
    const std::string said = take_libbpf_warning();
    return fail_errno(code, "load the BPF object",
                      code == -EPERM
                          ? "run as root, or with CAP_BPF and CAP_NET_ADMIN"
                          : fmt::format("-v shows the verifier's log; the last warning was: {}", said));
  }
  return object;
}

int Object::xdp_fd() const noexcept { return bpf_program__fd(skeleton_->progs.anic_xdp); }
int Object::tc_fd() const noexcept { return bpf_program__fd(skeleton_->progs.anic_tc); }
int Object::counters_fd() const noexcept { return bpf_map__fd(skeleton_->maps.anic_counters); }
int Object::xsks_fd() const noexcept { return bpf_map__fd(skeleton_->maps.anic_xsks); }

Status Object::fill(const policy::Tables& tables) const {
  for (const auto& [index, entry] : tables.ports)
    ANIC_TRY(write_entry(skeleton_->maps.anic_ports, index, entry));
  for (std::uint32_t id = 1; const anic_service& service : tables.services) {
    ANIC_TRY(write_entry(skeleton_->maps.anic_services, id++, service));
  }
  return {};
}

Status Object::write_meta(const anic_meta& meta) const {
  return write_entry(skeleton_->maps.anic_meta, 0, meta);
}

Status Object::pin_maps(const PinDir& dir) const {
  const bpf_map* map = nullptr;
  bpf_object__for_each_map(map, skeleton_->obj) {
    const std::string path = dir.pin(bpf_map__name(map));
    if (bpf_obj_pin(bpf_map__fd(map), path.c_str()) != 0) return fail_errno(errno, "pin " + path);
  }
  return {};
}

Result<std::unique_ptr<bpf_object, void (*)(bpf_object*)>> Object::open_for_dispatcher() const {
  std::size_t size = 0;
  const void* elf = instance_bpf::elf_bytes(&size);
  std::unique_ptr<bpf_object, void (*)(bpf_object*)> copy(bpf_object__open_mem(elf, size, nullptr),
                                                          bpf_object__close);
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

std::uint64_t Object::memory_bytes(unsigned cpus) {
  return std::uint64_t{2} * ANIC_PORTS * sizeof(anic_port) + ANIC_SERVICES_MAX * sizeof(anic_service) +
         ANIC_QUEUES_MAX * sizeof(void*) + sizeof(anic_meta) + std::uint64_t{cpus} * sizeof(anic_counters);
}

unsigned possible_cpus() {
  const int count = libbpf_num_possible_cpus();
  return count > 0 ? static_cast<unsigned>(count) : 1;
}

}  // namespace agentnic::kern
