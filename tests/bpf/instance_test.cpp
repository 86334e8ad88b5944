// SPDX-License-Identifier: Apache-2.0
//
// What holds for an instance as a whole: generations, counters, the flow cache, what userspace cannot write.

#include "instance.hpp"

#include <bpf/bpf.h>
#include <linux/bpf.h>

#include <algorithm>
#include <catch2/catch_test_macros.hpp>
#include <cerrno>
#include <cstring>
#include <iterator>
#include <map>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "../model/random.hpp"
#include "abi/flow.h"
#include "kern/bench_programs.hpp"
#include "kern/generation.hpp"
#include "kern/order.hpp"
#include "kern/test_run.hpp"
#include "lab/packet.hpp"
#include "policy/parse.hpp"

using namespace agentnic;
using lab::PacketBuilder;
using model::Hook;

namespace {

constexpr std::uint64_t kSecond = 1'000'000'000;
constexpr Hook kHooks[] = {Hook::Xdp, Hook::TcIn, Hook::TcOut};

lab::Frame udp(std::uint16_t from, std::uint16_t to) {
  return PacketBuilder().eth().ipv4().udp(from, to).payload(64).build();
}

/// One UDP service on port 9000, of a tenant of all addresses.
std::string one_service(const std::string& name, const std::string& cls, const std::string& tenant = "acme",
                        const std::string& path = "kernel") {
  return R"({"version": 1, "name": "one", "control_alarm": 10, "tenants": [{"name": ")" + tenant +
         R"(", "prefixes": ["0.0.0.0/0"]}], "services": [{"name": ")" + name +
         R"(", "protocol": "udp", "port": 9000, "class": ")" + cls + R"(", "path": ")" + path + R"("}]})";
}

std::vector<anic_test_packet> random_packets(model::Random& random, std::size_t count) {
  std::vector<anic_test_packet> packets;
  while (packets.size() < count)
    packets.push_back(make_packet(random.frame(), random.below(6), random.queue()));
  return packets;
}

anic_test_result run_one(const Instance& instance, Hook hook, const lab::Frame& frame) {
  const anic_test_packet packet = make_packet(frame);
  return instance.run(hook, {&packet, 1}).front();
}

std::uint32_t class_of(const anic_test_result& result) { return result.lane % ANIC_CLASS__MAX; }

/// The answer of anic_commit.
int commit(const Instance& instance, std::uint32_t expected) {
  anic_order order{};
  order.what = expected;
  const auto code = kern::run_order(instance.object().commit().commit_fd, order, "commit");
  REQUIRE(code.has_value());
  return *code;
}

/// The flows in the cache between the addresses of `frame`: what else their keys have, and their confidence.
std::map<std::uint64_t, unsigned> cached_flows(const Instance& instance, const lab::Frame& frame) {
  std::uint64_t addresses = 0;
  std::memcpy(&addresses, frame.data() + 26, sizeof(addresses));
  std::map<std::uint64_t, unsigned> found;
  for (std::uint32_t set = 0; set < ANIC_FLOW_SETS; ++set) {
    anic_flow_set flows{};
    if (!instance.maps().read("anic_flows", set, flows)) FAIL("set " << set << " cannot be read");
    for (const anic_flow& flow : flows.ways) {
      if (flow.key.addresses_be[0] == addresses)
        found.emplace(flow.key.word, ANIC_FLOW_CONFIDENCE(flow.word));
    }
  }
  return found;
}

}  // namespace

TEST_CASE("instance: without a policy everything is passed and counted, as nobody's") {
  const Instance instance;
  const auto expected = instance.counters();
  const lab::Frame frame = udp(1, 9000);
  for (const Hook hook : kHooks) {
    CHECK(instance.pass(hook, frame, 7) == passed(hook));
    const auto way = hook == Hook::TcOut ? ANIC_DIRECTION_OUT : ANIC_DIRECTION_IN;
    anic_lane_count& lane = expected->lanes[way][ANIC_LANE(0, ANIC_CLASS_DEFAULT)];
    ++lane.seen;
    ++lane.by_reason[ANIC_REASON_AT(ANIC_REASON_PASS_DEFAULT)].packets;
    lane.by_reason[ANIC_REASON_AT(ANIC_REASON_PASS_DEFAULT)].bytes += frame.size();
    ++expected->queues[way][0].by_reason[ANIC_REASON_AT(ANIC_REASON_PASS_DEFAULT)];
    ++expected->services[way][0].packets;
    expected->services[way][0].bytes += frame.size();
  }
  CHECK(counter_differences(*expected, *instance.counters()) == "");
}

TEST_CASE("instance: what was seen is what went somewhere, in every lane and in all queues") {
  constexpr std::uint64_t kPackets = 500;
  constexpr std::uint64_t kGenerations = 4;  // some of whose tenants go
  Instance instance;
  model::Random random(1);
  for (std::uint64_t i = 0; i < kGenerations; ++i) {
    instance.install(random.policy());
    for (const Hook hook : kHooks) (void)instance.run(hook, random_packets(random, kPackets));
  }
  const auto counters = instance.counters();
  for (std::size_t way = 0; way < ANIC_DIRECTION__MAX; ++way) {
    std::uint64_t of_lanes[ANIC_REASONS] = {};
    std::uint64_t of_queues[ANIC_REASONS] = {};
    std::uint64_t seen = 0;
    std::vector<anic_lane_count> lanes(std::begin(counters->lanes[way]), std::end(counters->lanes[way]));
    lanes.push_back(counters->gone[way]);
    for (const anic_lane_count& lane : lanes) {
      std::uint64_t went = 0;
      for (std::size_t reason = 0; reason < ANIC_REASONS; ++reason) {
        went += lane.by_reason[reason].packets;
        of_lanes[reason] += lane.by_reason[reason].packets;
      }
      CHECK(lane.seen == went);
      seen += lane.seen;
    }
    for (const anic_queue_count& queue : counters->queues[way]) {
      for (std::size_t reason = 0; reason < ANIC_REASONS; ++reason)
        of_queues[reason] += queue.by_reason[reason];
    }
    CHECK(seen == kPackets * kGenerations * (way == ANIC_DIRECTION_IN ? 2 : 1));
    for (std::size_t reason = 0; reason < ANIC_REASONS; ++reason)
      CHECK(of_lanes[reason] == of_queues[reason]);
    CHECK(counters->gone[way].seen != 0);
  }
}

TEST_CASE("instance: userspace cannot write lanes and the generation, programs not what is userspace's",
          "[smoke]") {
  const Instance instance;
  const std::uint32_t zero = 0;
  const anic_lane lane{};
  CHECK(bpf_map_update_elem(instance.maps().fd("anic_lanes"), &zero, &lane, BPF_ANY) == -EPERM);
  const anic_state state{};
  CHECK(bpf_map_update_elem(instance.maps().fd("anic_state"), &zero, &state, BPF_ANY) == -EPERM);
  for (const char* name : {"anic_services", "anic_tenants", "anic_policies", "anic_staging", "anic_meta"}) {
    INFO(name);
    bpf_map_info info{};
    std::uint32_t size = sizeof(info);
    REQUIRE(bpf_map_get_info_by_fd(instance.maps().fd(name), &info, &size) == 0);
    CHECK((info.map_flags & BPF_F_RDONLY_PROG) != 0);
  }
}

TEST_CASE("commit: refused when another generation is in force than the caller believes") {
  Instance instance;
  instance.install(one_service("web", "rpc"));
  CHECK(commit(instance, 0) == -ESTALE);
  CHECK(commit(instance, 2) == -ESTALE);
  CHECK(kern::read_in_force(instance.maps())->generation == 1);
  CHECK(class_of(run_one(instance, Hook::Xdp, udp(1, 9000))) == ANIC_CLASS_RPC);
}

TEST_CASE("commit: who keeps its name keeps its counters, who is new begins with none") {
  Instance instance;
  const auto ids = instance.install(one_service("web", "rpc"));
  const std::uint32_t tenant = ids.tenants.at("acme");
  const std::uint32_t service = ids.services.at("web");
  using Packets = std::pair<std::uint64_t, std::uint64_t>;
  const auto packets = [&](Hook hook) {
    const auto counters = instance.counters();
    const int way = hook == Hook::TcOut ? ANIC_DIRECTION_OUT : ANIC_DIRECTION_IN;
    std::uint64_t of_tenant = 0;
    for (std::uint32_t cls = 0; cls < ANIC_CLASS__MAX; ++cls)
      of_tenant += counters->lanes[way][ANIC_LANE(tenant, cls)].seen;
    return Packets(of_tenant, counters->services[way][service].packets);
  };
  (void)run_one(instance, Hook::Xdp, udp(1, 9000));
  (void)run_one(instance, Hook::TcOut, udp(9000, 1));
  CHECK(instance.install(one_service("web", "bulk")) == ids);
  CHECK(packets(Hook::Xdp) == Packets(1, 1));
  CHECK(packets(Hook::TcOut) == Packets(1, 1));

  // the ids stay those of the old until it has gone; then the next that comes gets them
  CHECK(instance.install(one_service("api", "rpc", "beta")).services.at("api") != service);
  const auto again = instance.install(one_service("db", "rpc", "gamma"));
  CHECK(again.tenants.at("gamma") == tenant);
  CHECK(again.services.at("db") == service);
  CHECK(packets(Hook::Xdp) == Packets(0, 0));
  CHECK(packets(Hook::TcOut) == Packets(0, 0));
}

TEST_CASE("flows: a new generation voids the verdicts of the old") {
  Instance instance;
  for (const auto& [name, cls] : {std::pair{"rpc", ANIC_CLASS_RPC},
                                  {"bulk", ANIC_CLASS_BULK},
                                  {"retrieval", ANIC_CLASS_RETRIEVAL},
                                  {"rpc", ANIC_CLASS_RPC}}) {
    INFO(name);
    instance.install(one_service("web", name));
    for (int i = 0; i < 3; ++i) {
      CHECK(class_of(run_one(instance, Hook::Xdp, udp(1, 9000))) == cls);
      CHECK(class_of(run_one(instance, Hook::TcOut, udp(9000, 1))) == cls);
    }
  }
}

TEST_CASE("flows: those in use outlive a flood of others") {
  constexpr std::uint32_t kFlood = 200'000;
  constexpr std::uint32_t kBurst = 8'000;  // between two packets of the flows in use
  constexpr std::uint16_t kInUse = 1'000;  // some of which share a set of the cache
  Instance instance;
  instance.install(one_service("web", "rpc"));
  const auto bench = kern::BenchPrograms::load(instance.maps());
  REQUIRE(bench);
  const lab::Frame frame = udp(1, 9000);
  // at random: ports in a row would spread so evenly that no two share a set
  model::Random random(1);
  std::set<std::uint16_t> ports;
  while (ports.size() < kInUse) ports.insert(static_cast<std::uint16_t>(1 + random.below(65535)));
  std::vector<anic_test_packet> in_use;
  for (const std::uint16_t port : ports) in_use.push_back(make_packet(udp(port, 9000)));
  const auto use = [&] {
    for (const anic_test_result& result : instance.run(Hook::Xdp, in_use)) {
      if (class_of(result) != ANIC_CLASS_RPC) FAIL("another class: " << class_of(result));
    }
  };
  use();
  std::map<std::uint64_t, unsigned> kept;
  for (std::uint32_t done = 0; done < kFlood; done += kBurst) {
    use();
    kept = cached_flows(instance, frame);
    anic_bench flood{};
    flood.flows = kBurst;
    flood.base = done;
    REQUIRE(bench->set(flood));
    REQUIRE(kern::time_runs(bench->flows_fd(), frame, kBurst));
  }
  // of three that share a set two take turns in a way: nobody finds them there, and a flood may have it
  std::erase_if(kept, [](const auto& flow) { return flow.second == 0; });
  CHECK(kept.size() >= kInUse - 10);
  const std::map<std::uint64_t, unsigned> left = cached_flows(instance, frame);
  const auto lost = std::ranges::count_if(kept, [&](const auto& flow) { return !left.contains(flow.first); });
  CHECK(lost == 0);
}

TEST_CASE("lanes: an xsk service whose lane is kept on path A goes there, and says so") {
  Instance instance;
  const policy::Policy one = policy::parse(one_service("gate", "rpc", "acme", "xsk"), "p").value();
  instance.install(one);
  CHECK(run_one(instance, Hook::Xdp, udp(1, 9000)).reason == ANIC_REASON_PASS_NO_SOCKET);
  instance.install(one, [](policy::Tables& tables) {
    for (anic_lane& lane : tables.lanes) lane.path = ANIC_PATH_KERNEL;
  });
  const anic_test_result result = run_one(instance, Hook::Xdp, udp(1, 9000));
  CHECK(result.reason == ANIC_REASON_PASS_LANE);
  CHECK(result.xsk == 0);
  CHECK(run_one(instance, Hook::TcIn, udp(1, 9000)).reason == ANIC_REASON_PASS_LANE);
}

TEST_CASE("control: a second with more packets than the policy says is one alarm") {
  Instance instance;
  instance.install(one_service("web", "rpc"));
  const anic_test_packet arp = make_packet(PacketBuilder().eth().arp().build());
  const auto send = [&](std::size_t packets, std::uint64_t second) {
    (void)instance.run(Hook::Xdp, std::vector(packets, arp), second * kSecond + kSecond / 2);
    return instance.control();
  };
  CHECK(send(10, 100).alarms == 0);
  CHECK(send(10, 101).alarms == 0);
  CHECK(send(1, 101).alarms == 1);
  CHECK(send(30, 101).alarms == 1);
  CHECK(send(10, 102).alarms == 1);
  const anic_control last = send(11, 103);
  CHECK(last.alarms == 2);
  CHECK(last.last_alarm_s == 103);
  CHECK(last.second == 103);
  CHECK(last.packets == 11);
}

TEST_CASE("tc: an aggregate counts as the packets that it is made of") {
  Instance instance;
  instance.install(one_service("web", "rpc"));
  const lab::Frame frame = PacketBuilder().eth().ipv4().udp(1, 9000).payload(2000).build();
  REQUIRE(instance.pass(Hook::TcIn, frame, 0, 4) == passed(Hook::TcIn));
  const auto counters = instance.counters();
  const anic_lane_count& lane = counters->lanes[ANIC_DIRECTION_IN][ANIC_LANE(1, ANIC_CLASS_RPC)];
  CHECK(lane.seen == 4);
  CHECK(lane.by_reason[ANIC_REASON_AT(ANIC_REASON_PASS_SERVICE)].packets == 4);
  CHECK(lane.by_reason[ANIC_REASON_AT(ANIC_REASON_PASS_SERVICE)].bytes == frame.size());
  CHECK(counters->queues[ANIC_DIRECTION_IN][0].by_reason[ANIC_REASON_AT(ANIC_REASON_PASS_SERVICE)] == 4);
  CHECK(counters->services[ANIC_DIRECTION_IN][1].packets == 4);
}

TEST_CASE("tc: a queue beyond the last is counted as the last, at ingress the kernel counts from one") {
  const Instance instance;
  const lab::Frame frame = udp(1, 2);
  const std::vector packets = {make_packet(frame, 0, 0),   make_packet(frame, 0, 1),
                               make_packet(frame, 0, 3),   make_packet(frame, 0, 255),
                               make_packet(frame, 0, 256), make_packet(frame, 0, 257),
                               make_packet(frame, 0, 5000)};
  const auto counted = [&](anic_direction way, std::size_t queue) {
    return instance.counters()->queues[way][queue].by_reason[ANIC_REASON_AT(ANIC_REASON_PASS_DEFAULT)];
  };
  (void)instance.run(Hook::TcIn, packets);
  CHECK(counted(ANIC_DIRECTION_IN, 0) == 2);
  CHECK(counted(ANIC_DIRECTION_IN, 2) == 1);
  CHECK(counted(ANIC_DIRECTION_IN, 254) == 1);
  CHECK(counted(ANIC_DIRECTION_IN, 255) == 3);
  (void)instance.run(Hook::TcOut, packets);
  CHECK(counted(ANIC_DIRECTION_OUT, 0) == 1);
  CHECK(counted(ANIC_DIRECTION_OUT, 1) == 1);
  CHECK(counted(ANIC_DIRECTION_OUT, 3) == 1);
  CHECK(counted(ANIC_DIRECTION_OUT, 255) == 4);
}
