// SPDX-License-Identifier: Apache-2.0
//
// Neighbours of an interface, with real ones: two namespaces and a veth pair.

#include "path/xsk/neighbours.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <net/if.h>
#include <sched.h>
#include <unistd.h>

#include <catch2/catch_test_macros.hpp>
#include <chrono>
#include <cstdint>
#include <cstring>
#include <fstream>
#include <functional>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "base/process.hpp"
#include "path/sockets/udp.hpp"

using namespace agentnic;
using path::Endpoint;
using path::Hop;
using path::Mac;
using path::Neighbours;

namespace {

constexpr Mac kHostMac = {2, 0, 0, 0, 0, 1};
constexpr Mac kPeerMac = {2, 0, 0, 0, 0, 2};
constexpr Mac kOtherMac = {2, 0, 0, 0, 0, 3};
constexpr int kNobody = 65534;

template <typename T>
T value_of(Result<T> result) {
  if (!result) FAIL(result.error().text());
  return std::move(*result);
}

void ip(Argv words) {
  words.insert(words.begin(), "ip");
  value_of(run_program(words));
}

/// The thread is in a namespace until this goes.
class Inside {
 public:
  explicit Inside(const std::string& netns)
      : before_(::open("/proc/thread-self/ns/net", O_RDONLY | O_CLOEXEC)) {
    const UniqueFd other(::open(("/run/netns/" + netns).c_str(), O_RDONLY | O_CLOEXEC));
    REQUIRE(::setns(other.get(), CLONE_NEWNET) == 0);
  }
  Inside(const Inside&) = delete;
  Inside& operator=(const Inside&) = delete;
  ~Inside() { ::setns(before_.get(), CLONE_NEWNET); }

 private:
  UniqueFd before_;
};

/// This side has the host's end of the pair, `peer` the other. They know nothing of each other.
struct Pair {
  Pair() {
    ip({"netns", "add", here});
    ip({"netns", "add", peer});
    ip({"-n", here, "link", "add", "near0", "address", "02:00:00:00:00:01", "type", "veth", "peer", "name",
        "far0", "address", "02:00:00:00:00:02", "netns", peer});
    set_up(here, "near0", "1");
    set_up(peer, "far0", "2");
    inside.emplace(here);
    ifindex = ::if_nametoindex("near0");
    REQUIRE(ifindex != 0);
  }
  Pair(const Pair&) = delete;
  Pair& operator=(const Pair&) = delete;
  ~Pair() {
    inside.reset();
    for (const std::string& netns : {here, peer}) {
      static_cast<void>(run_program({"ip", "netns", "del", netns}).has_value());
    }
  }
  static void set_up(const std::string& netns, const std::string& ifname, const std::string& number) {
    for (const char* knob : {"ipv6.conf.{}.addr_gen_mode=1", "ipv6.conf.{}.router_solicitations=0",
                             "ipv4.conf.{}.arp_notify=1", "ipv6.conf.{}.ndisc_notify=1"}) {
      ip({"netns", "exec", netns, "sysctl", "-qw", "net." + fmt::format(fmt::runtime(knob), ifname)});
    }
    for (const char* address : {"198.18.0.{}/24", "2001:db8::{}/64", "fe80::{}/64"}) {
      ip({"-n", netns, "addr", "add", fmt::format(fmt::runtime(address), number), "dev", ifname, "nodad"});
    }
    ip({"-n", netns, "link", "set", "lo", "up"});
    ip({"-n", netns, "link", "set", ifname, "up"});
  }
  void neighbour(const Argv& words) const {
    Argv argv = {"-n", here, "neigh"};
    argv.insert(argv.end(), words.begin(), words.end());
    argv.insert(argv.end(), {"dev", "near0"});
    ip(argv);
  }

  std::string here = fmt::format("neighbours-{}-here", ::getpid());
  std::string peer = fmt::format("neighbours-{}-peer", ::getpid());
  std::optional<Inside> inside;
  std::uint32_t ifindex = 0;
};

Endpoint endpoint(const char* address, std::uint16_t port = 9001) {
  return Endpoint::from(value_of(path::Address::parse(address, port)));
}

std::optional<Hop> resolve(Neighbours& neighbours, const char* address) {
  neighbours.poll();
  return value_of(neighbours.resolve(endpoint(address).address));
}

/// What resolve() refuses with.
std::string refusal(Neighbours& neighbours, const char* address) {
  neighbours.poll();
  const auto hop = neighbours.resolve(endpoint(address).address);
  return hop ? "it is not refused" : hop.error().text();
}

std::uint16_t send(Neighbours& neighbours, const char* address, std::uint16_t port = 0) {
  const std::byte payload[] = {std::byte{'h'}, std::byte{'i'}};
  return value_of(neighbours.send_by_kernel(endpoint(address), payload, port));
}

bool soon(const std::function<bool()>& holds) {
  for (int i = 0; i < 500; ++i) {
    if (holds()) return true;
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
  }
  return false;
}

bool becomes(Neighbours& neighbours, const char* address, const Mac& mac) {
  return soon([&] {
    const auto hop = resolve(neighbours, address);
    return hop && hop->destination_mac == mac;
  });
}

}  // namespace

TEST_CASE("neighbours: one is unknown until the kernel has sent to it, in both families") {
  const Pair pair;
  for (const char* peer : {"198.18.0.2", "2001:db8::2", "fe80::2"}) {
    INFO(peer);
    std::optional<path::UdpSocket> receiver;
    {
      const Inside inside(pair.peer);
      receiver =
          value_of(path::UdpSocket::bind(endpoint(std::strchr(peer, ':') ? "::" : "0.0.0.0").to_address()));
    }
    Neighbours neighbours = value_of(Neighbours::open(pair.ifindex));
    CHECK(!resolve(neighbours, peer));
    CHECK(send(neighbours, peer, 4000) == 4000);
    REQUIRE(becomes(neighbours, peer, kPeerMac));
    const Hop hop = *resolve(neighbours, peer);
    CHECK(hop.source_mac == kHostMac);
    CHECK(hop.mtu == 1500);
    CHECK(Endpoint{hop.source, 0} ==
          endpoint(std::string(peer).replace(std::strlen(peer) - 1, 1, "1").c_str(), 0));
    std::byte buffer[8];
    path::Address from;
    std::optional<std::size_t> got;
    REQUIRE(soon([&] { return (got = receiver->receive_from(buffer, path::Wait::Spin, from)).has_value(); }));
    CHECK(got == 2);
    CHECK(Endpoint::from(from) == Endpoint{hop.source, 4000});
  }
}

TEST_CASE("neighbours: another MAC address of the peer is followed") {
  const Pair pair;
  Neighbours neighbours = value_of(Neighbours::open(pair.ifindex));
  send(neighbours, "198.18.0.2");
  send(neighbours, "2001:db8::2");
  REQUIRE(becomes(neighbours, "198.18.0.2", kPeerMac));
  REQUIRE(becomes(neighbours, "2001:db8::2", kPeerMac));
  const auto generation = neighbours.generation();
  ip({"-n", pair.peer, "link", "set", "far0", "address", "02:00:00:00:00:03"});
  CHECK(becomes(neighbours, "198.18.0.2", kOtherMac));
  CHECK(neighbours.generation() != generation);
  pair.neighbour({"replace", "2001:db8::2", "lladdr", "02:00:00:00:00:03", "nud", "reachable"});
  CHECK(becomes(neighbours, "2001:db8::2", kOtherMac));
}

TEST_CASE("neighbours: one that is flushed, or whose interface is down, is unknown") {
  const Pair pair;
  Neighbours neighbours = value_of(Neighbours::open(pair.ifindex));
  const auto known = [&](const char* address) {
    send(neighbours, address);
    return becomes(neighbours, address, kPeerMac);
  };
  REQUIRE(known("198.18.0.2"));
  REQUIRE(known("2001:db8::2"));
  auto generation = neighbours.generation();
  neighbours.poll();
  CHECK(neighbours.generation() == generation);
  pair.neighbour({"flush"});
  CHECK(!resolve(neighbours, "198.18.0.2"));
  CHECK(!resolve(neighbours, "2001:db8::2"));
  CHECK(neighbours.generation() != generation);

  REQUIRE(known("198.18.0.2"));
  generation = neighbours.generation();
  ip({"-n", pair.here, "link", "set", "near0", "down"});
  CHECK(!resolve(neighbours, "198.18.0.2"));
  CHECK(neighbours.generation() != generation);
  ip({"-n", pair.here, "link", "set", "near0", "up"});
  REQUIRE(soon([&] {
    neighbours.poll();
    return neighbours.send_by_kernel(endpoint("198.18.0.2"), {}, 0).has_value();
  }));
  CHECK(becomes(neighbours, "198.18.0.2", kPeerMac));

  // The cable is pulled at the other end.
  ip({"-n", pair.peer, "link", "set", "far0", "down"});
  CHECK(soon([&] { return !resolve(neighbours, "198.18.0.2"); }));

  ip({"-n", pair.here, "link", "del", "near0"});
  CHECK(refusal(neighbours, "198.18.0.2").starts_with("near0 is gone"));
}

TEST_CASE("neighbours: what is behind a gateway is sent to it") {
  const Pair pair;
  Neighbours neighbours = value_of(Neighbours::open(pair.ifindex));
  CHECK(refusal(neighbours, "203.0.113.9") ==
        "no route to 203.0.113.9 over near0; hint: ip route get 203.0.113.9 oif near0");
  CHECK(refusal(neighbours, "2001:db8:9::9").starts_with("no route to 2001:db8:9::9 over near0"));
  ip({"-n", pair.here, "route", "add", "203.0.113.0/24", "via", "198.18.0.2", "mtu", "1400"});
  ip({"-n", pair.here, "route", "add", "2001:db8:9::/48", "via", "fe80::2", "dev", "near0"});
  ip({"-n", pair.here, "route", "add", "203.0.114.0/24", "via", "inet6", "fe80::2", "dev", "near0"});
  for (const char* address : {"203.0.113.9", "2001:db8:9::9", "203.0.114.9"}) {
    INFO(address);
    pair.neighbour({"flush"});
    CHECK(!resolve(neighbours, address));
    send(neighbours, address);
    REQUIRE(becomes(neighbours, address, kPeerMac));
    const auto hop = resolve(neighbours, address);
    REQUIRE(hop);
    CHECK(hop->mtu == (std::string(address) == "203.0.113.9" ? 1400 : 1500));
    CHECK(Endpoint{hop->source, 0} == endpoint(std::strchr(address, ':') ? "2001:db8::1" : "198.18.0.1", 0));
  }
  ip({"-n", pair.here, "route", "replace", "203.0.113.0/24", "via", "198.18.0.3"});
  CHECK(!resolve(neighbours, "203.0.113.9"));
  ip({"-n", pair.here, "route", "del", "203.0.113.0/24"});
  CHECK(refusal(neighbours, "203.0.113.9").starts_with("no route"));
}

TEST_CASE("neighbours: groups, broadcasts and own addresses are refused") {
  const Pair pair;
  ip({"-n", pair.here, "link", "add", "other0", "type", "veth", "peer", "name", "other1"});
  ip({"-n", pair.here, "addr", "add", "198.19.0.1/24", "dev", "other0"});
  ip({"-n", pair.here, "link", "set", "other0", "up"});
  ip({"-n", pair.here, "route", "add", "default", "via", "198.18.0.2"});
  Neighbours neighbours = value_of(Neighbours::open(pair.ifindex));
  for (const char* group : {"224.0.0.1", "255.255.255.255", "198.18.0.255", "ff02::1", "0.0.0.0", "::"}) {
    CHECK(refusal(neighbours, group) ==
          std::string(group) +
              " is not the address of one host; hint: groups and broadcasts take a kernel socket");
  }
  for (const char* own : {"198.18.0.1", "2001:db8::1", "fe80::1", "127.0.0.1", "::1", "198.19.0.1"}) {
    CHECK(refusal(neighbours, own) ==
          std::string(own) +
              " is an address of this host; hint: what stays on the host takes a kernel socket");
  }
  CHECK(!neighbours.send_by_kernel(endpoint("224.0.0.1"), {}, 0));
  CHECK(Neighbours::open(4711).error().text() == "ask for interface index 4711: No such device");
  CHECK(Neighbours::open(1).error().what == "lo has no Ethernet addresses");
}

TEST_CASE("neighbours: the kernel is made to confirm one that is stale, once a second at most") {
  const Pair pair;
  for (const char* peer : {"198.18.0.2", "2001:db8::2"}) {
    INFO(peer);
    Neighbours neighbours = value_of(Neighbours::open(pair.ifindex));
    pair.neighbour({"replace", peer, "lladdr", "02:00:00:00:00:02", "nud", "reachable"});
    REQUIRE(becomes(neighbours, peer, kPeerMac));
    auto generation = neighbours.generation();
    pair.neighbour({"change", peer, "nud", "stale"});
    neighbours.poll();
    CHECK(neighbours.generation() != generation);
    generation = neighbours.generation();
    CHECK(!resolve(neighbours, peer));
    for (int i = 0; i < 10; ++i)
      CHECK(resolve(neighbours, peer));  // nobody has sent; it can be used all the same
    CHECK(neighbours.generation() == generation);
    REQUIRE(soon([&] {
      neighbours.poll();
      return neighbours.generation() != generation;
    }));
    CHECK(!resolve(neighbours, peer));
    send(neighbours, peer);
    for (int i = 0; i < 150; ++i) {
      REQUIRE(resolve(neighbours, peer));
      std::this_thread::sleep_for(std::chrono::milliseconds(10));
    }
  }
}

TEST_CASE("neighbours: answers to what the kernel has sent stay with whose port it is") {
  const Pair pair;
  Neighbours neighbours = value_of(Neighbours::open(pair.ifindex));
  std::optional<path::UdpSocket> peer;
  {
    const Inside inside(pair.peer);
    peer = value_of(path::UdpSocket::bind(endpoint("198.18.0.2").to_address()));
  }
  const auto bind = [](std::uint16_t port, bool shares) {
    UniqueFd fd(::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
    const int yes = shares ? 1 : 0;
    REQUIRE(::setsockopt(fd.get(), SOL_SOCKET, SO_REUSEPORT, &yes, sizeof(yes)) == 0);
    const path::Address any = endpoint("0.0.0.0", port).to_address();
    REQUIRE(::bind(fd.get(), any.get(), any.length) == 0);
    return fd;
  };
  const UniqueFd alone = bind(4001, false);
  const std::uint16_t port = send(neighbours, "198.18.0.2", 4001);
  CHECK((port != 0 && port != 4001));

  const UniqueFd mine = bind(4000, true);
  REQUIRE(send(neighbours, "198.18.0.2", 4000) == 4000);
  const std::byte payload[1] = {};
  int received = 0;
  for (int i = 0; i < 200; ++i) {
    REQUIRE(peer->send_to(payload, endpoint("198.18.0.1", 4000).to_address()));
    std::byte buffer[8];
    REQUIRE(soon([&] { return ::recv(mine.get(), buffer, sizeof(buffer), 0) == 1; }));
    ++received;
  }
  CHECK(received == 200);
}

TEST_CASE("neighbours: nobody needs privileges for them") {
  const Pair pair;
  Child child = value_of(Child::start("nobody", [&](int out_fd) {
    if (::setresgid(kNobody, kNobody, kNobody) != 0 || ::setresuid(kNobody, kNobody, kNobody) != 0) return;
    auto neighbours = Neighbours::open(pair.ifindex);
    const Endpoint peer = endpoint("198.18.0.2");
    const auto sent = neighbours ? neighbours->send_by_kernel(peer, {}, 4000) : fail(neighbours.error());
    const bool is_found = sent && soon([&] {
                            neighbours->poll();
                            const auto hop = neighbours->resolve(peer.address);
                            return hop && *hop && (*hop)->destination_mac == kPeerMac;
                          });
    const std::string said = sent ? fmt::format("{} {}\n", *sent, is_found) : sent.error().text() + "\n";
    static_cast<void>(::write(out_fd, said.data(), said.size()) < 0);
  }));
  CHECK(value_of(child.read_line(10'000)) == "4000 true");
}

TEST_CASE("neighbours: after more changes than the kernel keeps, all is asked again") {
  const Pair pair;
  Neighbours neighbours = value_of(Neighbours::open(pair.ifindex));
  pair.neighbour({"replace", "198.18.0.2", "lladdr", "02:00:00:00:00:02", "nud", "permanent"});
  REQUIRE(becomes(neighbours, "198.18.0.2", kPeerMac));
  const std::string name = fmt::format("/tmp/{}", pair.here);
  {
    std::ofstream batch(name);
    for (int i = 0; i < 20000; ++i)
      batch << "neigh replace 198.18.0.2 lladdr 02:00:00:00:01:0" << i % 10 << " nud permanent dev near0\n";
    batch << "neigh replace 198.18.0.2 lladdr 02:00:00:00:00:03 nud permanent dev near0\n";
  }
  ip({"-n", pair.here, "-batch", name});
  ::unlink(name.c_str());
  CHECK(becomes(neighbours, "198.18.0.2", kOtherMac));
  REQUIRE(resolve(neighbours, "198.18.0.2"));
}
