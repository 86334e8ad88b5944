// SPDX-License-Identifier: Apache-2.0
//
// Turnaround: requests and answers, step by step, on a clock of the test's own.

#include <arpa/inet.h>
#include <fmt/format.h>
#include <netinet/in.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <catch2/catch_test_macros.hpp>
#include <catch2/generators/catch_generators.hpp>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <functional>
#include <numeric>
#include <set>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "abi/turn.h"
#include "base/clock.hpp"
#include "instance.hpp"
#include "kern/test_run.hpp"
#include "lab/packet.hpp"
#include "policy/parse.hpp"

using namespace agentnic;
using lab::Frame;
using lab::PacketBuilder;
using model::Hook;

namespace {

constexpr std::uint64_t kMs = 1'000'000;
constexpr std::uint64_t kStart = 1'000'000 * kMs;
constexpr std::uint64_t kSlo = 10 * kMs;
constexpr std::uint8_t kSyn = 2;
constexpr std::uint8_t kRst = 4;
constexpr std::uint8_t kPush = 8;
constexpr std::uint8_t kAck = 16;

std::string policy_text(
    const std::string& tenants = R"({"name": "acme", "prefixes": ["10.1.0.0/16", "2001:db8:1::/48"]},
                                                        {"name": "beta", "prefixes": ["10.2.0.0/16"]})",
    const std::string& more = "") {
  return R"({"version": 1, "name": "turns", )" + more +
         R"( "classes": {"rpc": {"slo": "10ms"}}, "tenants": [)" + tenants +
         R"(], "control": [{"protocol": "udp", "port": 9005}], "services": [
    {"name": "web", "protocol": "tcp", "port": 9000, "class": "rpc", "path": "kernel"},
    {"name": "tell", "protocol": "udp", "port": 9001, "class": "rpc", "path": "kernel"},
    {"name": "model", "protocol": "tcp", "port": 9002, "role": "client", "class": "retrieval", "path": "kernel"},
    {"name": "ask", "protocol": "udp", "port": 9003, "role": "client", "class": "retrieval", "path": "kernel"},
    {"name": "peer", "protocol": "udp", "port": 9004, "role": "both", "class": "bulk", "path": "kernel"}]})";
}

/// Who talks, and where this host sees it.
struct Talk {
  bool tcp = false;
  bool is_ipv6 = false;
  bool client = false;  ///< this host asks, else it answers
  Hook in = Hook::Xdp;
  std::uint16_t service_port = 0;    ///< 0: of the service for such talk
  std::uint16_t other_port = 40000;  ///< of who asks
  std::uint8_t tenant = 1;           ///< 10.N.0.9

  [[nodiscard]] std::uint16_t port() const {
    if (service_port != 0) return service_port;
    return static_cast<std::uint16_t>((tcp ? 9000 : 9001) + (client ? 2 : 0));
  }
};

/// Fields of a TCP header, and how much comes after it.
struct Segment {
  std::uint32_t seq = 0;
  std::uint32_t ack = 0;
  std::size_t bytes = 0;
  std::uint8_t flags = kPush | kAck;
};

void patch_tcp(Frame& frame, std::size_t at, const Segment& segment) {
  const std::uint32_t seq = htonl(segment.seq);
  const std::uint32_t ack = htonl(segment.ack);
  std::memcpy(&frame[at + 4], &seq, sizeof(seq));
  std::memcpy(&frame[at + 8], &ack, sizeof(ack));
  frame[at + 13] = static_cast<std::byte>(segment.flags);
}

/// A request, or an answer.
Frame frame_of(const Talk& talk, bool request, const Segment& segment) {
  const bool leaves = request == talk.client;
  const std::string remote = talk.is_ipv6 ? "2001:db8:" + std::to_string(talk.tenant) + "::9"
                                          : "10." + std::to_string(talk.tenant) + ".0.9";
  const std::string local = talk.is_ipv6 ? "2001:db8::2" : "192.0.2.2";
  PacketBuilder builder;
  builder.eth();
  talk.is_ipv6 ? builder.ipv6() : builder.ipv4();
  builder.from((leaves ? local : remote).c_str()).to((leaves ? remote : local).c_str());
  const std::uint16_t from = request ? talk.other_port : talk.port();
  const std::uint16_t to = request ? talk.port() : talk.other_port;
  talk.tcp ? builder.tcp(from, to) : builder.udp(from, to);
  Frame frame = builder.payload(segment.bytes).build();
  if (talk.tcp) patch_tcp(frame, talk.is_ipv6 ? 54 : 34, segment);
  constexpr std::size_t kFrameMin = 60;
  if (frame.size() < kFrameMin) frame.resize(kFrameMin, std::byte{0x5a});  // padded, as Ethernet does
  return frame;
}

/// An instance and its clock.
class World {
 public:
  explicit World(const std::string& policy = policy_text()) { install(policy); }

  void install(const std::string& text, const std::function<void(policy::Tables&)>& edit = {}) {
    const auto policy = policy::parse(text, "the test's policy");
    if (!policy) FAIL(policy.error().text());
    ids_ = instance.install(*policy, edit, now_ns);
    tick();
  }

  void tick() const { instance.tick(now_ns); }
  void pass(std::uint64_t ns) { now_ns += ns; }

  anic_test_result packet(Hook hook, const Frame& frame) const {
    return instance.run(hook, std::vector{make_packet(frame)}, now_ns).front();
  }
  anic_test_result send(const Talk& talk, bool request, const Segment& segment) const {
    return packet(request == talk.client ? Hook::TcOut : talk.in, frame_of(talk, request, segment));
  }
  /// The first request of a connection, of 100 bytes, and its answer.
  void ask(const Talk& talk) const { send(talk, true, {.seq = 1000, .ack = 5000, .bytes = 100}); }
  void answer(const Talk& talk) const { send(talk, false, {.seq = 5000, .ack = 1100, .bytes = 300}); }

  /// The same of many, as fast as the lane takes them.
  void ask_many(std::uint16_t first_port, std::uint16_t flows) const {
    std::vector<anic_test_packet> packets;
    for (std::uint16_t i = 0; i < flows; ++i) {
      const Talk talk{.tcp = true, .other_port = static_cast<std::uint16_t>(first_port + i)};
      packets.push_back(make_packet(frame_of(talk, true, {.seq = 1000, .ack = 5000, .bytes = 100})));
      if (packets.size() < ANIC_TURN_WANTED && i + 1 < flows) continue;
      tick();
      (void)instance.run(Hook::Xdp, packets, now_ns);
      packets.clear();
    }
  }

  [[nodiscard]] anic_turn_lane lane(anic_class cls, const char* tenant = "acme") const {
    anic_turn_lane turn{};
    REQUIRE(instance.maps().read("anic_turns", ANIC_LANE(ids_.tenants.at(tenant), cls), turn));
    return turn;
  }
  [[nodiscard]] anic_turn_lane lane(const Talk& talk) const {
    return lane(talk.client ? ANIC_CLASS_RETRIEVAL : ANIC_CLASS_RPC);
  }

  Instance instance;
  std::uint64_t now_ns = kStart;

 private:
  policy::Ids ids_;
};

std::uint64_t answers(const anic_turn_lane& turn) {
  return std::accumulate(std::begin(turn.histogram), std::end(turn.histogram), std::uint64_t{0});
}

/// How many answers are in the bucket for this time.
std::uint64_t that_took(const anic_turn_lane& turn, std::uint64_t ns) {
  std::uint32_t i = 0;
  while (i + 1 < ANIC_TURN_BUCKETS && ANIC_TURN_BUCKET_END_NS(i) <= ns) ++i;
  return turn.histogram[i];
}

/// Samples, those over the SLO, missed ones, ambiguous ones, answers, and what is still waited for.
struct Counts {
  std::uint64_t samples = 0;
  std::uint64_t over_slo = 0;
  std::uint64_t misses = 0;
  std::uint64_t ambiguous = 0;
  std::uint64_t answers = 0;
  std::uint64_t outstanding = 0;
};

void check(const anic_turn_lane& turn, const Counts& expected) {
  CHECK(turn.samples == expected.samples);
  CHECK(turn.over_slo == expected.over_slo);
  CHECK(turn.misses == expected.misses);
  CHECK(turn.ambiguous == expected.ambiguous);
  CHECK(answers(turn) == expected.answers);
  CHECK(turn.outstanding == expected.outstanding);
}

}  // namespace

TEST_CASE("turn: the time from a request to its answer, for servers and clients", "[smoke]") {
  World world;
  std::array<Counts, 2> expected{};  // of servers, of clients
  std::uint16_t other_port = 40000;
  const auto one = [&](const Talk& talk, std::uint64_t ns) {
    INFO(fmt::format("tcp {}, IPv6 {}, client {}, at TC {}: {} ns", talk.tcp, talk.is_ipv6, talk.client,
                     talk.in == Hook::TcIn, ns));
    world.tick();
    const std::uint64_t before = that_took(world.lane(talk), ns);
    world.ask(talk);
    world.pass(ns);
    world.answer(talk);
    Counts& counts = expected.at(talk.client ? 1 : 0);
    ++counts.samples;
    ++counts.answers;
    if (!talk.client && ns > kSlo) ++counts.over_slo;
    check(world.lane(talk), counts);
    CHECK(that_took(world.lane(talk), ns) == before + 1);
  };
  for (const bool tcp : {false, true}) {
    for (const bool is_ipv6 : {false, true}) {
      for (const bool client : {false, true}) {
        for (const Hook in : {Hook::Xdp, Hook::TcIn}) {
          for (const std::uint64_t ns : {0UL, 1UL, 123'456UL, kSlo, kSlo + 1}) {
            one({.tcp = tcp, .is_ipv6 = is_ipv6, .client = client, .in = in, .other_port = ++other_port}, ns);
          }
        }
      }
    }
  }
  for (const std::uint64_t ns :
       {63UL, 64UL, 1023UL, 1024UL, 2047UL, 2048UL, 34'000'000'000UL, 40'000'000'000UL})
    one({}, ns);
}

TEST_CASE("turn: buckets are at most a sixteenth of their value wide, and leave no gap") {
  std::uint64_t begin = 0;
  for (std::uint32_t i = 0; i < ANIC_TURN_BUCKETS; ++i) {
    const std::uint64_t end = ANIC_TURN_BUCKET_END_NS(i);
    REQUIRE(end > begin);
    REQUIRE(end - begin <= std::max<std::uint64_t>(1U << ANIC_TURN_UNIT_LOG2, begin / ANIC_TURN_PARTS));
    begin = end;
  }
  CHECK(begin == 1ULL << (ANIC_TURN_TOP_LOG2 + ANIC_TURN_UNIT_LOG2));
}

TEST_CASE(
    "turn: what has no answer in time is missed, once, and a late answer is seen and not counted again") {
  const Talk talk{.tcp = GENERATE(false, true)};
  World world;
  world.ask(talk);
  world.pass(kSlo);
  world.tick();
  check(world.lane(talk), {.outstanding = 1});
  world.pass(1);
  world.tick();
  world.tick();
  check(world.lane(talk), {.samples = 1, .over_slo = 1, .misses = 1, .outstanding = 1});
  SECTION("a late answer") {
    world.pass(10 * kMs);
    world.answer(talk);
    check(world.lane(talk), {.samples = 1, .over_slo = 1, .misses = 1, .answers = 1});
    CHECK(that_took(world.lane(talk), kSlo + 1 + 10 * kMs) == 1);
  }
  SECTION("none at all") {
    world.pass(ANIC_TURN_KEEP_NS);
    world.tick();
    check(world.lane(talk), {.samples = 1, .over_slo = 1, .misses = 1});
    world.answer(talk);
    CHECK(answers(world.lane(talk)) == 0);
  }
  SECTION("data that may be an answer to something else") {
    if (!talk.tcp) return;
    world.send(talk, false, {.seq = 5100, .ack = 1100, .bytes = 100});
    check(world.lane(talk), {.samples = 1, .over_slo = 1, .misses = 1});
  }
  SECTION("another request instead") {
    world.send(talk, true, {.seq = 1100, .ack = 5000, .bytes = 100});
    world.pass(kMs);
    world.send(talk, false, {.seq = 5000, .ack = 1200, .bytes = 300});
    check(world.lane(talk), {.samples = 2, .over_slo = 1, .misses = 1, .answers = 1});
    CHECK(that_took(world.lane(talk), kMs) == 1);
  }
}

TEST_CASE("turn: without an SLO a request is missed after a second, and nothing is over it") {
  const Talk talk{.client = true};
  World world;
  world.ask(talk);
  world.pass(ANIC_TURN_GIVE_UP_NS);
  world.tick();
  check(world.lane(talk), {.outstanding = 1});
  world.pass(1);
  world.tick();
  check(world.lane(talk), {.samples = 1, .misses = 1, .outstanding = 1});
}

TEST_CASE("turn: two requests before an answer are ambiguous, and their flow is left out for a while") {
  const Talk talk{.tcp = GENERATE(false, true), .client = GENERATE(false, true)};
  World world;
  world.ask(talk);
  world.send(talk, true, {.seq = 1100, .ack = 5000, .bytes = 100});
  check(world.lane(talk), {.ambiguous = 1});
  world.answer(talk);
  world.send(talk, true, {.seq = 1200, .ack = 5300, .bytes = 100});
  world.pass(kMs);
  world.send(talk, false, {.seq = 5300, .ack = 1300, .bytes = 100});
  check(world.lane(talk), {.ambiguous = 1});
  world.pass(ANIC_TURN_LEFT_OUT_NS);
  world.tick();
  world.send(talk, true, {.seq = 1300, .ack = 5400, .bytes = 100});
  world.pass(kMs);
  world.send(talk, false, {.seq = 5400, .ack = 1400, .bytes = 100});
  check(world.lane(talk), {.samples = 1, .ambiguous = 1, .answers = 1});
}

TEST_CASE("turn: what begins no sample of TCP") {
  World world;
  const Talk talk{.tcp = true};
  for (const auto& [what, segment] : std::vector<std::pair<const char*, Segment>>{
           {"an acknowledgement, padded", {.seq = 1000, .ack = 5000}},
           {"a request of which more is to come", {.seq = 1000, .ack = 5000, .bytes = 1400, .flags = kAck}},
           {"SYN, with data", {.seq = 1000, .bytes = 100, .flags = kSyn | kPush}},
           {"RST", {.seq = 1000, .bytes = 100, .flags = kRst | kPush}}}) {
    INFO(what);
    world.send(talk, true, segment);
    check(world.lane(talk), {});
  }
  world.answer(talk);
  check(world.lane(talk), {});
}

TEST_CASE("turn: what neither ends a sample of TCP nor spoils it") {
  const bool client = GENERATE(false, true);
  struct Case {
    const char* what;
    bool request;
    Segment segment;
  };
  World world;
  Talk talk{.tcp = true, .client = client};
  std::uint64_t samples = 0;
  for (const auto& [what, request, segment] :
       std::vector<Case>{{"the request again", true, {.seq = 1000, .ack = 5000, .bytes = 100}},
                         {"a part of it again", true, {.seq = 1000, .ack = 5000, .bytes = 50}},
                         {"what came before it", true, {.seq = 900, .ack = 5000, .bytes = 100}},
                         {"an acknowledgement of an answer before", true, {.seq = 1100, .ack = 5000}},
                         {"an acknowledgement of the request", false, {.seq = 5000, .ack = 1100}},
                         {"an answer before it, again", false, {.seq = 4900, .ack = 1000, .bytes = 100}},
                         {"RST", false, {.seq = 5000, .ack = 1100, .bytes = 9, .flags = kRst}}}) {
    INFO(what);
    world.tick();
    ++talk.other_port;
    world.ask(talk);
    world.pass(kMs);
    world.send(talk, request, segment);
    check(world.lane(talk), {.samples = samples, .answers = samples, .outstanding = 1});
    world.answer(talk);
    ++samples;
    check(world.lane(talk), {.samples = samples, .answers = samples});
    CHECK(that_took(world.lane(talk), kMs) == samples);
  }
}

TEST_CASE("turn: answers of TCP that may be to something else are ambiguous") {
  const bool client = GENERATE(false, true);
  World world;
  Talk talk{.tcp = true, .client = client};
  std::uint64_t ambiguous = 0;
  for (const auto& [what, segment] : std::vector<std::pair<const char*, Segment>>{
           {"one that does not cover the request", {.seq = 5000, .ack = 1050, .bytes = 100}},
           {"one that goes on with what was sent before", {.seq = 5100, .ack = 1100, .bytes = 100}},
           {"one that begins before the request was sent", {.seq = 4900, .ack = 1100, .bytes = 200}}}) {
    INFO(what);
    ++talk.other_port;
    world.pass(ANIC_TURN_LEFT_OUT_NS);  // the flow before may have the same slot
    world.ask(talk);
    world.send(talk, false, segment);
    check(world.lane(talk), {.ambiguous = ++ambiguous});
  }
}

TEST_CASE("turn: sequence numbers go round") {
  const Talk talk{.tcp = true};
  World world;
  world.send(talk, true, {.seq = 0xffffffd0, .ack = 0xffffffff, .bytes = 100});
  world.send(talk, true, {.seq = 0xffffffd0, .ack = 0xffffffff, .bytes = 100});
  world.pass(kMs);
  world.send(talk, false, {.seq = 0xfffffff0, .ack = 52, .bytes = 15});
  world.send(talk, false, {.seq = 0xffffffff, .ack = 52, .bytes = 100});
  check(world.lane(talk), {.samples = 1, .answers = 1});
}

TEST_CASE("turn: so many packets of a lane are looked at, and the next tick lets more in") {
  World world;
  std::vector<anic_test_packet> requests;
  for (std::uint16_t i = 0; i < 100; ++i)
    requests.push_back(
        make_packet(frame_of({.other_port = static_cast<std::uint16_t>(40000 + i)}, true, {})));
  (void)world.instance.run(Hook::Xdp, requests, world.now_ns);
  anic_turn_lane turn = world.lane(ANIC_CLASS_RPC);
  CHECK(turn.wanted[ANIC_DIRECTION_IN] == 0);
  CHECK(turn.wanted[ANIC_DIRECTION_OUT] == ANIC_TURN_WANTED);
  CHECK(turn.outstanding >= 1);
  CHECK(turn.outstanding <= ANIC_TURN_WANTED);
  CHECK(turn.ambiguous == 0);
  const std::uint32_t before = turn.outstanding;
  const Talk next{.other_port = 50000};
  world.ask(next);
  CHECK(world.lane(ANIC_CLASS_RPC).outstanding == before);
  world.tick();
  turn = world.lane(ANIC_CLASS_RPC);
  CHECK(turn.wanted[ANIC_DIRECTION_IN] == ANIC_TURN_WANTED);
}

TEST_CASE("turn: flows that meet in a slot wait for it to be free, and all that began end") {
  constexpr std::uint16_t kFlows = 400;
  World world;
  std::vector<anic_test_packet> answers_to_all;
  world.ask_many(40000, kFlows);
  for (std::uint16_t i = 0; i < kFlows; ++i) {
    const Talk talk{.tcp = true, .other_port = static_cast<std::uint16_t>(40000 + i)};
    answers_to_all.push_back(make_packet(frame_of(talk, false, {.seq = 5000, .ack = 1100, .bytes = 300})));
  }
  anic_turn_lane turn = world.lane(ANIC_CLASS_RPC);
  std::set<std::uint64_t> flows;
  for (const anic_turn_slot& slot : turn.slots) flows.insert(slot.flow);
  CHECK(flows.size() == ANIC_TURN_SLOTS);  // of 400 flows some fall into each
  CHECK(turn.outstanding == ANIC_TURN_SLOTS);
  world.pass(kMs);
  (void)world.instance.run(Hook::TcOut, answers_to_all, world.now_ns);
  check(world.lane(ANIC_CLASS_RPC), {.samples = ANIC_TURN_SLOTS, .answers = ANIC_TURN_SLOTS});
}

TEST_CASE("turn: nobody has the slot of a flow that is left out, for a while") {
  World world;
  const Talk pipelined{.other_port = 39999};
  world.ask(pipelined);
  world.ask(pipelined);
  world.ask_many(40000, 400);
  check(world.lane(ANIC_CLASS_RPC), {.ambiguous = 1, .outstanding = ANIC_TURN_SLOTS - 1});
  world.pass(ANIC_TURN_LEFT_OUT_NS);
  world.ask_many(40000, 400);
  CHECK(world.lane(ANIC_CLASS_RPC).outstanding == ANIC_TURN_SLOTS);
}

TEST_CASE("turn: an answer that is paced is there when it may leave") {
  World world;
  world.install(policy_text(R"({"name": "acme", "prefixes": ["10.1.0.0/16"]})", R"("link_rate": "8Mbit",)"),
                [](policy::Tables& tables) { tables.policy.uses |= ANIC_USES_FQ; });
  const Talk talk;
  std::vector<anic_test_packet> before;  // one more than the bucket holds
  for (int i = 0; i < 60; ++i)
    before.push_back(make_packet(frame_of({.other_port = 39999}, false, {.bytes = 1400})));
  (void)world.instance.run(Hook::TcOut, before, world.now_ns);
  world.ask(talk);
  world.pass(kMs);
  const anic_test_result result = world.send(talk, false, {.bytes = 300});
  REQUIRE(result.departs_ns > world.now_ns);
  CHECK(that_took(world.lane(talk), result.departs_ns - kStart) == 1);
  check(world.lane(talk),
        {.samples = 1, .over_slo = result.departs_ns - kStart > kSlo ? 1U : 0U, .answers = 1});
}

TEST_CASE("turn: what is of no service, control, dropped or a later fragment is not looked at") {
  World world;
  const auto untouched = [&] {
    for (std::uint32_t id = 0; id < ANIC_LANES_MAX; ++id) {
      if (id % ANIC_CLASS__MAX == ANIC_CLASS_NONE) continue;
      anic_turn_lane turn{};
      REQUIRE(world.instance.maps().read("anic_turns", id, turn));
      CHECK(turn.wanted[ANIC_DIRECTION_IN] == ANIC_TURN_WANTED);
      CHECK(turn.wanted[ANIC_DIRECTION_OUT] == ANIC_TURN_WANTED);
      CHECK(turn.outstanding == 0);
    }
  };
  SECTION("no service") { world.ask({.service_port = 9999}); }
  SECTION("control") { world.ask({.service_port = 9005}); }
  SECTION("a later fragment") {
    world.packet(Hook::Xdp,
                 PacketBuilder().eth().ipv4(0, 100, IPPROTO_UDP).from("10.1.0.9").payload(64).build());
  }
  untouched();
}

TEST_CASE("turn: what a quota drops begins nothing") {
  World world(policy_text(R"({"name": "acme", "prefixes": ["10.1.0.0/16"], "budget": {"ceiling": "8Kbit"}})",
                          R"("link_rate": "1Gbit",)"));
  std::vector<anic_test_packet> packets;  // until nothing is left
  for (int i = 0; i < 200; ++i)
    packets.push_back(make_packet(frame_of({.service_port = 9999}, true, {.bytes = 1400})));
  (void)world.instance.run(Hook::Xdp, packets, world.now_ns);
  const Talk talk;
  const anic_test_result result = world.send(talk, true, {.bytes = 100});
  const anic_turn_lane turn = world.lane(talk);
  if (result.reason == ANIC_REASON_DROP_QUOTA) CHECK(turn.wanted[ANIC_DIRECTION_IN] == ANIC_TURN_WANTED);
  CHECK(turn.outstanding == (result.reason == ANIC_REASON_DROP_QUOTA ? 0 : 1));
}

TEST_CASE("turn: a first fragment is a request, and so is a packet of nothing") {
  World world;
  SECTION("a first fragment") {
    world.packet(Hook::Xdp,
                 PacketBuilder().eth().ipv4(0, 0x2000).from("10.1.0.9").udp(40000, 9001).payload(64).build());
  }
  SECTION("nothing in it") { world.send({}, true, {}); }
  SECTION("VLAN tag and options") {
    world.packet(Hook::Xdp,
                 PacketBuilder().eth().vlan(7).ipv4(8).from("10.1.0.9").udp(40000, 9001).payload(4).build());
  }
  check(world.lane(ANIC_CLASS_RPC), {.outstanding = 1});
}

TEST_CASE("turn: options of IP and TCP are no data") {
  World world;
  const Talk talk{.tcp = true};
  Frame frame = PacketBuilder().eth().vlan(7).ipv4(12).from("10.1.0.9").tcp(40000, 9000).payload(12).build();
  const std::size_t at = 14 + 4 + 32;
  patch_tcp(frame, at, {.seq = 1000, .ack = 5000});
  frame[at + 12] = std::byte{8 << 4};  // words of the header
  world.packet(Hook::Xdp, frame);
  check(world.lane(talk), {});
  frame[at + 12] = std::byte{7 << 4};
  world.packet(Hook::Xdp, frame);
  check(world.lane(talk), {.outstanding = 1});
  const anic_turn_lane turn = world.lane(talk);
  for (const anic_turn_slot& slot : turn.slots) {
    if (slot.flow == ANIC_TURN_FREE) continue;
    CHECK(slot.end == 1004);
    CHECK(slot.ack == 5000);
  }
}

TEST_CASE("turn: where a service is at either end, who sends to its port asks") {
  World world;
  const Talk asks{.client = true, .service_port = 9004};
  const Talk answers_others{.service_port = 9004, .other_port = 40001};
  for (const Talk& talk : {asks, answers_others}) {
    world.ask(talk);
    world.pass(kMs);
    world.answer(talk);
  }
  check(world.lane(ANIC_CLASS_BULK), {.samples = 2, .answers = 2});
}

TEST_CASE("turn: an interface that faces a workload has the server behind it") {
  World world(policy_text(R"({"name": "acme", "local": ["10.1.0.0/16"]})", R"("faces": "workload",)"));
  const Talk talk{.client = true, .service_port = 9001};  // a packet out goes to the workload's server
  world.ask(talk);
  world.pass(kMs);
  world.answer(talk);
  check(world.lane(ANIC_CLASS_RPC), {.samples = 1, .answers = 1});
}

TEST_CASE("turn: a tenant's requests take nothing from another's") {
  World world;
  for (std::uint16_t i = 0; i < 100; ++i)
    world.ask({.other_port = static_cast<std::uint16_t>(40000 + i), .tenant = 2});
  const Talk talk;
  world.ask(talk);
  world.pass(kMs);
  world.answer(talk);
  check(world.lane(ANIC_CLASS_RPC, "acme"), {.samples = 1, .answers = 1});
  CHECK(world.lane(ANIC_CLASS_RPC, "beta").samples == 0);
}

TEST_CASE("turn: another tenant with the same id begins anew, and the others go on") {
  World world;
  const Talk acme;
  const Talk beta{.tenant = 2};
  for (const Talk& talk : {acme, beta}) {
    world.ask(talk);
    world.pass(kMs);
    world.answer(talk);
    world.ask(talk);
  }
  world.install(policy_text(
      R"({"name": "gamma", "prefixes": ["10.1.0.0/16"]}, {"name": "beta", "prefixes": ["10.2.0.0/16"]})"));
  check(world.lane(ANIC_CLASS_RPC, "gamma"), {});
  check(world.lane(ANIC_CLASS_RPC, "beta"), {.samples = 1, .answers = 1, .outstanding = 1});
  world.answer(acme);
  check(world.lane(ANIC_CLASS_RPC, "gamma"), {});
}

TEST_CASE("turn: CPUs and the tick that meet in a slot leave none behind") {
  constexpr std::uint32_t kRuns = 200'000;  // between calls the kernel waits for milliseconds
  const World world;
  std::atomic<bool> stop = false;
  std::atomic<bool> failed = false;
  const auto talk = [&](bool request, int prog_fd) {
    const Segment segment = request ? Segment{.seq = 1000, .ack = 5000, .bytes = 100}
                                    : Segment{.seq = 5000, .ack = 1100, .bytes = 300};
    const Frame frame = frame_of({.tcp = true}, request, segment);
    while (!stop) {
      if (!kern::time_runs(prog_fd, frame, kRuns)) failed = true;
    }
  };
  {
    const std::jthread asks([&] { talk(true, world.instance.object().xdp_fd()); });
    const std::jthread answers_them([&] { talk(false, world.instance.object().tc_out_fd()); });
    const std::uint64_t end_ns = monotonic_ns() + 500 * kMs;
    while (monotonic_ns() < end_ns) {
      world.instance.tick(monotonic_ns());
      std::this_thread::sleep_for(std::chrono::microseconds(10));  // so that both others run
    }
    stop = true;
  }
  CHECK_FALSE(failed);
  const anic_turn_lane turn = world.lane(ANIC_CLASS_RPC);
  std::uint32_t waited_for = 0;
  for (const anic_turn_slot& slot : turn.slots) {
    CHECK(slot.flow != ANIC_TURN_BUSY);
    if (slot.flow != ANIC_TURN_FREE && slot.state != ANIC_TURN_LEFT_OUT) ++waited_for;
  }
  CHECK(turn.outstanding == waited_for);
  CHECK(turn.samples > 0);
  CHECK(turn.ambiguous == 0);
  CHECK(answers(turn) <= turn.samples);
  CHECK(turn.misses <= turn.over_slo);
  CHECK(turn.over_slo <= turn.samples);
}
