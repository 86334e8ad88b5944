// SPDX-License-Identifier: Apache-2.0
// Path C by itself: two queue pairs of one device, joined. Hidden: tests/net/rdma.sh runs these where there
// is a device, whose address is in AGENTNIC_RDMA_ADDRESS. AGENTNIC_RDMA_MIB: how large the largest transfer
// is.

#include <poll.h>
#include <sodium.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <catch2/catch_test_macros.hpp>
#include <catch2/generators/catch_generators.hpp>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "base/clock.hpp"
#include "base/user.hpp"
#include "path/rdma/device.hpp"
#include "path/rdma/memory.hpp"
#include "path/rdma/queue_pair.hpp"

using namespace agentnic;
using namespace agentnic::path;

namespace {

constexpr std::uint64_t kLimitNs = 120'000'000'000;
constexpr unsigned kRemote = IBV_ACCESS_REMOTE_WRITE | IBV_ACCESS_REMOTE_READ;
constexpr std::uint32_t kPiece = 64 << 10;
constexpr std::uint32_t kDepth = 16;
using Hash = std::array<unsigned char, crypto_hash_sha256_BYTES>;

Address device_address() {
  const char* address = std::getenv("AGENTNIC_RDMA_ADDRESS");
  if (address == nullptr) SKIP("AGENTNIC_RDMA_ADDRESS names no device's address");
  return Address::parse(address, 0).value();
}

Hash hash_of(std::span<const std::byte> bytes) {
  Hash hash{};
  crypto_hash_sha256(hash.data(), reinterpret_cast<const unsigned char*>(bytes.data()), bytes.size());
  return hash;
}

void fill(std::span<std::byte> bytes) {
  std::mt19937_64 random(bytes.size());
  for (std::size_t at = 0; at + 8 <= bytes.size(); at += 8) {
    const std::uint64_t word = random();
    std::memcpy(bytes.data() + at, &word, sizeof(word));
  }
}

/// A queue pair with memory of its own.
struct End {
  RdmaMemory memory;
  QueuePair pair;

  static End open(const RdmaDevice& device, std::size_t bytes, const QueuePairOptions& options) {
    auto memory = RdmaMemory::open(device, bytes, IBV_ACCESS_LOCAL_WRITE | kRemote);
    if (!memory) FAIL(memory.error().text());
    auto pair = QueuePair::open(device, kRemote, options);
    if (!pair) FAIL(pair.error().text());
    return {std::move(*memory), std::move(*pair)};
  }
  [[nodiscard]] LocalRange range(std::size_t at, std::uint32_t bytes) const {
    return {.at = memory.bytes().data() + at, .bytes = bytes, .key = memory.local_key()};
  }
  [[nodiscard]] RemoteRange remote(std::size_t at) const {
    return {.address = memory.address() + at, .key = memory.remote_key()};
  }
  /// The next completions, asleep until there are some.
  std::vector<Completion> wait() {
    const std::uint64_t end_ns = monotonic_ns() + kLimitNs;
    while (monotonic_ns() < end_ns) {
      for (int look = 0; look < 2; ++look) {
        const auto done = pair.poll();
        if (!done) FAIL(done.error().text());
        if (!done->empty()) return {done->begin(), done->end()};
        if (look == 0) REQUIRE(pair.arm());
      }
      pollfd waiting{pair.event_fd(), POLLIN, 0};
      ::poll(&waiting, 1, 1000);
      pair.take_events();
    }
    FAIL("nothing completed");
    return {};
  }
  /// So many, which are to be good, at least; how many there were.
  std::size_t wait_for_good(std::size_t count = 1) {
    std::size_t done = 0;
    while (done < count) {
      for (const Completion& one : wait()) {
        if (one.status != IBV_WC_SUCCESS) FAIL(completion_text(one));
        ++done;
      }
    }
    return done;
  }
};

/// Two ends on one device, which outlives them.
struct Joined {
  std::unique_ptr<RdmaDevice> device;
  End near;
  End far;
};

Joined join(std::size_t bytes, QueuePairOptions options = {}) {
  options.sends = options.receives = kDepth;
  auto opened = RdmaDevice::open(device_address());
  if (!opened) FAIL(opened.error().text());
  auto device = std::make_unique<RdmaDevice>(std::move(*opened));
  End near = End::open(*device, bytes, options);
  End far = End::open(*device, bytes, options);
  REQUIRE(near.pair.connect(far.pair.endpoint()));
  REQUIRE(far.pair.connect(near.pair.endpoint()));
  return {std::move(device), std::move(near), std::move(far)};
}

/// The first completion that is no success.
Completion first_failure(End& end) {
  while (true) {
    for (const Completion& one : end.wait()) {
      if (one.status != IBV_WC_SUCCESS) return one;
    }
  }
}

}  // namespace

TEST_CASE("rdma: what is sent, written and read arrives whole", "[.rdma]") {
  const char* most = std::getenv("AGENTNIC_RDMA_MIB");
  const std::size_t bytes = GENERATE(kPiece, 1UL << 20U, 0UL);
  const std::size_t size =
      bytes != 0 ? bytes : std::strtoul(most != nullptr ? most : "4", nullptr, 10) << 20U;
  const std::string operation = GENERATE("send", "write", "write with immediate", "read");
  INFO(operation << " of " << size << " bytes");
  Joined joined = join(size);
  End& near = joined.near;
  End& far = joined.far;
  const bool reads = operation == "read";
  fill((reads ? far : near).memory.bytes());
  const bool notices = operation == "send" || operation == "write with immediate";
  std::size_t under_way = 0;
  for (std::size_t at = 0; at < size; at += kPiece) {
    if (notices) REQUIRE(far.pair.receive(at, operation == "send" ? far.range(at, kPiece) : LocalRange{}));
    const LocalRange here = near.range(at, kPiece);
    if (operation == "send") {
      REQUIRE(near.pair.send(at, here));
    } else if (reads) {
      REQUIRE(near.pair.read(at, here, far.remote(at)));
    } else {
      REQUIRE(near.pair.write(at, here, far.remote(at),
                              notices ? std::optional<std::uint32_t>(at / kPiece) : std::nullopt));
    }
    ++under_way;
    if (under_way < kDepth && at + kPiece < size) continue;
    REQUIRE(near.wait_for_good(under_way) == under_way);
    if (notices) {
      std::size_t told = 0;
      while (told < under_way) {
        for (const Completion& one : far.wait()) {
          if (one.status != IBV_WC_SUCCESS) FAIL(completion_text(one));
          REQUIRE(one.received);
          REQUIRE(one.bytes == kPiece);
          if (operation != "send") REQUIRE(one.immediate == one.id / kPiece);
          ++told;
        }
      }
    }
    under_way = 0;
  }
  CHECK(hash_of(near.memory.bytes().first(size)) == hash_of(far.memory.bytes().first(size)));
  CHECK(near.memory.registration_ns() > 0);
}

TEST_CASE("rdma: thousands of small messages arrive in order, inline, and the receiver is never overrun",
          "[.rdma]") {
  constexpr std::uint32_t kMessages = 4000;
  Joined joined = join(kPiece);
  End& near = joined.near;
  End& far = joined.far;
  REQUIRE(near.pair.inline_bytes() >= sizeof(std::uint32_t));
  std::uint32_t posted = 0;
  const auto wait_for_one = [&] {
    REQUIRE(far.pair.receive(posted, far.range((posted % kDepth) * 64, 64)));
    ++posted;
  };
  while (posted < kDepth) wait_for_one();
  std::uint32_t sent = 0;
  std::uint32_t taken = 0;
  std::uint32_t under_way = 0;
  while (taken < kMessages) {
    // A credit for each receive that waits; a local variable, which inline data may be.
    while (sent < kMessages && sent < posted && under_way < kDepth) {
      std::uint32_t number = sent;
      REQUIRE(near.pair.send(
          sent, {.at = reinterpret_cast<std::byte*>(&number), .bytes = sizeof(number), .key = 0}, sent));
      number = ~0U;
      ++sent;
      ++under_way;
    }
    // Whatever was sent has arrived: room to send more is what is missing.
    if (taken == sent) {
      under_way -= static_cast<std::uint32_t>(near.wait_for_good());
      continue;
    }
    for (const Completion& one : far.wait()) {
      if (one.status != IBV_WC_SUCCESS) FAIL(completion_text(one));
      std::uint32_t number = 0;
      std::memcpy(&number, far.memory.bytes().data() + (one.id % kDepth) * 64, sizeof(number));
      REQUIRE(number == taken);
      REQUIRE(one.immediate == taken);
      ++taken;
      if (posted < kMessages) wait_for_one();
    }
  }
}

TEST_CASE(
    "rdma: a peer that waits for nothing, one that is not there, and one whose memory is another's are told "
    "apart",
    "[.rdma]") {
  SECTION("nothing to receive into") {
    Joined joined = join(kPiece, {.rnr_retries = 1, .rnr_timer = 1});
    REQUIRE(joined.near.pair.send(1, joined.near.range(0, 1024)));
    const Completion failed = first_failure(joined.near);
    CHECK(failed.status == IBV_WC_RNR_RETRY_EXC_ERR);
    CHECK(completion_text(failed).find("nothing to receive it into") != std::string::npos);
    const std::uint64_t end_ns = monotonic_ns() + kLimitNs;  // the device says so before it is so
    while (joined.near.pair.state() != IBV_QPS_ERR && monotonic_ns() < end_ns) {
    }
    CHECK(joined.near.pair.state() == IBV_QPS_ERR);
    // What comes after it is flushed, and says so.
    if (joined.near.pair.send(2, joined.near.range(0, 1024)))
      CHECK(first_failure(joined.near).status == IBV_WC_WR_FLUSH_ERR);
  }
  SECTION("nobody there") {
    Joined joined = join(kPiece, {.timeout = 10, .retries = 1});
    {
      const QueuePair gone = std::move(joined.far.pair);
    }
    REQUIRE(joined.near.pair.write(1, joined.near.range(0, 1024), joined.far.remote(0)));
    const Completion failed = first_failure(joined.near);
    CHECK(failed.status == IBV_WC_RETRY_EXC_ERR);
    CHECK(completion_text(failed).find("does not answer") != std::string::npos);
    joined.far.pair = QueuePair::open(*joined.device, 0).value();
  }
  SECTION("memory that is not the peer's") {
    Joined joined = join(kPiece);
    RemoteRange wrong = joined.far.remote(0);
    const auto way = GENERATE(0, 1);
    if (way == 0) wrong.key ^= 0x5a;
    if (way == 1) wrong.address += kPiece;  // beyond its end
    fill(joined.near.memory.bytes());
    const Hash before = hash_of(joined.far.memory.bytes());
    REQUIRE(joined.near.pair.write(1, joined.near.range(0, 1024), wrong));
    const Completion failed = first_failure(joined.near);
    CHECK(failed.status == IBV_WC_REM_ACCESS_ERR);
    CHECK(completion_text(failed).find("no such memory") != std::string::npos);
    CHECK(hash_of(joined.far.memory.bytes()) == before);
  }
}

TEST_CASE("rdma: a queue pair that is given up flushes what it waits for, and another takes its place",
          "[.rdma]") {
  Joined joined = join(kPiece);
  for (std::uint64_t i = 0; i < kDepth; ++i) REQUIRE(joined.near.pair.receive(i, joined.near.range(0, 64)));
  REQUIRE(joined.near.pair.give_up());
  std::size_t flushed = 0;
  while (flushed < kDepth) {
    for (const Completion& one : joined.near.wait()) {
      CHECK(one.status == IBV_WC_WR_FLUSH_ERR);
      ++flushed;
    }
  }
  joined.near.pair = QueuePair::open(*joined.device, kRemote, {.sends = kDepth, .receives = kDepth}).value();
  joined.far.pair = QueuePair::open(*joined.device, kRemote, {.sends = kDepth, .receives = kDepth}).value();
  REQUIRE(joined.near.pair.connect(joined.far.pair.endpoint()));
  REQUIRE(joined.far.pair.connect(joined.near.pair.endpoint()));
  fill(joined.near.memory.bytes());
  REQUIRE(joined.near.pair.write(1, joined.near.range(0, kPiece), joined.far.remote(0)));
  CHECK(joined.near.wait_for_good() == 1);
  CHECK(hash_of(joined.near.memory.bytes().first(kPiece)) ==
        hash_of(joined.far.memory.bytes().first(kPiece)));
}

TEST_CASE("rdma: an address that no device has is refused with those that there are", "[.rdma]") {
  device_address();
  const auto none = RdmaDevice::open(Address::parse("203.0.113.77", 0).value());
  REQUIRE_FALSE(none);
  CHECK(none.error().exit == Exit::Unsupported);
  CHECK(none.error().what.find("rxe0 port 1 (198.18.1.1)") != std::string::npos);
  const auto named = RdmaDevice::open(device_address(), "mlx5_7");
  REQUIRE_FALSE(named);
  CHECK(named.error().what.find("no device mlx5_7") != std::string::npos);
}

TEST_CASE("rdma: memory beyond the limit is refused before the device is asked, with the remedy", "[.rdma]") {
  const Address address = device_address();
  const pid_t child = ::fork();
  if (child == 0) {  // which gives privileges up
    const rlimit limit{.rlim_cur = 256 << 10, .rlim_max = 256 << 10};
    ::setrlimit(RLIMIT_MEMLOCK, &limit);
    if (!keep_capabilities({})) ::_exit(2);
    const auto device = RdmaDevice::open(address);
    if (!device) ::_exit(3);
    const auto fits = RdmaMemory::open(*device, 128 << 10, IBV_ACCESS_LOCAL_WRITE);
    if (!fits) ::_exit(4);
    const auto memory = RdmaMemory::open(*device, 1 << 20, IBV_ACCESS_LOCAL_WRITE);
    ::_exit(!memory && memory.error().hint.find("ulimit -l") != std::string::npos ? 0 : 5);
  }
  int status = -1;
  REQUIRE(::waitpid(child, &status, 0) == child);
  CHECK(WIFEXITED(status));
  CHECK(WEXITSTATUS(status) == 0);
}
