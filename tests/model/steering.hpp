// SPDX-License-Identifier: Apache-2.0
#pragma once

/// The reference model of steering, for packets that all come to one CPU: docs/steering.md, as plainly as it
/// says it.

#include <array>
#include <cstdint>
#include <map>
#include <utility>
#include <vector>

#include "abi/policy.h"
#include "abi/steer.h"
#include "policy/compile.hpp"
#include "policy/model.hpp"

namespace agentnic::model {

struct Packet;

class Steering final {
 public:
  /// `state`: for the random keys of the hash.
  void install(const policy::Policy& policy, const policy::Ids& ids, const anic_state& state, bool tcp_too);

  /// The CPU that a packet goes to, plus 1; 0: it stays on CPU `here`.
  std::uint32_t steer(std::uint32_t lane, const Packet& packet, std::uint32_t here, std::uint64_t now_ns);

  /// All that is under way arrives.
  void arrive();
  void tick();

  [[nodiscard]] const std::map<unsigned, anic_cpu>& cpus() const { return cpus_; }

 private:
  struct Bucket {
    unsigned cpu = 0;  ///< plus 1, of its last packet
    std::uint64_t number = 0;
    std::uint64_t waits_since = 0;  ///< in about ms; 0: it does not
  };

  [[nodiscard]] std::uint32_t bucket(const Packet& packet) const;
  [[nodiscard]] bool has_arrived(const Bucket& bucket) const;
  bool may_move(Bucket& bucket, std::uint64_t now_ns);

  bool tcp_too_ = false;
  anic_state state_{};
  std::map<std::uint32_t, std::vector<std::uint16_t>> spread_;  ///< by lane
  std::map<std::pair<std::uint32_t, std::uint32_t>, Bucket> buckets_;
  std::map<unsigned, anic_cpu> cpus_;
};

}  // namespace agentnic::model
