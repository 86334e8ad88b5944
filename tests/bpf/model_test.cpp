// SPDX-License-Identifier: Apache-2.0
//
// The packet path against the reference model: random policies, random packets, all hooks, several
// generations on one instance, so that a verdict of an old one would show.

#include <fmt/format.h>
#include <linux/bpf.h>
#include <sched.h>

#include <algorithm>
#include <array>
#include <catch2/catch_test_macros.hpp>
#include <cstdlib>
#include <random>
#include <set>
#include <span>
#include <vector>

#include "../model/model.hpp"
#include "../model/random.hpp"
#include "base/hex.hpp"
#include "instance.hpp"
#include "policy/validate.hpp"

using namespace agentnic;
using model::Hook;

namespace {

constexpr std::array kHooks = {Hook::Xdp, Hook::TcIn, Hook::TcOut};
constexpr std::size_t kBatch = 250;
constexpr std::size_t kBatchesAGeneration = 4;

std::uint32_t seed() {
  const char* given = std::getenv("AGENTNIC_SEED");
  return given != nullptr ? static_cast<std::uint32_t>(std::strtoul(given, nullptr, 0))
                          : std::random_device()();
}

std::string text(const model::Outcome& outcome) {
  return fmt::format("reason {}, tenant {}, class {}, service {}, CPU {}, xsk {}, departs {}",
                     static_cast<int>(outcome.reason), outcome.lane / ANIC_CLASS__MAX,
                     outcome.lane % ANIC_CLASS__MAX, outcome.service, outcome.cpu, outcome.xsk,
                     outcome.departs_ns);
}

/// An instance and its model, in step.
class Pair {
 public:
  explicit Pair(std::uint32_t seed) : random_(seed) {
    cpu_set_t one;  // what a CPU has leased is its own
    CPU_ZERO(&one);
    CPU_SET(0, &one);
    REQUIRE(::sched_setaffinity(0, sizeof(one), &one) == 0);
  }

  void new_generation() {
    now_ns_ += 2'000'000'000;  // an alarm is about the seconds of one policy
    if (random_.below(2) == 0) {
      model_.arrive();
      for (const auto& [cpu, counts] : model_.cpus()) write_arrived(cpu, counts.arrived);
    } else if (random_.below(3) == 0) {
      for (int i = 0; i <= ANIC_STEER_QUIET; ++i) tick();
    }
    policy_ = random_.policy();
    REQUIRE_NOTHROW(policy::validate(policy_));
    const bool paced = random_.below(2) == 0;
    const bool tcp_too = random_.below(2) == 0;
    std::set<std::uint32_t> kept;
    for (std::uint32_t lane = 0; lane < ANIC_LANE(8, 0); ++lane) {
      if (random_.below(4) == 0) kept.insert(lane);
    }
    const policy::Ids ids = instance_.install(
        policy_,
        [&](policy::Tables& tables) {
          for (const std::uint32_t lane : kept) tables.lanes[lane].path = ANIC_PATH_KERNEL;
          tables.guarding.envelope.protects = 0;  // what it does to bulk has a model of its own
          if (paced) tables.policy.uses |= ANIC_USES_FQ;
          tables.policy.uses &= ~static_cast<std::uint32_t>(ANIC_USES_CPUS_TCP);
          if (tcp_too) tables.policy.uses |= ANIC_USES_CPUS_TCP;
        },
        now_ns_);
    anic_state state{};
    REQUIRE(instance_.maps().read("anic_state", 0, state));
    model_.install(policy_, ids, state, now_ns_, kept, paced, tcp_too);
  }

  void batch() {
    const Hook hook = kHooks[random_.below(kHooks.size())];
    std::vector<anic_test_packet> packets;
    while (packets.size() < kBatch) packets.push_back(packet());
    if (random_.below(3) == 0) {  // all of one flow, and more than any bucket holds
      packets.front().len = std::max<std::uint32_t>(packets.front().len, 3000);
      std::ranges::fill(packets, packets.front());
    }
    now_ns_ += random_.below(700) * 1'000'000ULL;
    if (random_.below(4) != 0) tick();
    const auto results = instance_.run(hook, packets, now_ns_);
    for (std::size_t i = 0; i < packets.size(); ++i) {
      now_ns_ += packets[i].step_ns;
      compare(hook, packets[i], results[i]);
    }
    const std::string differences = counter_differences(model_.counters(), *instance_.counters());
    INFO(model::policy_text(policy_));
    REQUIRE(differences == "");
    for (const auto& [cpu, expected] : model_.cpus()) compare_cpu(cpu, expected);
    const anic_control control = instance_.control();
    REQUIRE(control.packets == model_.control().packets);
    REQUIRE(control.second == model_.control().second);
    REQUIRE(control.alarms == model_.control().alarms);
    REQUIRE(control.last_alarm_s == model_.control().last_alarm_s);
  }

  /// That every reason came up, but those that need a socket. `long_run`: and what is rare.
  void check_coverage(bool long_run) const {
    for (int reason = ANIC_REASON_NONE + 1; reason < ANIC_REASON__MAX; ++reason) {
      INFO("reason " << reason);
      std::uint64_t packets = 0;
      for (const auto& queues : model_.counters().queues) {
        for (const anic_queue_count& queue : queues) packets += queue.by_reason[ANIC_REASON_AT(reason)];
      }
      const bool possible = reason != ANIC_REASON_REDIRECT_XSK && reason != ANIC_REASON_PASS_STALLED;
      const bool rare = reason == ANIC_REASON_PASS_TOO_LONG;  // about one short run in a hundred has none
      if (!possible || long_run || !rare) CHECK((packets != 0) == possible);
    }
    CHECK(model_.control().alarms != 0);
    CHECK_FALSE(model_.cpus().empty());
    for (const auto& [cpu, counts] : model_.cpus()) {
      if (!long_run) continue;
      CHECK(counts.moved != 0);
      CHECK(counts.moved_early != 0);
    }
    CHECK((saw_losses_ || !long_run));
  }

 private:
  /// One of those that were seen before, of whatever generation, or a new one.
  anic_test_packet packet() {
    if (!seen_.empty() && random_.below(2) == 0) return seen_[random_.below(seen_.size())];
    const lab::Frame frame = random_.frame();  // in this order with every compiler
    const std::uint32_t mark = random_.below(6);
    auto packet = make_packet(frame, mark, random_.queue());
    packet.step_ns = random_.step_ns();
    if (seen_.size() < kSeenMax) {
      seen_.push_back(packet);
    } else {
      seen_[random_.below(kSeenMax)] = packet;
    }
    return packet;
  }

  void tick() {
    instance_.tick(now_ns_);
    model_.tick(now_ns_);
  }

  /// What the CPU itself would have done.
  void write_arrived(unsigned cpu, std::uint64_t arrived) const {
    anic_cpu counts{};
    REQUIRE(instance_.maps().read("anic_cpus", cpu, counts));
    counts.arrived = arrived;
    REQUIRE(instance_.maps().write("anic_cpus", cpu, counts));
  }

  void compare_cpu(unsigned cpu, const anic_cpu& expected) {
    saw_losses_ = saw_losses_ || expected.lost != 0;
    INFO("CPU " << cpu);
    anic_cpu found{};
    REQUIRE(instance_.maps().read("anic_cpus", cpu, found));
    REQUIRE(found.sent == expected.sent);
    REQUIRE(found.arrived == expected.arrived);
    REQUIRE(found.lost == expected.lost);
    REQUIRE(found.moved == expected.moved);
    REQUIRE(found.moved_early == expected.moved_early);
  }

  void compare(Hook hook, const anic_test_packet& packet, const anic_test_result& result) {
    const std::vector<std::byte> frame = frame_of(packet);
    model::Arrival arrival{
        .hook = hook, .frame = frame, .mark = packet.mark, .queue = packet.queue, .now_ns = now_ns_};
    if (hook == Hook::Xdp) arrival.queue = 0;  // the test run's
    if (hook == Hook::TcIn && arrival.queue != 0) --arrival.queue;
    const model::Outcome expected = model_.receive(arrival);
    const model::Outcome found{.reason = static_cast<anic_reason>(result.reason),
                               .lane = result.lane,
                               .service = result.service,
                               .cpu = result.cpu,
                               .xsk = result.xsk != 0,
                               .departs_ns = result.departs_ns};
    const auto verdict = expected.reason == ANIC_REASON_DROP_QUOTA ? dropped(hook)
                         : expected.cpu != 0                       ? XDP_REDIRECT
                                                                   : passed(hook);
    if (found == expected && result.verdict == verdict && result.packets == 1 && result.bytes == frame.size())
      return;
    const auto begin = std::span(frame).first(std::min<std::size_t>(frame.size(), ANIC_TEST_BYTES));
    FAIL(fmt::format(
        "hook {}, mark {}, {} bytes: {}\nmodel: {}\nbpf:   {}, verdict {}, {} packets, {} bytes\n{}",
        static_cast<int>(hook), packet.mark, frame.size(), hex(begin), text(expected), text(found),
        result.verdict, result.packets, result.bytes, model::policy_text(policy_)));
  }

  static constexpr std::size_t kSeenMax = 1000;

  model::Random random_;
  Instance instance_;
  model::Model model_;
  policy::Policy policy_;
  std::uint64_t now_ns_ = 1'000'000'000;
  std::vector<anic_test_packet> seen_;
  bool saw_losses_ = false;  ///< on the way to a CPU, for a while
};

void compare_packets(std::size_t packets, bool long_run) {
  const std::uint32_t start = seed();
  INFO("AGENTNIC_SEED=" << start);
  Pair pair(start);
  for (std::size_t i = 0; i < packets; i += kBatch * kBatchesAGeneration) {
    pair.new_generation();
    for (std::size_t j = 0; j < kBatchesAGeneration; ++j) pair.batch();
  }
  pair.check_coverage(long_run);
}

}  // namespace

TEST_CASE("model: the packet path does what the model says, packet by packet and counter by counter") {
  compare_packets(20'000, false);
}

TEST_CASE("model: a million packets", "[.soak]") { compare_packets(1'000'000, true); }
