// SPDX-License-Identifier: Apache-2.0
//
// Steering to CPUs, packet by packet. Packets come to CPU 0, and nothing takes them off the queue of the CPU
// that they are steered to but the test.

#include <bpf/bpf.h>
#include <fmt/format.h>
#include <linux/bpf.h>
#include <sched.h>

#include <algorithm>
#include <catch2/catch_test_macros.hpp>
#include <catch2/generators/catch_generators.hpp>
#include <cstdint>
#include <string>
#include <vector>

#include "instance.hpp"
#include "lab/packet.hpp"
#include "policy/parse.hpp"

using namespace agentnic;
using lab::PacketBuilder;
using model::Hook;

namespace {

constexpr std::uint64_t kStart = 1'000'000'000;
constexpr std::uint64_t kMs = 1'000'000;

std::string spread(const std::string& cpus) {
  return fmt::format(R"({{"version": 1, "name": "spread", "classes": {{"rpc": {{"cpus": [{}]}}}},
    "control": [{{"protocol": "udp", "port": 53}}],
    "services": [{{"name": "rpc", "protocol": "udp", "port": 9000, "class": "rpc", "path": "kernel"}},
                 {{"name": "rpc-tcp", "protocol": "tcp", "port": 9000, "class": "rpc", "path": "kernel"}},
                 {{"name": "other", "protocol": "udp", "port": 9001, "class": "bulk", "path": "kernel"}}]}})",
                     cpus);
}

lab::Frame request(std::uint16_t src_port, std::uint16_t dst_port = 9000) {
  return PacketBuilder().eth().ipv4().from("198.18.0.1").to("198.18.0.2").udp(src_port, dst_port).build();
}

/// An instance whose packets all come to CPU 0.
class Steered {
 public:
  Steered() {
    cpu_set_t one;
    CPU_ZERO(&one);
    CPU_SET(0, &one);
    REQUIRE(::sched_setaffinity(0, sizeof(one), &one) == 0);
  }

  void install(const std::string& cpus, bool tcp_too = false) {
    const auto policy = policy::parse(spread(cpus), "the test's policy");
    REQUIRE(policy);
    instance_.install(*policy, [&](policy::Tables& tables) {
      tables.policy.uses &= ~static_cast<std::uint32_t>(ANIC_USES_CPUS_TCP);
      if (tcp_too) tables.policy.uses |= ANIC_USES_CPUS_TCP;
    });
  }

  /// The CPU that a frame goes to, plus 1; 0: it stays.
  std::uint32_t pass(const lab::Frame& frame, std::uint64_t now_ns = kStart, Hook hook = Hook::Xdp) {
    const anic_test_packet packet = make_packet(frame);
    const anic_test_result result = instance_.run(hook, {&packet, 1}, now_ns).front();
    CHECK((result.cpu != 0) == (result.verdict == XDP_REDIRECT && hook == Hook::Xdp));
    CHECK((result.cpu != 0) == (result.reason == ANIC_REASON_REDIRECT_CPU));
    return result.cpu;
  }

  [[nodiscard]] anic_cpu cpu(std::uint32_t number) const {
    anic_cpu found{};
    REQUIRE(instance_.maps().read("anic_cpus", number, found));
    return found;
  }

  /// What the CPU itself would have done.
  void arrive(std::uint32_t number, std::uint64_t packets) const {
    anic_cpu found = cpu(number);
    found.arrived += packets;
    REQUIRE(instance_.maps().write("anic_cpus", number, found));
  }

  void tick(int times) const {
    for (int i = 0; i < times; ++i) instance_.tick(kStart);
  }

  Instance& instance() { return instance_; }

 private:
  Instance instance_;
};

}  // namespace

TEST_CASE("steer: a lane that is spread goes to its CPU, and nothing else does") {
  Steered steered;
  steered.install("1");
  CHECK(steered.pass(request(40000)) == 2);
  CHECK(steered.cpu(1).sent == 1);
  CHECK(steered.pass(request(40000, 9001)) == 0);
  CHECK(steered.pass(request(40000, 53)) == 0);
  CHECK(steered.pass(request(40000), kStart, Hook::TcIn) == 0);
  CHECK(steered.pass(request(40000), kStart, Hook::TcOut) == 0);
  const auto fragment = [](std::uint16_t offset_and_flags) {
    return PacketBuilder()
        .eth()
        .ipv4()
        .from("198.18.0.1")
        .to("198.18.0.2")
        .fragment(offset_and_flags)
        .udp(40000, 9000)
        .build();
  };
  CHECK(steered.pass(fragment(0x2000)) == 0);
  CHECK(steered.pass(fragment(0x2001)) == 0);
  const lab::Frame ipv6 =
      PacketBuilder().eth().ipv6().from("2001:db8::1").to("2001:db8::2").udp(40000, 9000).build();
  CHECK(steered.pass(ipv6) == 2);
}

TEST_CASE("steer: TCP stays where it comes, unless the kernel's cpumap does GRO") {
  const bool does_gro = GENERATE(false, true);
  Steered steered;
  steered.install("1", does_gro);
  const lab::Frame segment =
      PacketBuilder().eth().ipv4().from("198.18.0.1").to("198.18.0.2").tcp(40000, 9000).build();
  CHECK(steered.pass(segment) == (does_gro ? 2U : 0U));
  CHECK(steered.pass(request(40000)) == 2);
}

TEST_CASE("steer: no detour to the CPU that a packet is on") {
  Steered steered;
  steered.install("0");
  CHECK(steered.pass(request(40000)) == 0);
  CHECK(steered.cpu(0).sent == 0);
}

TEST_CASE("steer: flows are spread evenly, and each keeps its CPU") {
  constexpr std::uint16_t kFlows = 512;
  Steered steered;
  steered.install("0, 1");
  std::vector<std::uint32_t> first;
  for (std::uint16_t flow = 0; flow < kFlows; ++flow) first.push_back(steered.pass(request(30000 + flow)));
  const auto on_other = std::ranges::count(first, 2U);
  CHECK(on_other > kFlows / 4);
  CHECK(on_other < kFlows * 3 / 4);
  for (std::uint16_t flow = 0; flow < kFlows; flow += 37)
    CHECK(steered.pass(request(30000 + flow)) == first[flow]);
}

TEST_CASE("steer: a bucket moves when its packets have arrived, not before") {
  Steered steered;
  steered.install("1");
  CHECK(steered.pass(request(40000)) == 2);
  CHECK(steered.pass(request(40000)) == 2);
  steered.install("0");
  CHECK(steered.pass(request(40000)) == 2);  // behind the two
  steered.arrive(1, 2);
  CHECK(steered.pass(request(40000)) == 2);  // behind the third
  steered.arrive(1, 2);
  CHECK(steered.pass(request(40000)) == 0);
  CHECK(steered.cpu(1).moved == 1);
  CHECK(steered.cpu(1).moved_early == 0);
  CHECK(steered.pass(request(40000)) == 0);
}

TEST_CASE("steer: a bucket also moves when others keep the queue busy, once its own are through") {
  constexpr std::uint64_t kOthers = ANIC_STEER_MARGIN;
  Steered steered;
  steered.install("1");
  CHECK(steered.pass(request(40000)) == 2);
  const std::vector<anic_test_packet> others(kOthers / 2, make_packet(request(40001)));
  for (int i = 0; i < 3; ++i) (void)steered.instance().run(Hook::Xdp, others, kStart);
  steered.install("0");
  steered.arrive(1, kOthers);
  CHECK(steered.pass(request(40000)) == 2);
  steered.install("1");
  CHECK(steered.pass(request(40000)) == 2);
  for (int i = 0; i < 3; ++i) (void)steered.instance().run(Hook::Xdp, others, kStart);
  steered.arrive(1, steered.cpu(1).sent - steered.cpu(1).arrived - 1);  // one of the others waits still
  steered.install("0");
  CHECK(steered.pass(request(40000)) == 0);
  CHECK(steered.cpu(1).moved == 1);
}

TEST_CASE("steer: a bucket does not wait longer than a tenth of a second, and that is counted") {
  Steered steered;
  steered.install("1");
  CHECK(steered.pass(request(40000), kStart) == 2);
  steered.install("0");
  CHECK(steered.pass(request(40000), kStart + 20 * kMs) == 2);
  CHECK(steered.pass(request(40000), kStart + 100 * kMs) == 2);
  CHECK(steered.pass(request(40000), kStart + 130 * kMs) == 0);
  CHECK(steered.cpu(1).moved == 0);
  CHECK(steered.cpu(1).moved_early == 1);
}

TEST_CASE("steer: what does not arrive is lost: at once beyond what a queue holds, else after a second") {
  constexpr std::uint64_t kFlood = 4096;
  Steered steered;
  steered.install("1");
  const std::vector<anic_test_packet> packets(ANIC_TEST_PACKETS_MAX, make_packet(request(40000)));
  for (std::uint64_t sent = 0; sent < kFlood; sent += packets.size())
    (void)steered.instance().run(Hook::Xdp, packets, kStart);
  steered.tick(1);
  CHECK(steered.cpu(1).lost == kFlood - ANIC_STEER_QUEUE - ANIC_STEER_MARGIN);
  steered.arrive(1, 2000);
  steered.tick(ANIC_STEER_QUIET);
  CHECK(steered.cpu(1).lost == kFlood - ANIC_STEER_QUEUE - ANIC_STEER_MARGIN);
  steered.tick(1);
  CHECK(steered.cpu(1).lost == kFlood - 2000);
  steered.arrive(1, 100);  // it was only slow
  steered.tick(1);
  CHECK(steered.cpu(1).lost == kFlood - 2100);
}

TEST_CASE("steer: a CPU without a queue leaves packets where they are, and nothing is counted as sent") {
  Steered steered;
  steered.install("1");
  const std::uint32_t one = 1;
  REQUIRE(bpf_map_delete_elem(steered.instance().maps().fd("anic_cpumap"), &one) == 0);
  const anic_test_packet packet = make_packet(request(40000));
  const anic_test_result result = steered.instance().run(Hook::Xdp, {&packet, 1}, kStart).front();
  CHECK(result.verdict == XDP_PASS);
  CHECK(result.reason == ANIC_REASON_PASS_SERVICE);
  CHECK(steered.cpu(1).sent == 0);
}
