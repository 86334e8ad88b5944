// SPDX-License-Identifier: Apache-2.0
#pragma once

/// Requests to backends, and their answers back to who asked.
///
/// A request is a UDP datagram of at least 8 bytes, the first eight of which are its id. They are replaced on
/// the way to the backend, which sends them back at the beginning of its answer, where the id is put in their
/// place again. A backend is chosen that has the fewest requests to answer. A request that has none
/// after kRouterTimeoutNs is forgotten: UDP's clients ask again.

#include <cstdint>
#include <vector>

#include "base/result.hpp"
#include "path/sockets/udp.hpp"
#include "path/xsk/client.hpp"
#include "path/xsk/sender.hpp"

namespace agentnic::cli {

inline constexpr std::size_t kRouterSlots = 16384;  ///< requests that wait for their answers
inline constexpr std::uint64_t kRouterTimeoutNs = 1'000'000'000;

struct RouterCounters {
  std::uint64_t requests = 0;
  std::uint64_t answers = 0;
  std::uint64_t timeouts = 0;
  std::uint64_t refused = 0;               ///< too short, or too many wait
  std::uint64_t unknown = 0;               ///< answers that nobody waits for
  std::uint64_t unread = 0;                ///< not UDP, damaged, or not for this port
  std::uint64_t unsent = 0;                ///< no route, or too long
  std::vector<std::uint64_t> of_backends;  ///< requests, by backend
};

/// One thread. Borrows the client.
class Router final {
 public:
  static Result<Router> open(path::XskClient& client, std::uint16_t port,
                             const std::vector<path::Endpoint>& backends);

  /// Until stop_requested(), or the interface is gone.
  void run(path::Wait wait) noexcept;

  [[nodiscard]] const RouterCounters& counters() const noexcept { return counters_; }
  [[nodiscard]] const path::Sender& sender() const noexcept { return sender_; }

 private:
  struct Backend {
    path::Endpoint at;
    std::uint32_t waiting = 0;
  };
  /// A request that waits for its answer.
  struct Slot {
    std::optional<path::Flow> back;  ///< to who asked
    std::uint64_t id = 0;            ///< his
    std::uint64_t until_ns = 0;
    std::uint32_t use = 0;  ///< random, of each: late answers are of another
    std::uint32_t backend = 0;
  };

  Router(path::XskClient& client, std::uint16_t port, path::Sender sender);
  void take(path::XskSocket& socket, std::span<xdp_desc> packet);
  bool pass_on(path::XskSocket& socket, std::span<xdp_desc> packet, path::Pieces pieces,
               const path::Datagram& request);
  bool give_back(path::XskSocket& socket, std::span<xdp_desc> packet, const path::Datagram& answer,
                 std::uint32_t backend);
  void free(std::uint32_t number) noexcept;
  void expire() noexcept;

  path::XskClient* client_;
  std::uint16_t port_;
  path::Sender sender_;
  std::vector<Backend> backends_;
  std::vector<Slot> slots_;
  std::vector<std::uint32_t> free_;
  std::size_t next_backend_ = 0;
  std::uint64_t now_ns_ = 0;
  std::uint64_t expire_ns_ = 0;
  RouterCounters counters_;
};

}  // namespace agentnic::cli
