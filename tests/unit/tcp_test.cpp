// SPDX-License-Identifier: Apache-2.0
// TCP over kernel sockets, on the loopback: what comes back is what was sent, however peers behave.

#include <netinet/in.h>
#include <sodium.h>
#include <sys/resource.h>

#include <algorithm>
#include <array>
#include <catch2/catch_test_macros.hpp>
#include <catch2/generators/catch_generators.hpp>
#include <chrono>
#include <cstdlib>
#include <optional>
#include <random>
#include <thread>
#include <vector>

#include "base/clock.hpp"
#include "base/stop.hpp"
#include "base/unique_fd.hpp"
#include "path/sockets/poller.hpp"
#include "path/sockets/tcp.hpp"
#include "path/sockets/tcp_echo.hpp"
#include "path/uring/tcp_echo.hpp"

using namespace agentnic;
using namespace agentnic::path;

namespace {

constexpr std::uint64_t kSecond = 1'000'000'000;
using Hash = std::array<unsigned char, crypto_hash_sha256_BYTES>;

enum class Engine { Epoll, Uring };
Engine any_engine() { return GENERATE(Engine::Epoll, Engine::Uring); }

/// An echo server on a port of its own, in a thread of its own.
class Server {
 public:
  explicit Server(Engine engine, const char* host = "127.0.0.1", Wait wait = Wait::Block,
                  const UringEchoOptions& options = {}) {
    auto listener = TcpListener::listen(Address::parse(host, 0).value());
    REQUIRE(listener);
    address_ = Address::of_socket(listener->fd()).value();
    if (engine == Engine::Epoll) {
      auto echo = TcpEcho::open(std::move(*listener));
      REQUIRE(echo);
      epoll_.emplace(std::move(*echo));
    } else {
      auto echo = UringEcho::open(std::move(*listener), options);
      REQUIRE(echo);
      uring_.emplace(std::move(*echo));
    }
    thread_ = std::jthread([this, wait](const std::stop_token& stop) {
      counters_ = epoll_ ? epoll_->run(wait, stop) : uring_->run(wait, stop).value();
    });
  }
  [[nodiscard]] const Address& address() const { return address_; }
  const TcpEchoCounters& stop() {
    thread_.request_stop();
    if (thread_.joinable()) thread_.join();
    return counters_;
  }
  /// Of one that has stopped.
  [[nodiscard]] const UringCounters& uring() const { return uring_->more(); }

 private:
  Address address_;
  std::optional<TcpEcho> epoll_;
  std::optional<UringEcho> uring_;
  TcpEchoCounters counters_;
  std::jthread thread_;
};

TcpStream connected(const Server& server, const SocketOptions& options = {}) {
  auto stream = TcpStream::connect(server.address(), options, 30'000);
  INFO((stream ? "" : stream.error().text()));
  REQUIRE(stream);
  return std::move(*stream);
}

/// Bytes that no two places of a stream share for long.
std::vector<std::byte> content(std::size_t size, std::uint32_t seed) {
  std::vector<std::byte> bytes(size);
  std::mt19937 random(seed);
  for (std::size_t i = 0; i < size; ++i) bytes[i] = static_cast<std::byte>(random());
  return bytes;
}

Hash hash_of(std::span<const std::byte> bytes) {
  Hash hash{};
  crypto_hash_sha256(hash.data(), reinterpret_cast<const unsigned char*>(bytes.data()), bytes.size());
  return hash;
}

/// Sends all, `piece` bytes at a time, and reads as it goes; what came back until the peer ended it, at most
/// for `limit_s`. In any thread.
std::vector<std::byte> exchange(TcpStream& stream, std::span<const std::byte> out, std::size_t piece,
                                std::uint64_t limit_s = 60) {
  std::vector<std::byte> in(out.size());
  std::size_t sent = 0;
  std::size_t got = 0;
  const std::uint64_t end = monotonic_ns() + limit_s * kSecond;
  while (got < in.size() && monotonic_ns() < end) {
    if (sent < out.size()) {
      const Moved moved = stream.send(out.subspan(sent, std::min(piece, out.size() - sent)));
      if (moved.state != StreamState::Open) break;
      sent += moved.bytes;
    }
    const Moved moved = stream.receive(std::span(in).subspan(got));
    if (moved.state != StreamState::Open) break;
    got += moved.bytes;
    if (moved.bytes == 0) stream.wait(true, sent < out.size(), kSecond / 10);
  }
  in.resize(got);
  return in;
}

/// The peer's end is gone with a reset. In any thread.
void reset(TcpStream stream) {
  const linger at_once{.l_onoff = 1, .l_linger = 0};
  ::setsockopt(stream.fd(), SOL_SOCKET, SO_LINGER, &at_once, sizeof(at_once));
}

/// Limits of this process for a while.
class Descriptors {
 public:
  explicit Descriptors(rlim_t soft) {
    ::getrlimit(RLIMIT_NOFILE, &before_);
    rlimit now = before_;
    now.rlim_cur = std::min(soft, before_.rlim_max);
    ::setrlimit(RLIMIT_NOFILE, &now);
    limit_ = now.rlim_cur;
  }
  Descriptors(const Descriptors&) = delete;
  Descriptors& operator=(const Descriptors&) = delete;
  ~Descriptors() { ::setrlimit(RLIMIT_NOFILE, &before_); }
  [[nodiscard]] rlim_t limit() const { return limit_; }

 private:
  rlimit before_{};
  rlim_t limit_ = 0;
};

}  // namespace

TEST_CASE("tcp: what is echoed is what was sent, from a byte to 64 MiB, over IPv4 and IPv6") {
  const char* host = GENERATE("127.0.0.1", "::1");
  const Wait wait = GENERATE(Wait::Block, Wait::Spin);
  Server server(any_engine(), host, wait);
  std::uint64_t bytes = 0;
  for (const std::size_t size : {std::size_t{1}, std::size_t{64}, std::size_t{1460}, std::size_t{8192},
                                 std::size_t{65537}, std::size_t{1 << 20}, std::size_t{64 << 20}}) {
    if (size > (1 << 20) && wait == Wait::Spin) continue;
    INFO(size << " bytes from " << host);
    TcpStream stream = connected(server);
    const auto out = content(size, static_cast<std::uint32_t>(size));
    const auto in = exchange(stream, out, std::max<std::size_t>(size / 7, 1));
    REQUIRE(in.size() == size);
    REQUIRE(hash_of(in) == hash_of(out));
    stream.end();
    std::byte more{};
    stream.wait(true, false, kSecond);
    CHECK(stream.receive({&more, 1}).state == StreamState::Ended);
    bytes += size;
  }
  const auto& counters = server.stop();
  CHECK(counters.bytes == bytes);
  CHECK(counters.ended == counters.accepted);
  CHECK(counters.reset == 0);
}

TEST_CASE("tcp: who is slow to read is not read from, and gets all of it in the end") {
  Server server(any_engine());
  TcpStream slow = connected(server, {.buffer_bytes = 8192});
  auto out = content(64 << 20, 7);  // more than the kernel keeps for both directions (tcp_rmem, tcp_wmem)
  std::size_t sent = 0;
  for (int idle = 0; idle < 20 && sent < out.size();) {  // until nothing fits any more
    const Moved moved = slow.send(std::span(out).subspan(sent));
    REQUIRE(moved.state == StreamState::Open);
    sent += moved.bytes;
    idle = moved.bytes == 0 ? idle + 1 : 0;
    if (moved.bytes == 0) slow.wait(false, true, kSecond / 50);
  }
  REQUIRE(sent < out.size());
  out.resize(std::min(out.size(), sent + (1 << 20)));
  TcpStream other = connected(server);  // it is in nobody's way
  const auto small = content(1000, 1);
  CHECK(exchange(other, small, 1000) == small);
  std::vector<std::byte> in(out.size());
  std::size_t got = 0;
  for (const std::uint64_t end = monotonic_ns() + 60 * kSecond; got < in.size() && monotonic_ns() < end;) {
    got += slow.receive(std::span(in).subspan(got)).bytes;
    if (sent < out.size()) sent += slow.send(std::span(out).subspan(sent)).bytes;
  }
  CHECK(got == out.size());
  CHECK(hash_of(in) == hash_of(out));
  CHECK(server.stop().slow > 0);
}

TEST_CASE("tcp: a connect that signals interrupt goes on") {
  const auto address = Address::parse("127.0.0.1", 0);
  REQUIRE(address);
  const UniqueFd listener(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  REQUIRE(::bind(listener.get(), address->get(), address->length) == 0);
  REQUIRE(::listen(listener.get(), 0) == 0);  // one is let in, the next asks again after a second
  const auto port = Address::of_socket(listener.get());
  REQUIRE(port);
  const auto first = TcpStream::connect(*port);
  REQUIRE(first);
  const std::jthread later([&] {
    std::this_thread::sleep_for(std::chrono::milliseconds(300));
    const UniqueFd accepted(::accept4(listener.get(), nullptr, nullptr, SOCK_CLOEXEC));
  });
  const WakeUps signals;
  const auto second = TcpStream::connect(*port, {}, 30'000);
  INFO((second ? "" : second.error().text()));
  CHECK(second);
}

TEST_CASE("tcp: a reset in any state ends that connection, and no other") {
  Server server(any_engine());
  TcpStream other = connected(server);
  reset(connected(server));  // of one that said nothing
  {
    TcpStream stream = connected(server);  // ... whose answer is not read
    REQUIRE(stream.send(content(5000, 2)).bytes == 5000);
    stream.wait(true, false, kSecond);
    reset(std::move(stream));
  }
  {
    TcpStream stream = connected(server, {.buffer_bytes = 4096});  // ... to which the server has more to say
    const auto out = content(4 << 20, 3);
    for (int i = 0; i < 20; ++i) {
      static_cast<void>(stream.send(out));
      stream.wait(false, true, kSecond / 50);
    }
    reset(std::move(stream));
  }
  {
    TcpStream stream = connected(server);  // ... that had ended its half
    REQUIRE(stream.send(content(100, 4)).bytes == 100);
    stream.end();
    reset(std::move(stream));
  }
  const auto out = content(100'000, 5);
  CHECK(exchange(other, out, 3000) == out);
  other.end();
  std::byte more{};
  other.wait(true, false, kSecond);
  CHECK(other.receive({&more, 1}).state == StreamState::Ended);
  const auto& counters = server.stop();
  CHECK(counters.accepted == 5);
  CHECK(counters.ended + counters.reset == 5);
  CHECK(counters.reset >= 2);
}

TEST_CASE("tcp: 4,000 connections at once are served") {
  const Descriptors descriptors(16'384);
  const std::size_t count = 4000;
  if (descriptors.limit() < 2 * count + 100)
    SKIP("this process may have " << descriptors.limit() << " descriptors");
  Server server(any_engine());
  std::vector<TcpStream> streams;
  for (std::size_t i = 0; i < count; ++i) streams.push_back(connected(server));
  const auto out = content(300, 9);
  for (TcpStream& stream : streams) REQUIRE(stream.send(out).bytes == out.size());
  for (TcpStream& stream : streams) {
    std::vector<std::byte> in(out.size());
    for (std::size_t got = 0; got < in.size();) {
      const Moved moved = stream.receive(std::span(in).subspan(got));
      REQUIRE(moved.state == StreamState::Open);
      got += moved.bytes;
      if (moved.bytes == 0) stream.wait(true, false, kSecond);
    }
    REQUIRE(in == out);
  }
  const auto& counters = server.stop();
  CHECK(counters.accepted == count);
  CHECK(counters.most == count);
}

// Of one second; make soak has more, from the environment.
TEST_CASE("tcp: clients of all kinds come and go, and each gets what it sent") {
  const char* wanted = std::getenv("AGENTNIC_SECONDS");
  const std::uint64_t end_ns =
      monotonic_ns() + static_cast<std::uint64_t>(wanted != nullptr ? std::atoi(wanted) : 1) * kSecond;
  constexpr std::size_t kClients = 12;
  Server server(any_engine(), "127.0.0.1", Wait::Block, {.buffers = 64, .buffer_bytes = 4096});
  std::array<std::uint64_t, kClients> rounds{};
  std::array<std::uint64_t, kClients> wrong{};
  {
    std::vector<std::jthread> clients;
    for (std::size_t client = 0; client < kClients; ++client) {
      clients.emplace_back([&, client] {
        std::mt19937 random(static_cast<std::uint32_t>(client));
        while (monotonic_ns() < end_ns || rounds[client] == 0) {
          auto stream = TcpStream::connect(server.address(), {.buffer_bytes = client % 3 == 0 ? 8192 : 0});
          if (!stream) continue;
          const auto out = content(1 + random() % 300'000, random());
          ++rounds[client];
          switch (random() % 4) {
            case 0:  // goes in the middle, without a word
              static_cast<void>(stream->send(out));
              reset(std::move(*stream));
              break;
            case 1: {  // says all before it listens, as far as that goes
              std::size_t sent = 0;
              for (int idle = 0; sent < out.size() && idle < 3;) {
                const Moved moved = stream->send(std::span(out).subspan(sent));
                sent += moved.bytes;
                idle = moved.bytes == 0 ? idle + 1 : 0;
                if (moved.bytes == 0) stream->wait(false, true, kSecond / 100);
              }
              std::vector<std::byte> in(sent);
              std::size_t got = 0;
              while (got < sent && monotonic_ns() < end_ns + 60 * kSecond) {
                const Moved moved = stream->receive(std::span(in).subspan(got));
                if (moved.state != StreamState::Open) break;
                got += moved.bytes;
                if (moved.bytes == 0) stream->wait(true, false, kSecond / 10);
              }
              if (got != sent || !std::equal(in.begin(), in.end(), out.begin())) ++wrong[client];
              break;
            }
            default:
              if (exchange(*stream, out, 1 + random() % 20'000) != out) ++wrong[client];
          }
        }
      });
    }
  }
  CHECK(std::ranges::count(wrong, 0U) == kClients);
  std::uint64_t connections = 0;
  for (const std::uint64_t count : rounds) connections += count;
  const auto& counters = server.stop();
  CHECK(counters.accepted <= connections);
  CHECK(counters.ended + counters.reset <= counters.accepted);
  CHECK(counters.bytes > 0);
}

TEST_CASE("tcp: over io_uring, few small buffers do for many connections, and each gets its own bytes") {
  const std::size_t zerocopy_from = GENERATE(SIZE_MAX, std::size_t{512});
  Server server(Engine::Uring, "127.0.0.1", Wait::Block,
                {.buffers = 4, .buffer_bytes = 1024, .zerocopy_from = zerocopy_from});
  std::vector<TcpStream> streams;
  for (int i = 0; i < 50; ++i) streams.push_back(connected(server));
  std::vector<std::jthread> askers;
  std::array<bool, 50> same{};
  for (std::size_t i = 0; i < streams.size(); ++i) {
    askers.emplace_back([&, i] {
      const auto out = content(200'000, static_cast<std::uint32_t>(i));
      same[i] = exchange(streams[i], out, 5000) == out;
    });
  }
  askers.clear();
  CHECK(std::ranges::count(same, true) == 50);
  CHECK(server.stop().bytes == 50 * 200'000);
  CHECK(server.uring().starved > 0);
  CHECK((server.uring().zerocopy > 0) == (zerocopy_from != SIZE_MAX));
  CHECK(server.uring().copied <= server.uring().zerocopy);
}

TEST_CASE("tcp: over io_uring, who comes when all places are taken is turned away, until somebody goes") {
  Server server(Engine::Uring, "127.0.0.1", Wait::Block, {.connections = 4});
  const auto out = content(10, 1);
  std::vector<TcpStream> streams;
  for (int i = 0; i < 4; ++i) {
    streams.push_back(connected(server));
    REQUIRE(exchange(streams.back(), out, 10) == out);
  }
  {
    TcpStream fifth = connected(server);  // by the kernel; nobody has taken it
    std::byte more{};
    fifth.wait(true, false, 10 * kSecond);
    CHECK(fifth.receive({&more, 1}).state != StreamState::Open);
  }
  streams.pop_back();
  bool served = false;
  for (int i = 0; i < 20 && !served; ++i) {
    TcpStream again = connected(server);
    if (again.send(out).bytes != out.size()) continue;
    again.wait(true, false, kSecond);
    std::vector<std::byte> in(out.size());
    served = again.receive(in).bytes == in.size();
  }
  CHECK(served);
  CHECK(server.stop().full > 0);
}

TEST_CASE("tcp: without descriptors nobody more is accepted, until somebody goes") {
  Server server(Engine::Epoll);
  std::vector<TcpStream> streams;
  streams.push_back(connected(server));
  const auto out = content(10, 1);
  REQUIRE(exchange(streams.front(), out, 10) == out);
  {
    // Of what follows each takes two: this end's, and the server's.
    const Descriptors descriptors(static_cast<rlim_t>(streams.front().fd()) + 8);
    for (int i = 0; i < 20; ++i) {
      auto stream = TcpStream::connect(server.address());
      if (!stream) break;
      streams.push_back(std::move(*stream));
    }
    REQUIRE(streams.size() > 2);
    while (streams.size() > 2) {
      streams.pop_back();
      std::this_thread::sleep_for(std::chrono::milliseconds(2));
    }
    CHECK(exchange(streams.back(), out, 10) == out);
  }
  TcpStream after = connected(server);
  CHECK(exchange(after, out, 10) == out);
  CHECK(server.stop().full > 0);
}

TEST_CASE("tcp: who is not there, and a port that is taken, are told") {
  Address nobody;
  {
    auto listener = TcpListener::listen(Address::parse("127.0.0.1", 0).value());
    REQUIRE(listener);
    nobody = Address::of_socket(listener->fd()).value();
    const auto second = TcpListener::listen(nobody);
    REQUIRE_FALSE(second);
    CHECK(second.error().what.starts_with("listen at 127.0.0.1:"));
  }
  const auto refused = TcpStream::connect(nobody);
  REQUIRE_FALSE(refused);
  CHECK(refused.error().what.starts_with("connect to 127.0.0.1:"));
}

TEST_CASE("tcp: the kernel has few buffers, more when they do not last, and few again when they do") {
  constexpr std::uint32_t kAll = 64;
  auto ring = Ring::open({.submissions = 16, .completions = 64});
  REQUIRE(ring);
  auto buffers = ReceiveBuffers::open(*ring, 0, kAll, 1024);
  REQUIRE(buffers);
  const std::size_t few = buffers->there();
  CHECK(few > 0);
  CHECK(few < kAll);
  for (int i = 0; i < 10; ++i) buffers->missed();  // by many at once
  buffers->publish();
  CHECK(buffers->there() == 2 * few);
  for (int i = 0; i < 10; ++i) {
    buffers->missed();
    buffers->publish();
  }
  CHECK(buffers->there() == kAll);
  // One is taken and comes back, again and again: the others are not needed.
  for (int i = 0; i < 20'000; ++i) {
    buffers->taken();
    buffers->give_back(0);
    buffers->publish();
  }
  for (std::size_t i = buffers->there(); i > 0; --i) buffers->taken();
  CHECK_FALSE(buffers->all_taken());
  buffers->publish();
  CHECK(buffers->there() == few);
}

TEST_CASE("tcp: epoll's own busy polling is turned on, or said to be missing") {
  const auto poller = Poller::open({.us = 50});
  if (!poller) {
    CHECK(poller.error().exit == Exit::Unsupported);
    CHECK(poller.error().hint == "it takes Linux 6.9");
  }
}
