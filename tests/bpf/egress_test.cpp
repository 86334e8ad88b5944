// SPDX-License-Identifier: Apache-2.0
//
// What anic_tc_out does to a packet beside counting it: marks, and the time at which it may leave.

#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <fmt/format.h>
#include <linux/bpf.h>
#include <linux/pkt_cls.h>

#include <catch2/catch_test_macros.hpp>
#include <catch2/generators/catch_generators.hpp>
#include <cstdint>
#include <string>

#include "base/clock.hpp"
#include "instance.hpp"
#include "lab/packet.hpp"
#include "policy/parse.hpp"

using namespace agentnic;
using lab::PacketBuilder;

namespace {

/// A packet after egress.
struct Left {
  std::uint32_t verdict = 0;
  std::uint32_t priority = 0;
  std::uint64_t tstamp_ns = 0;
  lab::Frame frame;
};

Left leave(const Instance& instance, const lab::Frame& frame) {
  Left left{.frame = lab::Frame(frame.size() + 64)};
  __sk_buff skb{};
  LIBBPF_OPTS(bpf_test_run_opts, options);
  options.data_in = frame.data();
  options.data_size_in = static_cast<std::uint32_t>(frame.size());
  options.data_out = left.frame.data();
  options.data_size_out = static_cast<std::uint32_t>(left.frame.size());
  options.ctx_in = options.ctx_out = &skb;
  options.ctx_size_in = options.ctx_size_out = sizeof(skb);
  REQUIRE(bpf_prog_test_run_opts(instance.object().tc_out_fd(), &options) == 0);
  left.verdict = options.retval;
  left.priority = skb.priority;
  left.tstamp_ns = skb.tstamp;
  left.frame.resize(options.data_size_out);
  return left;
}

std::string marking(const std::string& marks) {
  return fmt::format(R"({{"version": 1, "name": "marks", "classes": {{"rpc": {{"egress": {{{}}}}}}},
    "services": [{{"name": "rpc", "protocol": "udp", "port": 9000, "class": "rpc", "path": "kernel"}}]}})",
                     marks);
}

lab::Frame answer(bool is_ipv6, std::uint32_t tags, std::uint8_t dscp, std::size_t payload = 20) {
  PacketBuilder builder;
  builder.eth();
  for (std::uint32_t i = 0; i < tags; ++i) builder.vlan(5, i + 1 < tags ? 0x88a8 : 0x8100);
  if (is_ipv6) {
    builder.ipv6().from("2001:db8::2").to("2001:db8::1");
  } else {
    builder.ipv4().from("198.18.0.2").to("198.18.0.1");
  }
  return builder.dscp(dscp, 2).udp(9000, 40000).payload(payload).build();
}

std::uint64_t counted_in_queue(const Instance& instance, std::uint32_t queue) {
  std::uint64_t packets = 0;
  for (const std::uint64_t count : instance.counters()->queues[ANIC_DIRECTION_OUT][queue].by_reason)
    packets += count;
  return packets;
}

}  // namespace

TEST_CASE("egress: a class gives its packets a DSCP, and checksums stay right") {
  const bool is_ipv6 = GENERATE(false, true);
  const std::uint32_t tags = GENERATE(0U, 1U, 2U);
  Instance instance;
  instance.install(marking("\"dscp\": 46"));
  const Left left = leave(instance, answer(is_ipv6, tags, 10));
  CHECK(left.verdict == static_cast<std::uint32_t>(TC_ACT_UNSPEC));
  CHECK(left.frame == answer(is_ipv6, tags, 46));
}

TEST_CASE("egress: a class gives its packets a priority and a queue, and leaves the rest alone") {
  Instance instance;
  instance.install(marking("\"priority\": 6, \"queue\": 3"));
  const lab::Frame frame = answer(false, 0, 10);
  const Left left = leave(instance, frame);
  CHECK(left.priority == 6);
  CHECK(left.frame == frame);
  CHECK(counted_in_queue(instance, 3) == 1);
}

TEST_CASE("egress: without marks nothing changes, and control traffic has none") {
  Instance instance;
  instance.install(marking(""));
  const lab::Frame frame = answer(true, 0, 10);
  CHECK(leave(instance, frame).frame == frame);
  instance.install(
      R"({"version": 1, "name": "marks", "services": [], "control": [{"protocol": "udp", "port": 9000}],
    "classes": {"default": {"egress": {"dscp": 1, "priority": 1}}}})");
  const Left left = leave(instance, frame);
  CHECK(left.frame == frame);
  CHECK(left.priority == 0);
}

TEST_CASE(
    "egress: where packets wait, each leaves when what was before it is paid, and none waits for long") {
  constexpr std::uint64_t kRate = 8'000'000;
  constexpr std::uint64_t kHorizonNs = 200'000'000;
  constexpr int kPackets = 300;  // 51 find a full bucket, 143 more wait up to the horizon
  Instance instance;
  const auto policy = policy::parse(
      R"({"version": 1, "name": "paced", "link_rate": "8Mbit", "services": []})", "the test's policy");
  REQUIRE(policy);
  instance.install(*policy, [](policy::Tables& tables) { tables.policy.uses |= ANIC_USES_FQ; });
  const lab::Frame frame = answer(false, 0, 0, 1400 - 24 - 42);
  const std::uint64_t gap_ns = 1400ULL * 8 * 1'000'000'000 / kRate;
  std::uint64_t last_ns = 0;
  int late = 0;
  int dropped = 0;
  for (int i = 0; i < kPackets; ++i) {
    const Left left = leave(instance, frame);
    if (left.verdict == TC_ACT_SHOT) {
      ++dropped;
      continue;
    }
    CHECK(left.tstamp_ns <= monotonic_ns() + kHorizonNs);
    if (left.tstamp_ns > monotonic_ns()) {
      if (late++ > 0) {
        CHECK(left.tstamp_ns - last_ns <= gap_ns + 1);
        CHECK(left.tstamp_ns - last_ns + 1 >= gap_ns);
      }
      last_ns = left.tstamp_ns;
    }
  }
  CHECK(late > 10);
  CHECK(dropped > 0);
}
