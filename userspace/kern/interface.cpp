// SPDX-License-Identifier: Apache-2.0
#include "kern/interface.hpp"

#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <fmt/format.h>
#include <linux/ethtool.h>
#include <linux/sockios.h>
#include <net/if.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "base/unique_fd.hpp"

namespace agentnic::kern {
namespace {

/// One ethtool ioctl; `command` begins with the command word. False when the driver refuses.
template <typename Command>
bool ethtool(const std::string& name, Command& command) {
  const UniqueFd socket_fd(::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
  ifreq request{};
  std::copy_n(name.data(), std::min<std::size_t>(name.size(), IFNAMSIZ - 1), request.ifr_name);
  request.ifr_data = reinterpret_cast<char*>(&command);
  return socket_fd && ::ioctl(socket_fd.get(), SIOCETHTOOL, &request) == 0;
}

std::optional<bool> switch_state(const std::string& name, std::uint32_t command) {
  ethtool_value value{};
  value.cmd = command;
  if (!ethtool(name, value)) return std::nullopt;
  return value.data != 0;
}

std::optional<bool> flag_state(const std::string& name, std::uint32_t flag) {
  ethtool_value value{};
  value.cmd = ETHTOOL_GFLAGS;
  if (!ethtool(name, value)) return std::nullopt;
  return (value.data & flag) != 0;
}

}  // namespace

Result<Interface> find_interface(const std::string& name) {
  Interface found;
  found.name = name;
  found.ifindex = name.size() < IFNAMSIZ ? ::if_nametoindex(name.c_str()) : 0;
  if (found.ifindex == 0) {
    return fail(Exit::BadInput, fmt::format("find interface {}: there is none with this name", name),
                "ip link shows them; --netns NAME looks in another network namespace");
  }
  char first_name[IF_NAMESIZE] = {};  // `name` may be an alternative one
  if (::if_indextoname(found.ifindex, first_name) != nullptr) found.name = first_name;
  ethtool_drvinfo info{};
  info.cmd = ETHTOOL_GDRVINFO;
  const bool answered = ethtool(name, info);
  found.driver = answered ? std::string(info.driver, ::strnlen(info.driver, sizeof(info.driver))) : "?";
  if (answered) found.firmware.assign(info.fw_version, ::strnlen(info.fw_version, sizeof(info.fw_version)));
  ethtool_channels channels{};
  channels.cmd = ETHTOOL_GCHANNELS;
  if (ethtool(name, channels)) {
    found.rx_queues = std::max(1U, channels.rx_count + channels.combined_count);
    found.tx_queues = std::max(1U, channels.tx_count + channels.combined_count);
  }
  return found;
}

Offloads read_offloads(const std::string& name) {
  return {.tx_checksum = switch_state(name, ETHTOOL_GTXCSUM),
          .rx_checksum = switch_state(name, ETHTOOL_GRXCSUM),
          .tso = switch_state(name, ETHTOOL_GTSO),
          .gso = switch_state(name, ETHTOOL_GGSO),
          .gro = switch_state(name, ETHTOOL_GGRO),
          .rx_vlan = flag_state(name, ETH_FLAG_RXVLAN)};
}

Status set_rx_vlan(const std::string& name, bool on) {
  ethtool_value value{};
  value.cmd = ETHTOOL_GFLAGS;
  bool done = ethtool(name, value);
  value.cmd = ETHTOOL_SFLAGS;
  value.data = on ? value.data | ETH_FLAG_RXVLAN : value.data & ~std::uint32_t{ETH_FLAG_RXVLAN};
  done = done && ethtool(name, value) && flag_state(name, ETH_FLAG_RXVLAN) == on;
  if (!done) {
    return fail(Exit::Unsupported,
                fmt::format("turn VLAN receive offload of {} {}: its driver does not let it be", name,
                            on ? "on" : "off"));
  }
  return {};
}

Result<XdpProgram> attached_xdp(std::uint32_t ifindex) {
  LIBBPF_OPTS(bpf_xdp_query_opts, query);
  if (const int code = bpf_xdp_query(static_cast<int>(ifindex), 0, &query); code != 0) {
    return fail_errno(code, fmt::format("ask for the XDP program of interface index {}", ifindex));
  }
  XdpProgram program;
  for (const std::uint32_t id : {query.prog_id, query.drv_prog_id, query.skb_prog_id, query.hw_prog_id}) {
    if (id != 0) program.id = id;
  }
  if (const UniqueFd fd(program.id ? bpf_prog_get_fd_by_id(program.id) : -1); fd) {
    bpf_prog_info info{};
    std::uint32_t size = sizeof(info);
    if (bpf_prog_get_info_by_fd(fd.get(), &info, &size) == 0) program.name = info.name;
  }
  return program;
}

}  // namespace agentnic::kern
