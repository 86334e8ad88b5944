// SPDX-License-Identifier: Apache-2.0
//
// Owners of AF_XDP sockets that keep up, and that do not: by the real program, which meets a real socket in
// its map and the page that an owner writes. TEST_RUN redirects nothing, so that all of it goes on waiting.

#include <fmt/format.h>
#include <linux/bpf.h>
#include <sched.h>
#include <sys/mman.h>

#include <algorithm>
#include <catch2/catch_test_macros.hpp>
#include <memory>
#include <string>
#include <vector>

#include "base/clock.hpp"
#include "base/unique_fd.hpp"
#include "instance.hpp"
#include "kern/generation.hpp"
#include "kern/owner_page.hpp"
#include "lab/packet.hpp"
#include "path/xsk/grant.hpp"
#include "path/xsk/owner_page.hpp"
#include "policy/parse.hpp"

using namespace agentnic;
using model::Hook;

namespace {

constexpr std::uint64_t kMs = 1'000'000;
constexpr std::uint64_t kStart = 1'000'000 * kMs;
constexpr std::uint64_t kStale = ANIC_OWNER_STALE_NS;
constexpr std::uint32_t kRoom = 4;

constexpr const char* kPolicy = R"({"version": 1, "name": "one",
  "services": [{"name": "gate", "protocol": "udp", "port": 9000, "class": "rpc", "path": "xsk"}]})";

/// Of lo, in a namespace of its own: Linux 7 takes none into a map that is not bound.
UniqueFd bound_socket() {
  REQUIRE(::unshare(CLONE_NEWNET) == 0);
  auto grant = path::bind_xsk(
      {.ifname = "lo", .queues = {0}, .shape = {.frames = path::kXskFramesMin, .bind = path::XskBind::Copy}});
  REQUIRE(grant);
  return std::move(grant->queues[0].socket);
}

/// An instance, one of whose queues has an owner.
class Owned {
 public:
  Owned()
      : map_(kern::make_owner_page().value()),
        page_(path::OwnerPage::open(map_.get(), kRoom, ANIC_XSK_FRAME_MAX).value()) {
    instance_.install(policy::parse(kPolicy, "p").value());
    instance_.tick(kStart);
    REQUIRE(kern::enter_socket(instance_.maps().fd("anic_xsks"), 0, socket_.get()));
    REQUIRE(kern::enter_owner_page(instance_.maps().fd("anic_xsk_pages"), 0, map_.get()));
  }

  void close_socket() { socket_.reset(); }
  /// Ticks until then, 10 ms or what is left apart.
  void tick(std::uint64_t until_ns) {
    while (now_ns_ < until_ns) {
      now_ns_ = std::min<std::uint64_t>(now_ns_ + ANIC_OWNER_STEP_NS, until_ns);
      instance_.tick(now_ns_);
    }
  }
  /// One tick, late or not.
  void tick_once(std::uint64_t now_ns) {
    now_ns_ = now_ns;
    instance_.tick(now_ns);
  }

  /// How many of so many packets go to the socket; all others go to path A, for this reason.
  [[nodiscard]] std::size_t redirected(std::size_t packets,
                                       anic_reason otherwise = ANIC_REASON_PASS_STALLED) const {
    const std::vector<anic_test_packet> sent(
        packets, make_packet(lab::PacketBuilder().eth().ipv4().udp(1, 9000).payload(64).build()));
    std::size_t count = 0;
    for (const anic_test_result& result : instance_.run(Hook::Xdp, sent)) {
      if (result.reason == ANIC_REASON_REDIRECT_XSK) {
        CHECK(result.verdict == XDP_REDIRECT);
        ++count;
      } else {
        CHECK(result.verdict == XDP_PASS);
        CHECK(result.reason == otherwise);
      }
    }
    return count;
  }

  path::OwnerPage& page() { return page_; }
  /// The words of the page, those of XDP too.
  anic_owner& words() { return *words_; }

 private:
  struct Unmap {
    void operator()(anic_owner* words) const noexcept { ::munmap(words, sizeof(*words)); }
  };
  static std::unique_ptr<anic_owner, Unmap> map_words(int map_fd) {
    void* at = ::mmap(nullptr, sizeof(anic_owner), PROT_READ | PROT_WRITE, MAP_SHARED, map_fd, 0);
    REQUIRE(at != MAP_FAILED);
    return std::unique_ptr<anic_owner, Unmap>(static_cast<anic_owner*>(at));
  }

  Instance instance_;
  std::uint64_t now_ns_ = kStart;
  UniqueFd socket_ = bound_socket();
  UniqueFd map_;
  path::OwnerPage page_;
  std::unique_ptr<anic_owner, Unmap> words_ = map_words(map_.get());
};

}  // namespace

TEST_CASE("owner: what its rings do not hold takes path A, until it has taken some") {
  Owned owned;
  CHECK(owned.redirected(kRoom + 2) == kRoom);
  CHECK(owned.page().refused() == 2);
  CHECK(owned.redirected(1) == 0);
  owned.page().looked(kRoom - 1, kRoom);
  CHECK(owned.redirected(kRoom) == kRoom - 1);
  CHECK(owned.page().waits());
  owned.page().looked(kRoom, 1);
  CHECK_FALSE(owned.page().waits());
  CHECK(owned.redirected(3) == 1);  // it has given its buffers to others
}

TEST_CASE("owner: who gives no sign of life while frames wait is stalled, and back with the next sign") {
  Owned owned;
  CHECK(owned.redirected(1) == 1);
  owned.tick(kStart + kStale - 1);
  CHECK(owned.redirected(1) == 1);
  owned.tick(kStart + kStale);
  CHECK(owned.redirected(1) == 0);
  SECTION("looks at the ring that bring nothing are one, many of them") {
    for (int looks = 0; looks < 64; ++looks) owned.page().looked(0, kRoom);
    CHECK(owned.redirected(1) == 1);
    owned.tick(kStart + 2 * kStale);
    CHECK(owned.redirected(1) == 0);
  }
  SECTION("so is the end of a sleep") {
    owned.page().lives();
    CHECK(owned.redirected(1) == 1);
    owned.tick(kStart + 2 * kStale);
    CHECK(owned.redirected(1) == 0);
  }
  SECTION("frames that are taken are one") {
    owned.page().looked(2, kRoom);
    CHECK(owned.redirected(1) == 1);
  }
}

TEST_CASE("owner: who sleeps for long while nothing comes is not stalled") {
  Owned owned;
  CHECK(owned.redirected(2) == 2);
  owned.page().looked(2, kRoom);
  owned.tick(kStart + 10 * kStale);
  CHECK(owned.redirected(2) == 2);
  owned.tick(kStart + 11 * kStale - 1);
  CHECK(owned.redirected(1) == 1);
  owned.tick(kStart + 11 * kStale);
  CHECK(owned.redirected(1) == 0);
}

TEST_CASE("owner: a tick that comes late makes nobody stalled, however late") {
  Owned owned;
  CHECK(owned.redirected(1) == 1);
  owned.tick_once(kStart + 100 * kStale);
  CHECK(owned.redirected(1) == 1);
  owned.tick(kStart + 101 * kStale);
  CHECK(owned.redirected(1) == 0);
}

TEST_CASE("owner: what was lost on the way to its ring waits no longer once it is known") {
  Owned owned;
  CHECK(owned.redirected(kRoom) == kRoom);
  owned.page().looked(1, kRoom);
  owned.page().lost(2);
  owned.page().lost(2);  // in all, not once more
  CHECK(owned.redirected(kRoom) == kRoom - 1);
  owned.page().looked(kRoom, kRoom);
  CHECK_FALSE(owned.page().waits());
}

TEST_CASE("owner: with one that is gone, its queue is without a socket, whatever its page says") {
  Owned owned;
  CHECK(owned.redirected(kRoom) == kRoom);
  owned.close_socket();
  CHECK(owned.redirected(2, ANIC_REASON_PASS_NO_SOCKET) == 0);
  owned.tick(kStart + 10 * kStale);
  CHECK(owned.redirected(2, ANIC_REASON_PASS_NO_SOCKET) == 0);
  CHECK(owned.page().refused() == 0);
}

TEST_CASE("owner: what is longer than it has room for takes path A") {
  Owned owned;
  owned.words().longest = 100;  // 14 + 20 + 8 + 64 are more
  CHECK(owned.redirected(2, ANIC_REASON_PASS_TOO_LONG) == 0);
  owned.words().longest = 106;
  CHECK(owned.redirected(2) == 2);
}

TEST_CASE("owner: what it has room for less of is felt at the next tick, or when it has what it said") {
  Owned owned;
  CHECK(owned.redirected(1) == 1);
  owned.words().room = 0;  // no owner takes its word back: it has fewer buffers when it has taken more frames
  CHECK(owned.redirected(kRoom) == kRoom - 1);
  owned.tick(kStart + 1);
  CHECK(owned.redirected(1) == 0);
}

TEST_CASE("owner: one that says it has taken more than there was is sent what there is") {
  Owned owned;
  owned.page().looked(1000, kRoom);
  CHECK(owned.redirected(100) == 100);
}

TEST_CASE("owner: of 16 frames the first is a sample with its time, the next one after that is taken") {
  constexpr std::uint32_t kAmple = 1000;
  Owned owned;
  anic_owner& words = owned.words();
  owned.page().looked(0, kAmple);
  CHECK(words.sample_at == 0);

  const std::uint64_t before_ns = monotonic_ns();
  CHECK(owned.redirected(1) == 1);
  CHECK(words.sample_at == 1);
  const std::uint64_t sample_ns = words.sample_ns;
  CHECK(sample_ns >= before_ns);
  CHECK(sample_ns <= monotonic_ns());

  CHECK(owned.redirected(3 * ANIC_OWNER_SAMPLE_EVERY) == 3 * ANIC_OWNER_SAMPLE_EVERY);
  CHECK(words.sample_at == 1);
  CHECK(words.sample_ns == sample_ns);

  words.sampled = 1;
  CHECK(owned.redirected(ANIC_OWNER_SAMPLE_EVERY - 1) == ANIC_OWNER_SAMPLE_EVERY - 1);
  CHECK(words.sample_at == 1);
  CHECK(owned.redirected(1) == 1);
  CHECK(words.sent == 4 * ANIC_OWNER_SAMPLE_EVERY + 1);
  CHECK(words.sample_at == words.sent);
  CHECK(words.sample_ns > sample_ns);
}

TEST_CASE("owner: what takes path A is no sample") {
  Owned owned;
  owned.page().looked(0, 0);
  CHECK(owned.redirected(2 * ANIC_OWNER_SAMPLE_EVERY) == 0);
  CHECK(owned.words().sample_at == 0);
  CHECK(owned.words().sample_ns == 0);
}

TEST_CASE("owner: one that writes nonsense of samples gets all its frames, and no samples until it stops") {
  constexpr std::uint32_t kAmple = 1000;
  Owned owned;
  anic_owner& words = owned.words();
  owned.page().looked(0, kAmple);
  words.sampled = ~std::uint64_t{0};
  CHECK(owned.redirected(100) == 100);
  CHECK(words.sample_at == 0);
  words.sample_at = 77;  // XDP's own words too
  words.sample_ns = 1;
  words.sent = 5;
  CHECK(owned.redirected(100) == 100);
  CHECK(words.sent == 105);
  CHECK(words.sample_at == 77);
  words.sampled = 77;
  CHECK(owned.redirected(ANIC_OWNER_SAMPLE_EVERY) == ANIC_OWNER_SAMPLE_EVERY);
  CHECK(words.sample_at == 113);
  CHECK(words.sample_ns > 1);
}

TEST_CASE("owner: the xsk services in force are told with their owners") {
  const auto text = [](const char* name, const char* owner) {
    return fmt::format(R"({{"version": 1, "name": "{0}", "services": [
      {{"name": "slow", "protocol": "tcp", "port": 9001, "class": "bulk", "path": "kernel"}},
      {{"name": "{0}", "protocol": "udp", "port": 9000, "class": "rpc", "path": "xsk"{1}}},
      {{"name": "any", "protocol": "udp", "port": 9002, "class": "rpc", "path": "xsk"}}]}})",
                       name, owner);
  };
  Instance instance;
  const auto owners = [&] {
    std::vector<std::string> lines;
    const auto services = kern::xsk_services_in_force(instance.maps()).value();
    for (const kern::XskService& one : services)
      lines.push_back(fmt::format("{} {} {} {}", one.name, one.protocol, one.port, one.owner));
    return lines;
  };
  using Lines = std::vector<std::string>;
  CHECK(owners().empty());
  instance.install(policy::parse(text("gate", R"(, "owner": 1000)"), "p").value());
  CHECK(owners() == Lines{"gate 17 9000 1000", "any 17 9002 4294967295"});
  instance.install(policy::parse(text("gate", R"(, "owner": "root")"), "p").value());
  CHECK(owners() == Lines{"gate 17 9000 0", "any 17 9002 4294967295"});
}

TEST_CASE("owner: a socket without a page is sent all") {
  Instance instance;
  instance.install(policy::parse(kPolicy, "p").value());
  const UniqueFd socket = bound_socket();
  REQUIRE(kern::enter_socket(instance.maps().fd("anic_xsks"), 0, socket.get()));
  const std::vector<anic_test_packet> sent(
      10, make_packet(lab::PacketBuilder().eth().ipv4().udp(1, 9000).payload(64).build()));
  for (const anic_test_result& result : instance.run(Hook::Xdp, sent))
    CHECK(result.reason == ANIC_REASON_REDIRECT_XSK);
}
