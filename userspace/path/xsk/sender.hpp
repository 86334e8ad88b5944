// SPDX-License-Identifier: Apache-2.0
#pragma once

/// UDP from one local port, over AF_XDP sockets: headers, neighbours, and what the kernel has to send itself.

#include <cstdint>
#include <map>
#include <optional>
#include <span>

#include "base/result.hpp"
#include "path/xsk/client.hpp"
#include "path/xsk/datagram.hpp"
#include "path/xsk/neighbours.hpp"

namespace agentnic::path {

struct SenderOptions {
  std::uint16_t port = 0;                                ///< that datagrams come from
  std::optional<std::uint16_t> vlan_tci = std::nullopt;  ///< of a tag that they get
  std::uint32_t ifindex =
      0;  ///< whose routes and neighbours hold, such as that of the VLAN; 0: the socket's own
};

struct SenderCounters {
  std::uint64_t by_socket = 0;
  std::uint64_t by_kernel = 0;  ///< the neighbour was not known, or not heard of for a while
};

/// Sends the datagram whose payload stands in these frames, from `offset` on, `length` bytes. Headers are
/// written before it, in the first frame. The frames are the caller's, and go in any case. False: there is no
/// room for the headers, or the payload is not in these frames.
bool send_datagram(XskClient& client, XskSocket& socket, std::span<xdp_desc> packet, std::size_t offset,
                   std::size_t length, Flow& flow) noexcept;

/// In the namespace of the interface. Borrows the client. One thread.
class Sender final {
 public:
  static Result<Sender> open(XskClient& client, const SenderOptions& options);

  /// The same to an endpoint. An error for what is not on the wire, or too long.
  Status send(XskSocket& socket, std::span<xdp_desc> packet, std::size_t offset, std::size_t length,
              const Endpoint& to);

  /// Takes what the kernel has told of neighbours. Now and then.
  void poll() { neighbours_.poll(); }
  [[nodiscard]] const SenderCounters& counters() const noexcept { return counters_; }

  /// Where a payload begins that send() can put all headers before.
  static constexpr std::size_t kHeadroom = 64;

 private:
  struct Known {
    Flow flow;
    std::size_t payload_max = 0;
    std::uint64_t generation = 0;
  };
  struct Less {
    bool operator()(const Endpoint& a, const Endpoint& b) const noexcept;
  };
  Sender(XskClient& client, const SenderOptions& options, Neighbours neighbours)
      : client_(&client), options_(options), neighbours_(std::move(neighbours)) {}
  Result<Known*> flow_to(const Endpoint& to);
  Status send_by_kernel(std::span<const xdp_desc> packet, std::size_t offset, std::size_t length,
                        const Endpoint& to);

  XskClient* client_;
  SenderOptions options_;
  Neighbours neighbours_;
  std::map<Endpoint, Known, Less> known_;
  SenderCounters counters_;
};

}  // namespace agentnic::path
