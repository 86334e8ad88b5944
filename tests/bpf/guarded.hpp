// SPDX-License-Identifier: Apache-2.0
#pragma once

/// An instance with a policy for tests of the guardian, and proposals to it. What fails here fails the test.

#include <catch2/catch_test_macros.hpp>
#include <cstddef>
#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "abi/guardian.h"
#include "audit/chain.hpp"
#include "instance.hpp"
#include "session.hpp"

namespace agentnic {

inline constexpr std::uint64_t kStart = 1'000'000'000'000;  ///< CLOCK_MONOTONIC, of the test
inline constexpr std::uint64_t kMs = 1'000'000;
inline constexpr std::uint64_t kSecond = 1000 * kMs;
inline constexpr std::uint64_t kMbit = 1'000'000;

/// Ids in the policy of the tests.
inline constexpr std::uint8_t kAcme = 1;    ///< 1 Gbit/s guaranteed, 2 Gbit/s at most
inline constexpr std::uint8_t kGlobex = 2;  ///< 1 Gbit/s guaranteed
inline constexpr std::uint16_t kApi = 1;    ///< anybody's, UDP 7000, rpc
inline constexpr std::uint16_t kGate = 2;   ///< anybody's, UDP 7001, default, path xsk
inline constexpr std::uint16_t kOwned = 3;  ///< of globex, UDP 7002, bulk

/// The policy, with members of its guardian, and more of its own. Class retrieval is spread over CPUs 0 and
/// 1, rpc has an SLO of 1 ms.
std::string guarded_policy(std::string_view guardian = "", std::string_view more = "",
                           std::string_view name = "guarded");

/// The members of its guardian that most tests have: rates of change that are no obstacle, and some to
/// borrow.
inline constexpr std::string_view kRoomy =
    R"("changes": {"tenant": 1000, "total": 1000}, "borrow": {"maximum": "1Gbit", "step": "400Mbit"})";

anic_proposal weight(std::uint8_t tenant, anic_class cls, std::uint64_t value);
anic_proposal throttle(std::uint8_t tenant, std::uint64_t bps);
anic_proposal escalate(std::uint8_t tenant, std::uint16_t service, anic_class cls,
                       std::uint64_t duration_ns = kSecond);
anic_proposal switch_path(std::uint8_t tenant, anic_class cls, anic_path path);
anic_proposal rebalance(std::uint8_t tenant, anic_class cls, std::uint16_t bucket, std::uint64_t cpu);
anic_proposal borrow(std::uint8_t tenant, std::uint64_t bps, std::uint64_t duration_ns = kSecond);

/// The instance under the policy of the tests, its records, and what proposals must come to.
class Guarded final {
 public:
  explicit Guarded(const std::string& policy = guarded_policy(kRoomy));

  void install(const std::string& policy, std::uint64_t now_ns);

  /// Each proposes, and fails the test unless answer and record say that it came to this.
  anic_answer approves(const TestSession& session, const anic_proposal& proposal, std::uint64_t now_ns);
  anic_answer rewrites(const TestSession& session, const anic_proposal& proposal, std::uint64_t now_ns,
                       anic_invariant invariant, std::uint64_t approved);
  /// ... and unless nothing changed. Its last act is a tick, which brings the record.
  anic_answer rejects(const TestSession& session, const anic_proposal& proposal, std::uint64_t now_ns,
                      anic_invariant invariant);

  /// Records since the last time, whose chain has no hole, nor has any tenancy.
  std::vector<anic_record> take();

  /// All that a change can change: lanes, steering, escalations, modes, the word of the policy in force.
  [[nodiscard]] std::vector<std::byte> in_force() const;

  /// A lane as it is tuned.
  [[nodiscard]] anic_lane tuned(std::uint8_t tenant, anic_class cls) const;
  [[nodiscard]] std::uint32_t mode(std::uint32_t tenant) const;
  [[nodiscard]] anic_ward ward(std::uint32_t tenant) const;
  [[nodiscard]] anic_dump dump(std::uint32_t tenant) const;
  /// Bit/s that the last sharing gave, of what comes in.
  [[nodiscard]] std::uint64_t rate(std::uint8_t tenant, anic_class cls) const;
  [[nodiscard]] std::uint64_t word() const;

  int failsafe(anic_order_kind kind, std::uint32_t tenant, std::uint64_t now_ns,
               std::string_view reason = "") const;

  /// The one entry of a map.
  template <typename Value>
  [[nodiscard]] Value only(const char* map) const {
    Value value{};
    REQUIRE(instance_.maps().read(map, 0, value));
    return value;
  }

  Instance& instance() { return instance_; }
  [[nodiscard]] const Instance& instance() const { return instance_; }
  void tick(std::uint64_t now_ns) const { instance_.tick(now_ns); }

  /// A lane has more answers, and asks for so much in both directions from now on.
  void count_turns(std::uint32_t lane, std::uint64_t samples, std::uint64_t over_slo,
                   std::uint64_t wanted_bps) const {
    instance_.count_turns({.lane = lane,
                           .samples = samples,
                           .over_slo = over_slo,
                           .wanted_bps_in = wanted_bps,
                           .wanted_bps_out = wanted_bps,
                           .bucket = 0});
  }

 private:
  /// The last record is the decision that was answered.
  void check_last_record(const anic_answer& answer, const anic_proposal& proposal, std::uint64_t session);

  Instance instance_;
  Records records_;
  audit::Chain chain_;
  std::map<std::uint32_t, std::uint64_t> tenant_seqs_;  ///< of tenancies that are open
};

/// Those of one kind.
std::vector<anic_record> of_kind(const std::vector<anic_record>& records, anic_record_kind kind);

/// Order a session; its slot, or -errno.
int try_open(const Guarded& guarded, std::uint64_t tenants, std::uint64_t now_ns, std::uint32_t agent = 0);

/// All, of some tenants.
anic_grants everything_of(std::uint64_t tenants);

}  // namespace agentnic
