// SPDX-License-Identifier: Apache-2.0
#pragma once

/// Where a packet has to go on the wire: what the kernel knows of routes and neighbours, by rtnetlink. The
/// kernel does all of ARP and neighbour discovery; here nothing is sent but datagrams by its own sockets.

#include <linux/netlink.h>
#include <netinet/in.h>

#include <array>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "base/result.hpp"
#include "base/unique_fd.hpp"
#include "path/xsk/datagram.hpp"

struct nl_msg;
struct nl_sock;

namespace agentnic::path {

/// The first hop to a destination.
struct Hop {
  Mac destination_mac{};  ///< of the destination, or of the gateway to it
  Mac source_mac{};
  in6_addr source{};      ///< what the kernel would send from
  std::uint32_t mtu = 0;  ///< of the route, else of the interface
};

/// The neighbours of one interface, in the network namespace of the thread that uses it: one thread. Takes no
/// privilege.
///
///     const auto hop = ANIC_TRY(neighbours.resolve(to.address));
///     if (!hop) ANIC_TRY(neighbours.send_by_kernel(to, payload, port));  // and the kernel resolves it
///
/// What resolve() says holds until generation() changes, which poll() does: a Flow may be kept as long.
/// Changes of routes, addresses, neighbours and the interface are told by the kernel; ICMP redirects and path
/// MTUs are not, and count from the next change on.
class Neighbours final {
 public:
  static Result<Neighbours> open(std::uint32_t ifindex);
  Neighbours(Neighbours&&) = default;
  Neighbours& operator=(Neighbours&&) = default;
  Neighbours(const Neighbours&) = delete;
  Neighbours& operator=(const Neighbours&) = delete;
  ~Neighbours() = default;

  /// Nothing: this datagram is to be sent by the kernel. That is while the neighbour has not answered, or the
  /// interface is down; and once, and again after a second, when it was not heard of for a while (NUD_STALE):
  /// the kernel asks a neighbour only when it sends to it itself.
  ///
  /// An error for what is not on the wire: no route over this interface, groups and broadcasts, own
  /// addresses.
  Result<std::optional<Hop>> resolve(const in6_addr& destination);

  /// Sends a datagram by a kernel socket over this interface, from the address that resolve() would give. The
  /// answer is the port that it comes from. That is `source_port`, as in frames, when this can be bound: it
  /// is free, or all sockets on it are of the same user and have SO_REUSEPORT. Else (and for 0) it is a free
  /// one, and the peer sees a datagram of somebody else. Nothing is received there: who wants the answers has
  /// a socket of his own.
  Result<std::uint16_t> send_by_kernel(const Endpoint& to, std::span<const std::byte> payload,
                                       std::uint16_t source_port);

  /// Takes what the kernel has told since; one system call when there is nothing. Now and then is enough, and
  /// when fd() is readable.
  void poll();
  [[nodiscard]] std::uint64_t generation() const noexcept { return generation_; }
  [[nodiscard]] int fd() const noexcept;

 private:
  using Socket = std::unique_ptr<nl_sock, void (*)(nl_sock*)>;
  using Key = std::array<std::uint64_t, 2>;  // an address, as it lies in memory
  struct Link {
    std::string name;
    Mac mac{};
    std::uint32_t mtu = 0;
    bool is_up = false;
    bool is_gone = false;  // or not Ethernet
  };
  struct Route {
    in6_addr next{};  // the destination or the gateway to it
    in6_addr source{};
    std::uint32_t mtu = 0;
  };
  struct Neighbour {
    Mac mac{};
    std::uint16_t state = 0;          // NUD_*
    std::uint64_t stale_told_at = 0;  // when a datagram was last left to the kernel for it
  };
  struct Sender {
    in6_addr source{};
    std::uint16_t wanted_port = 0;
    std::uint16_t port = 0;
    UniqueFd fd;
  };

  Neighbours() = default;
  Result<int> ask(nl_msg* request, const std::function<void(nlmsghdr*)>& on_answer);
  Status ask_link();
  Result<int> ask_route(const in6_addr& destination, std::uint32_t ifindex, unsigned flags, Route& found,
                        int& type);
  Status ask_neighbour(const in6_addr& address, Neighbour& neighbour);
  Result<Route> route_to(const in6_addr& destination);
  Result<Neighbour*> neighbour_of(const in6_addr& address);
  Result<const Sender*> sender_for(const in6_addr& source, std::uint16_t port);
  void on_notice(nlmsghdr* message);
  void take_link(nlmsghdr* message);
  void take_neighbour(nlmsghdr* message);
  void forget_routes();
  void forget_all();

  std::uint32_t ifindex_ = 0;
  Socket asking_{nullptr, nullptr};
  Socket listening_{nullptr, nullptr};
  Link link_;
  std::map<Key, Route> routes_;
  std::map<Key, Neighbour> neighbours_;
  std::vector<Sender> senders_;
  std::uint64_t generation_ = 0;
  std::uint64_t stale_again_at_ = 0;  // when those that are still stale are to be told again; 0: none was
};

}  // namespace agentnic::path
