// SPDX-License-Identifier: Apache-2.0
#pragma once

/// The reference model of the packet path: what docs/policy.md and abi/stats.h promise of each packet,
/// written as plainly as they say it and without a line of bpf/. It takes the policy's document, not its
/// tables, so that compiling it is tested too.

#include <array>
#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <span>
#include <string>

#include "abi/stats.h"
#include "policy/compile.hpp"
#include "policy/model.hpp"
#include "share.hpp"
#include "steering.hpp"

namespace agentnic::model {

enum class Hook { Xdp, TcIn, TcOut };

enum class Kind { Arp, Icmp, Ports, Other };  ///< Ports: UDP or TCP

enum class Fragment { None, First, Later };

using Address = std::array<std::uint8_t, 16>;  ///< IPv6; IPv4 as v4-mapped

/// What a frame is, header by header.
struct Packet {
  Kind kind = Kind::Other;
  bool is_ip = false;
  bool is_ipv6 = false;
  Address src{};
  Address dst{};
  std::uint8_t protocol = 0;  ///< of what follows the last extension header
  std::uint8_t dscp = 0;
  Fragment fragment = Fragment::None;
  std::uint16_t src_port = 0;  ///< Kind::Ports, and not of later fragments
  std::uint16_t dst_port = 0;
  std::uint8_t icmp_type = 0;  ///< Kind::Icmp
};

/// Nothing: it is cut off, or a header is not understood.
std::optional<Packet> parse(std::span<const std::byte> frame);

/// A frame as it comes to a hook.
struct Arrival {
  Hook hook = Hook::Xdp;
  std::span<const std::byte> frame;
  std::uint32_t mark = 0;   ///< at egress
  std::uint32_t queue = 0;  ///< of receive or transmit
  std::uint32_t cpu = 0;    ///< that it comes to
  std::uint64_t now_ns = 0;
};

struct Outcome {
  anic_reason reason = ANIC_REASON_NONE;
  std::uint32_t lane = 0;
  std::uint32_t service = 0;
  std::uint32_t cpu = 0;         ///< plus 1, that it is steered to; 0: it stays
  bool xsk = false;              ///< it would have gone to the socket of its queue; without one it does not
  std::uint64_t departs_ns = 0;  ///< at egress: not before this; 0: at once

  friend bool operator==(const Outcome&, const Outcome&) = default;
};

/// One instance: the policy in force, and all counters, as the sum over CPUs.
class Model final {
 public:
  /// Puts a policy in force. Lanes in `kept_on_kernel` (ids) stay on path A, whatever the policy says.
  /// `paced`: packets wait for their time at egress, instead of being policed. `tcp_too`: it is steered.
  void install(const policy::Policy& policy, const policy::Ids& ids, const anic_state& state,
               std::uint64_t now_ns, std::set<std::uint32_t> kept_on_kernel = {}, bool paced = false,
               bool tcp_too = false);

  /// Shares rates out, and finds out what was lost on the way to other CPUs.
  void tick(std::uint64_t now_ns);

  /// All packets that were steered arrive.
  void arrive() { steering_.arrive(); }

  /// What becomes of a packet, and its counting. No queue has an AF_XDP socket.
  Outcome receive(const Arrival& arrival);

  [[nodiscard]] const anic_counters& counters() const { return *counters_; }
  [[nodiscard]] const anic_control& control() const { return control_; }
  [[nodiscard]] const std::map<unsigned, anic_cpu>& cpus() const { return steering_.cpus(); }

 private:
  struct Match;

  [[nodiscard]] Match match(const Arrival& arrival) const;
  [[nodiscard]] Match match_ip(const Arrival& arrival, const Packet& packet) const;
  [[nodiscard]] const policy::Tenant* sender(std::uint32_t mark) const;
  [[nodiscard]] bool is_control_port(const Packet& packet, bool local_is_dst) const;
  [[nodiscard]] const policy::Service* service(const Packet& packet, bool local_is_dst,
                                               const policy::Tenant* tenant) const;
  [[nodiscard]] Outcome decide(const Arrival& arrival, const Match& match) const;
  [[nodiscard]] std::uint32_t lane(const policy::Tenant* tenant, anic_class cls) const;
  void charge(const Arrival& arrival, Outcome& outcome);
  void count(const Arrival& arrival, const Outcome& outcome);
  void count_control(std::uint64_t second);
  void clear_fresh(const policy::Ids& ids);

  policy::Policy policy_;
  policy::Ids ids_;
  std::set<std::uint32_t> kept_on_kernel_;
  bool paced_ = false;
  bool steers_ = false;  ///< as the tick knows
  std::array<Shares, ANIC_DIRECTION__MAX> shares_;
  Steering steering_;
  std::unique_ptr<anic_counters> counters_ = std::make_unique<anic_counters>();
  anic_control control_{};
};

}  // namespace agentnic::model
