// SPDX-License-Identifier: Apache-2.0
#include "kern/driver.hpp"

#include <bpf/libbpf.h>
#include <fmt/format.h>
#include <linux/ethtool_netlink.h>
#include <net/if.h>
#include <netlink/genl/ctrl.h>
#include <netlink/genl/genl.h>
#include <netlink/netlink.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <memory>
#include <span>

#include "base/unique_fd.hpp"
#include "kern/ethtool_netlink.hpp"
#include "kern/queue_device.hpp"

namespace agentnic::kern {
namespace {

using NetlinkSocket = std::unique_ptr<nl_sock, decltype(&nl_socket_free)>;
using NetlinkMessage = std::unique_ptr<nl_msg, decltype(&nlmsg_free)>;

Result<NetlinkSocket> open_generic_netlink() {
  NetlinkSocket opened(nl_socket_alloc(), nl_socket_free);
  if (!opened) return fail_errno(ENOMEM, "open a netlink socket");
  if (const int code = genl_connect(opened.get()); code != 0)
    return fail(Exit::Failed, fmt::format("open a generic netlink socket: {}", nl_geterror(code)));
  return opened;
}

/// A callback of C: reads the answer to ETHTOOL_MSG_CHANNELS_GET into a std::optional<Channels>.
int read_channels_answer(nl_msg* message, void* into) noexcept {
  std::array<nlattr*, ETHTOOL_A_CHANNELS_MAX + 1> found{};
  if (genlmsg_parse(nlmsg_hdr(message), 0, found.data(), ETHTOOL_A_CHANNELS_MAX, nullptr) != 0)
    return NL_SKIP;
  const auto number = [&](int attribute) {
    const nlattr* there = std::span(found)[static_cast<std::size_t>(attribute)];
    return there != nullptr && nla_len(there) >= static_cast<int>(sizeof(std::uint32_t)) ? nla_get_u32(there)
                                                                                         : 0U;
  };
  *static_cast<std::optional<Channels>*>(into) = Channels{
      .rx = {number(ETHTOOL_A_CHANNELS_RX_COUNT), number(ETHTOOL_A_CHANNELS_RX_MAX)},
      .tx = {number(ETHTOOL_A_CHANNELS_TX_COUNT), number(ETHTOOL_A_CHANNELS_TX_MAX)},
      .combined = {number(ETHTOOL_A_CHANNELS_COMBINED_COUNT), number(ETHTOOL_A_CHANNELS_COMBINED_MAX)}};
  return NL_OK;
}

Result<std::optional<Channels>> ask_channels(const Interface& interface) {
  const std::string what = fmt::format("ask for the queues of {}", interface.name);
  // A socket for each question: the answer's callback stays with it.
  const NetlinkSocket netlink = ANIC_TRY(open_generic_netlink());
  const int family = genl_ctrl_resolve(netlink.get(), ETHTOOL_GENL_NAME);
  if (family < 0) return std::optional<Channels>();  // a kernel without ethtool over netlink
  NetlinkMessage message(nlmsg_alloc(), nlmsg_free);
  if (!message) return fail_errno(ENOMEM, what);
  genlmsg_put(message.get(), NL_AUTO_PORT, NL_AUTO_SEQ, family, 0, 0, ETHTOOL_MSG_CHANNELS_GET,
              ETHTOOL_GENL_VERSION);
  nlattr* header = nla_nest_start(message.get(), ETHTOOL_A_CHANNELS_HEADER);
  if (header == nullptr || nla_put_u32(message.get(), ETHTOOL_A_HEADER_DEV_INDEX, interface.ifindex) != 0)
    return fail_errno(ENOMEM, what);
  nla_nest_end(message.get(), header);
  std::optional<Channels> channels;
  nl_socket_modify_cb(netlink.get(), NL_CB_VALID, NL_CB_CUSTOM, read_channels_answer, &channels);
  const int code = nl_send_sync(netlink.get(), message.release());  // which frees it
  if (code == -NLE_OPNOTSUPP) return std::optional<Channels>();
  if (code < 0) return fail(Exit::Failed, fmt::format("{}: {}", what, nl_geterror(code)));
  return channels;
}

/// Where the driver answers nonsense to one of these questions, it is as if it had not answered.
void ask_steering(const Interface& interface, Driver& driver) {
  const auto device = open_queue_device(interface.name);
  if (!device) return;
  const auto nic = (*device)->read();
  if (!nic) return;
  driver.flow_rules = FlowRules{.on = nic->ntuple_on, .can_change = nic->ntuple_can_change};
  driver.rss_entries = static_cast<std::uint32_t>(nic->table.size());
}

Result<std::optional<XdpFeatures>> ask_xdp_features(const Interface& interface) {
  const NetlinkSocket netlink = ANIC_TRY(open_generic_netlink());
  // libbpf answers 0 both where the driver has none and where the kernel has no such family.
  if (genl_ctrl_resolve(netlink.get(), "netdev") < 0) return std::optional<XdpFeatures>();
  LIBBPF_OPTS(bpf_xdp_query_opts, query);
  if (const int code = bpf_xdp_query(static_cast<int>(interface.ifindex), 0, &query); code != 0)
    return fail_errno(code, fmt::format("ask for the XDP features of {}", interface.name));
  return std::optional(XdpFeatures{query.feature_flags, query.xdp_zc_max_segs});
}

}  // namespace

Result<Driver> ask_driver(const Interface& interface) {
  Driver driver;
  const UniqueFd socket_fd(::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
  ifreq request{};
  std::copy_n(interface.name.data(), std::min<std::size_t>(interface.name.size(), IFNAMSIZ - 1),
              request.ifr_name);
  if (!socket_fd || ::ioctl(socket_fd.get(), SIOCGIFMTU, &request) != 0)
    return fail_errno(errno, fmt::format("ask for the MTU of {}", interface.name));
  driver.mtu_bytes = static_cast<std::uint32_t>(request.ifr_mtu);
  if (::ioctl(socket_fd.get(), SIOCGIFFLAGS, &request) != 0)
    return fail_errno(errno, fmt::format("ask for the state of {}", interface.name));
  const auto flags = static_cast<unsigned short>(request.ifr_flags);
  driver.link = (flags & IFF_UP) == 0 ? "down" : (flags & IFF_RUNNING) == 0 ? "no-carrier" : "up";
  driver.vlan_offload = read_offloads(interface.name).rx_vlan;
  driver.channels = ANIC_TRY(ask_channels(interface));
  driver.features = ANIC_TRY(ask_xdp_features(interface));
  if (const auto split = read_header_split(interface.name); split && split->mode != SplitMode::Unstated)
    driver.header_split = split->mode == SplitMode::On;
  ask_steering(interface, driver);
  return driver;
}

std::vector<std::string> xdp_feature_names(std::uint64_t flags) {
  constexpr std::array<const char*, 7> kNames = {"basic",      "redirect", "ndo-xmit",   "xsk-zerocopy",
                                                 "hw-offload", "rx-sg",    "ndo-xmit-sg"};
  std::vector<std::string> names;
  for (std::size_t bit = 0; bit < 64; ++bit) {
    if (((flags >> bit) & 1U) == 0) continue;
    names.push_back(bit < kNames.size() ? kNames[bit] : fmt::format("bit-{}", bit));
  }
  return names;
}

}  // namespace agentnic::kern
