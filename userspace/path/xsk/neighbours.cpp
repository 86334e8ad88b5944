// SPDX-License-Identifier: Apache-2.0
#include "path/xsk/neighbours.hpp"

#include <fmt/format.h>
#include <linux/if.h>
#include <linux/if_arp.h>
#include <linux/neighbour.h>
#include <linux/rtnetlink.h>
#include <netlink/attr.h>
#include <netlink/msg.h>
#include <netlink/netlink.h>
#include <netlink/route/neighbour.h>
#include <netlink/route/nexthop.h>
#include <netlink/route/route.h>
#include <sys/socket.h>

#include <algorithm>
#include <bit>
#include <cerrno>
#include <cstring>
#include <utility>

#include "base/clock.hpp"

namespace agentnic::path {
namespace {

using OnMessage = std::function<void(nlmsghdr*)>;
using Message = std::unique_ptr<nl_msg, decltype(&nlmsg_free)>;

constexpr std::uint64_t kStalePauseNs = 1'000'000'000;
constexpr std::size_t kEntriesMax = 65536;
constexpr std::size_t kSendersMax = 64;
constexpr int kBufferBytes = 1 << 20;  // asked for; the kernel caps it at net.core.rmem_max
constexpr int kNoticesMax = 4096;      // in one poll()
constexpr std::uint16_t kDiscard = 9;  // RFC 863
constexpr int kUsable = NUD_REACHABLE | NUD_STALE | NUD_DELAY | NUD_PROBE | NUD_PERMANENT | NUD_NOARP;

/// A callback of C.
int call_with_message(nl_msg* message, void* on_message) noexcept {
  (*static_cast<const OnMessage*>(on_message))(nlmsg_hdr(message));
  return NL_OK;
}

int keep_error(sockaddr_nl* /*from*/, nlmsgerr* error, void* kept) noexcept {
  *static_cast<int*>(kept) = -error->error;
  return NL_STOP;
}

void on_message(nl_sock* socket, const OnMessage& call) {
  nl_socket_modify_cb(socket, NL_CB_VALID, NL_CB_CUSTOM, call_with_message, const_cast<OnMessage*>(&call));
}

Result<std::unique_ptr<nl_sock, void (*)(nl_sock*)>> connect() {
  std::unique_ptr<nl_sock, void (*)(nl_sock*)> socket(nl_socket_alloc(), nl_socket_free);
  const char* what = "open a netlink socket for routes and neighbours";
  if (!socket) return fail_errno(ENOMEM, what);
  if (const int code = nl_connect(socket.get(), NETLINK_ROUTE); code < 0)
    return fail(Exit::Failed, fmt::format("{}: {}", what, nl_geterror(code)));
  return socket;
}

in6_addr mapped(int family, const void* bytes) {
  Address address;
  address.storage.ss_family = static_cast<sa_family_t>(family);
  if (family == AF_INET) {
    std::memcpy(&reinterpret_cast<sockaddr_in*>(&address.storage)->sin_addr, bytes, sizeof(in_addr));
  } else {
    std::memcpy(&reinterpret_cast<sockaddr_in6*>(&address.storage)->sin6_addr, bytes, sizeof(in6_addr));
  }
  return Endpoint::from(address).address;
}

/// Nothing for what is not an address of IP.
std::optional<in6_addr> mapped(const nl_addr* address) {
  if (address == nullptr) return std::nullopt;
  const int family = nl_addr_get_family(address);
  const bool is_ip = (family == AF_INET && nl_addr_get_len(address) == sizeof(in_addr)) ||
                     (family == AF_INET6 && nl_addr_get_len(address) == sizeof(in6_addr));
  if (!is_ip) return std::nullopt;
  return mapped(family, nl_addr_get_binary_addr(address));
}

/// An address as netlink takes it.
struct Plain {
  explicit Plain(const in6_addr& address)
      : family(IN6_IS_ADDR_V4MAPPED(&address) ? AF_INET : AF_INET6),
        size(family == AF_INET ? sizeof(in_addr) : sizeof(in6_addr)),
        bytes(address.s6_addr + sizeof(in6_addr) - size) {}
  std::uint8_t family;
  int size;
  const std::uint8_t* bytes;
};

template <typename Body>
Result<Message> request(int type, Body body) {
  Message message(nlmsg_alloc_simple(type, NLM_F_REQUEST), nlmsg_free);
  if (!message || nlmsg_append(message.get(), &body, sizeof(body), NLMSG_ALIGNTO) < 0)
    return fail_errno(ENOMEM, "make a netlink message");
  return message;
}

std::array<std::uint64_t, 2> key_of(const in6_addr& address) {
  return std::bit_cast<std::array<std::uint64_t, 2>>(address);
}

}  // namespace

Result<Neighbours> Neighbours::open(std::uint32_t ifindex) {
  Neighbours made;
  made.ifindex_ = ifindex;
  made.asking_ = ANIC_TRY(connect());
  nl_socket_disable_auto_ack(made.asking_.get());  // an answer or an error is all that comes
  made.listening_ = ANIC_TRY(connect());
  nl_sock* listening = made.listening_.get();
  nl_socket_disable_seq_check(listening);
  nl_socket_set_buffer_size(listening, kBufferBytes, 0);
  const int code = nl_socket_add_memberships(listening, RTNLGRP_NEIGH, RTNLGRP_LINK, RTNLGRP_IPV4_ROUTE,
                                             RTNLGRP_IPV6_ROUTE, RTNLGRP_IPV4_IFADDR, RTNLGRP_IPV6_IFADDR,
                                             RTNLGRP_IPV4_RULE, RTNLGRP_IPV6_RULE, 0);
  if (code < 0 || nl_socket_set_nonblocking(listening) < 0)
    return fail(Exit::Failed,
                fmt::format("listen to changes of routes and neighbours: {}", nl_geterror(code)));
  ANIC_TRY(made.ask_link());  // after the groups, so that no change is missed
  return made;
}

int Neighbours::fd() const noexcept { return nl_socket_get_fd(listening_.get()); }

/// The errno that the kernel answers, or 0.
Result<int> Neighbours::ask(nl_msg* request, const OnMessage& on_answer) {
  int error = 0;
  on_message(asking_.get(), on_answer);
  nl_socket_modify_err_cb(asking_.get(), NL_CB_CUSTOM, keep_error, &error);
  int code = nl_send_auto(asking_.get(), request);
  if (code >= 0) code = nl_recvmsgs_default(asking_.get());
  if (code < 0 && error == 0)
    return fail(Exit::Failed,
                fmt::format("ask for the neighbours of interface index {}: {}", ifindex_, nl_geterror(code)));
  return error;
}

Status Neighbours::ask_link() {
  ifinfomsg body{};
  body.ifi_index = static_cast<int>(ifindex_);
  const Message message = ANIC_TRY(request(RTM_GETLINK, body));
  const int error = ANIC_TRY(ask(message.get(), [&](nlmsghdr* answer) { take_link(answer); }));
  if (error != 0) return fail_errno(error, fmt::format("ask for interface index {}", ifindex_));
  if (link_.is_gone)
    return fail(Exit::Unsupported, fmt::format("{} has no Ethernet addresses", link_.name),
                "give one that sends Ethernet frames");
  return {};
}

void Neighbours::take_link(nlmsghdr* message) {
  const auto* info = static_cast<const ifinfomsg*>(nlmsg_data(message));
  std::array<nlattr*, IFLA_MAX + 1> found{};
  if (nlmsg_parse(message, sizeof(*info), found.data(), IFLA_MAX, nullptr) != 0) return;
  if (found[IFLA_IFNAME] != nullptr) link_.name = nla_get_string(found[IFLA_IFNAME]);
  const nlattr* mac = found[IFLA_ADDRESS];
  link_.is_gone = message->nlmsg_type == RTM_DELLINK || info->ifi_type != ARPHRD_ETHER || mac == nullptr ||
                  nla_len(mac) != static_cast<int>(link_.mac.size());
  if (link_.is_gone) return;
  std::memcpy(link_.mac.data(), nla_data(mac), link_.mac.size());
  if (found[IFLA_MTU] != nullptr) link_.mtu = nla_get_u32(found[IFLA_MTU]);
  constexpr unsigned kUp = IFF_UP | IFF_RUNNING;
  link_.is_up = (info->ifi_flags & kUp) == kUp;
}

/// The errno that the kernel answers, or 0 and the route and its type (RTN_*). `ifindex`: 0 for any.
Result<int> Neighbours::ask_route(const in6_addr& destination, std::uint32_t ifindex, unsigned flags,
                                  Route& found, int& type) {
  const Plain plain(destination);
  rtmsg body{};
  body.rtm_family = plain.family;
  body.rtm_dst_len = static_cast<std::uint8_t>(plain.size * 8);
  body.rtm_flags = flags;
  const Message message = ANIC_TRY(request(RTM_GETROUTE, body));
  nla_put(message.get(), RTA_DST, plain.size, plain.bytes);
  if (ifindex != 0) nla_put_u32(message.get(), RTA_OIF, ifindex);
  type = RTN_UNSPEC;
  return ask(message.get(), [&](nlmsghdr* answer) {
    rtnl_route* parsed = nullptr;
    if (answer->nlmsg_type != RTM_NEWROUTE || rtnl_route_parse(answer, &parsed) < 0) return;
    const std::unique_ptr<rtnl_route, decltype(&rtnl_route_put)> route(parsed, rtnl_route_put);
    type = rtnl_route_get_type(parsed);
    found = {.next = destination, .source = {}, .mtu = link_.mtu};
    if (const auto source = mapped(rtnl_route_get_pref_src(parsed))) found.source = *source;
    std::uint32_t mtu = 0;
    if (rtnl_route_get_metric(parsed, RTAX_MTU, &mtu) == 0 && mtu != 0) found.mtu = std::min(mtu, link_.mtu);
    rtnl_nexthop* hop = rtnl_route_nexthop_n(parsed, 0);
    if (hop == nullptr) return;
    const bool is_elsewhere = ifindex != 0 && rtnl_route_nh_get_ifindex(hop) != static_cast<int>(ifindex);
    if (type == RTN_UNICAST && is_elsewhere) type = RTN_UNSPEC;
    if (const auto gateway = mapped(rtnl_route_nh_get_gateway(hop))) found.next = *gateway;
    if (const auto via = mapped(rtnl_route_nh_get_via(hop))) found.next = *via;
  });
}

Result<Neighbours::Route> Neighbours::route_to(const in6_addr& destination) {
  if (const auto known = routes_.find(key_of(destination)); known != routes_.end()) return known->second;
  const std::string text = text_of(destination);
  const auto group = [&] {
    return fail(Exit::BadInput, fmt::format("{} is not the address of one host", text),
                "groups and broadcasts take a kernel socket");
  };
  const auto own = [&] {
    return fail(Exit::BadInput, fmt::format("{} is an address of this host", text),
                "what stays on the host takes a kernel socket");
  };
  if (!Endpoint{destination, 0}.is_one_host()) return group();
  Route route;
  int type = RTN_UNSPEC;
  // Asked for one interface, the kernel does not see the addresses that others have.
  if (!IN6_IS_ADDR_LINKLOCAL(&destination)) {
    ANIC_TRY(ask_route(destination, 0, 0, route, type));
    if (type == RTN_LOCAL || type == RTN_ANYCAST) return own();
    if (type == RTN_BROADCAST) return group();
  }
  // And it takes every IPv4 address for one on the link, if no route says so: what the table has is asked
  // too.
  int error = 0;
  if (IN6_IS_ADDR_V4MAPPED(&destination))
    error = ANIC_TRY(ask_route(destination, ifindex_, RTM_F_FIB_MATCH, route, type));
  if (error == 0) error = ANIC_TRY(ask_route(destination, ifindex_, 0, route, type));
  if (error == 0 && (type == RTN_LOCAL || type == RTN_ANYCAST)) return own();
  if (error == 0 && (type == RTN_BROADCAST || type == RTN_MULTICAST)) return group();
  if (error != 0 || type != RTN_UNICAST)
    return fail(Exit::Failed, fmt::format("no route to {} over {}", text, link_.name),
                fmt::format("ip route get {} oif {}", text, link_.name));
  if (IN6_IS_ADDR_UNSPECIFIED(&route.source) || !Endpoint{route.source, 0}.is_one_host())
    return fail(Exit::Failed, fmt::format("no address of {} to reach {} from", link_.name, text),
                fmt::format("ip address show dev {}", link_.name));
  if (routes_.size() >= kEntriesMax) forget_all();
  routes_.emplace(key_of(destination), route);
  return route;
}

Status Neighbours::ask_neighbour(const in6_addr& address, Neighbour& neighbour) {
  const Plain plain(address);
  ndmsg body{};
  body.ndm_family = plain.family;
  body.ndm_ifindex = static_cast<int>(ifindex_);
  const Message message = ANIC_TRY(request(RTM_GETNEIGH, body));
  nla_put(message.get(), NDA_DST, plain.size, plain.bytes);
  neighbour.state = NUD_NONE;
  const int error = ANIC_TRY(ask(message.get(), [&](nlmsghdr* answer) {
    rtnl_neigh* parsed = nullptr;
    if (answer->nlmsg_type != RTM_NEWNEIGH || rtnl_neigh_parse(answer, &parsed) < 0) return;
    const std::unique_ptr<rtnl_neigh, decltype(&rtnl_neigh_put)> found(parsed, rtnl_neigh_put);
    const nl_addr* mac = rtnl_neigh_get_lladdr(parsed);
    const int state = rtnl_neigh_get_state(parsed);
    if (mac == nullptr || nl_addr_get_len(mac) != neighbour.mac.size() || state < 0) return;
    std::memcpy(neighbour.mac.data(), nl_addr_get_binary_addr(mac), neighbour.mac.size());
    neighbour.state = static_cast<std::uint16_t>(state);
  }));
  if (error != 0 && error != ENOENT && error != ENODEV)
    return fail_errno(error, fmt::format("ask for the neighbour {} of {}", text_of(address), link_.name));
  return {};
}

Result<Neighbours::Neighbour*> Neighbours::neighbour_of(const in6_addr& address) {
  if (const auto known = neighbours_.find(key_of(address)); known != neighbours_.end()) return &known->second;
  Neighbour neighbour;
  ANIC_TRY(ask_neighbour(address, neighbour));
  if (neighbours_.size() >= kEntriesMax) forget_all();
  return &neighbours_.emplace(key_of(address), neighbour).first->second;
}

Result<std::optional<Hop>> Neighbours::resolve(const in6_addr& destination) {
  if (link_.is_gone)
    return fail(Exit::Failed, fmt::format("{} is gone", link_.name),
                "open the interface that took its place");
  if (!link_.is_up) return std::nullopt;
  const Route route = ANIC_TRY(route_to(destination));
  Neighbour& neighbour = *ANIC_TRY(neighbour_of(route.next));
  if ((neighbour.state & NUD_STALE) != 0) {
    const std::uint64_t now = monotonic_ns();
    if (neighbour.stale_told_at == 0 || now - neighbour.stale_told_at >= kStalePauseNs) {
      // That the kernel has sent to it and waits for a sign (NUD_DELAY) is told nobody.
      ANIC_TRY(ask_neighbour(route.next, neighbour));
      if ((neighbour.state & NUD_STALE) != 0) {
        neighbour.stale_told_at = now;
        stale_again_at_ = now + kStalePauseNs;
        return std::nullopt;
      }
    }
  }
  if ((neighbour.state & kUsable) == 0) return std::nullopt;
  return Hop{
      .destination_mac = neighbour.mac, .source_mac = link_.mac, .source = route.source, .mtu = route.mtu};
}

/// A socket that is bound and receives nothing: it is connected to a port of its own address, from which
/// nobody sends, so that the datagrams of those who share its port stay theirs. It is not, for a moment, when
/// it is made.
Result<const Neighbours::Sender*> Neighbours::sender_for(const in6_addr& source, std::uint16_t port) {
  const auto known = std::ranges::find_if(senders_, [&](const Sender& sender) {
    return sender.wanted_port == port && key_of(sender.source) == key_of(source);
  });
  if (known != senders_.end()) return &*known;
  const std::string what = fmt::format("open a UDP socket on {}, {}", text_of(source), link_.name);
  const int family = IN6_IS_ADDR_V4MAPPED(&source) ? AF_INET : AF_INET6;
  Sender made{.source = source,
              .wanted_port = port,
              .port = 0,
              .fd = UniqueFd(::socket(family, SOCK_DGRAM | SOCK_CLOEXEC, 0))};
  if (!made.fd) return fail_errno(errno, what);
  const int yes = 1;
  const int ifindex = static_cast<int>(ifindex_);
  ::setsockopt(made.fd.get(), SOL_SOCKET, SO_REUSEPORT, &yes, sizeof(yes));
  if (::setsockopt(made.fd.get(), SOL_SOCKET, SO_BINDTOIFINDEX, &ifindex, sizeof(ifindex)) != 0)
    return fail_errno(errno, what);
  Address local = Endpoint{source, port}.to_address(ifindex_);
  if (::bind(made.fd.get(), local.get(), local.length) != 0) {
    local = Endpoint{source, 0}.to_address(ifindex_);
    if (::bind(made.fd.get(), local.get(), local.length) != 0) return fail_errno(errno, what);
  }
  const Address nobody = Endpoint{source, kDiscard}.to_address(ifindex_);
  if (::connect(made.fd.get(), nobody.get(), nobody.length) != 0 ||
      ::getsockname(made.fd.get(), reinterpret_cast<sockaddr*>(&local.storage), &local.length) != 0)
    return fail_errno(errno, what);
  made.port = Endpoint::from(local).port;
  if (senders_.size() >= kSendersMax) senders_.clear();
  senders_.push_back(std::move(made));
  return &senders_.back();
}

Result<std::uint16_t> Neighbours::send_by_kernel(const Endpoint& to, std::span<const std::byte> payload,
                                                 std::uint16_t source_port) {
  const Route route = ANIC_TRY(route_to(to.address));
  const Sender* sender = ANIC_TRY(sender_for(route.source, source_port));
  const Address peer = to.to_address(ifindex_);
  if (::sendto(sender->fd.get(), payload.data(), payload.size(), MSG_DONTWAIT, peer.get(), peer.length) < 0)
    return fail_errno(errno, fmt::format("send {} bytes to {}, port {}, over {}", payload.size(),
                                         text_of(to.address), to.port, link_.name));
  return sender->port;
}

void Neighbours::take_neighbour(nlmsghdr* message) {
  const auto* info = static_cast<const ndmsg*>(nlmsg_data(message));
  if (info->ndm_ifindex != static_cast<int>(ifindex_) ||
      (info->ndm_family != AF_INET && info->ndm_family != AF_INET6))
    return;
  rtnl_neigh* parsed = nullptr;
  if (rtnl_neigh_parse(message, &parsed) < 0) return;
  const std::unique_ptr<rtnl_neigh, decltype(&rtnl_neigh_put)> found(parsed, rtnl_neigh_put);
  const auto address = mapped(rtnl_neigh_get_dst(parsed));
  if (!address) return;
  const auto known = neighbours_.find(key_of(*address));
  if (known == neighbours_.end()) return;
  Neighbour& neighbour = known->second;
  const Neighbour before = neighbour;
  const nl_addr* mac = rtnl_neigh_get_lladdr(parsed);
  const int state = rtnl_neigh_get_state(parsed);
  const bool is_there = message->nlmsg_type == RTM_NEWNEIGH && state > 0 && mac != nullptr &&
                        nl_addr_get_len(mac) == neighbour.mac.size();
  neighbour.state = is_there ? static_cast<std::uint16_t>(state) : std::uint16_t{NUD_NONE};
  if (is_there) std::memcpy(neighbour.mac.data(), nl_addr_get_binary_addr(mac), neighbour.mac.size());
  const bool was_usable = (before.state & kUsable) != 0;
  const bool is_usable = (neighbour.state & kUsable) != 0;
  const bool is_stale_now = (neighbour.state & ~before.state & NUD_STALE) != 0;
  if (was_usable != is_usable || before.mac != neighbour.mac || is_stale_now) ++generation_;
}

void Neighbours::on_notice(nlmsghdr* message) {
  switch (message->nlmsg_type) {
    case RTM_NEWNEIGH:
    case RTM_DELNEIGH:
      take_neighbour(message);
      return;
    case RTM_NEWLINK:
    case RTM_DELLINK: {
      const auto* info = static_cast<const ifinfomsg*>(nlmsg_data(message));
      if (info->ifi_family != AF_UNSPEC || info->ifi_index != static_cast<int>(ifindex_)) return;
      take_link(message);
      forget_all();
      return;
    }
    default:
      forget_routes();
  }
}

void Neighbours::poll() {
  const OnMessage notice = [this](nlmsghdr* message) { on_notice(message); };
  on_message(listening_.get(), notice);
  for (int i = 0; i < kNoticesMax; ++i) {
    const int code = nl_recvmsgs_default(listening_.get());
    if (code == -NLE_AGAIN) break;
    if (code >= 0) continue;
    // ENOBUFS: what was lost is not known, so that all is asked again.
    forget_all();
    if (!ask_link()) link_.is_gone = true;
    break;
  }
  if (stale_again_at_ == 0 || monotonic_ns() < stale_again_at_) return;
  stale_again_at_ = 0;
  generation_ += std::ranges::any_of(neighbours_,
                                     [](const auto& entry) { return (entry.second.state & NUD_STALE) != 0; });
}

/// The addresses that sockets are bound to may have gone with them.
void Neighbours::forget_routes() {
  routes_.clear();
  senders_.clear();
  ++generation_;
}

void Neighbours::forget_all() {
  neighbours_.clear();
  forget_routes();
}

}  // namespace agentnic::path
