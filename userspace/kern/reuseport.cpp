// SPDX-License-Identifier: Apache-2.0
#include "kern/reuseport.hpp"

#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <fmt/format.h>
#include <sys/socket.h>

#include <reuseport.skel.h>
#include <cerrno>
#include <cstdint>

#include "kern/libbpf_log.hpp"

namespace agentnic::kern {

void ReuseportGroup::Destroy::operator()(reuseport_bpf* skeleton) const noexcept {
  reuseport_bpf::destroy(skeleton);
}

Result<ReuseportGroup> ReuseportGroup::open() {
  constexpr const char* kWhat = "load the program that chooses among sockets of a port";
  ReuseportGroup made;
  made.skeleton_.reset(reuseport_bpf::open());
  if (!made.skeleton_) return fail_errno(errno, kWhat);
  if (const int count = libbpf_num_possible_cpus(); count > 0)
    bpf_map__set_max_entries(made.skeleton_->maps.anic_workers, static_cast<std::uint32_t>(count));
  if (const int code = reuseport_bpf::load(made.skeleton_.get()); code != 0)
    return fail_errno(code, kWhat, take_libbpf_warning());
  return made;
}

Status ReuseportGroup::add(int socket_fd, int cpu) {
  const auto key = static_cast<std::uint32_t>(cpu);
  const auto value = static_cast<std::uint64_t>(socket_fd);
  const int map_fd = bpf_map__fd(skeleton_->maps.anic_workers);
  if (bpf_map_update_elem(map_fd, &key, &value, BPF_NOEXIST) != 0)
    return fail_errno(errno, fmt::format("make a socket the one of CPU {}", cpu));
  if (attached_) return {};
  const int program_fd = bpf_program__fd(skeleton_->progs.anic_worker);
  if (::setsockopt(socket_fd, SOL_SOCKET, SO_ATTACH_REUSEPORT_EBPF, &program_fd, sizeof(program_fd)) != 0)
    return fail_errno(errno, "attach the program that chooses among sockets of a port");
  attached_ = true;
  return {};
}

}  // namespace agentnic::kern
