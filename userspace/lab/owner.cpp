// SPDX-License-Identifier: Apache-2.0
#include "lab/owner.hpp"

#include <fmt/format.h>

#include <sys/wait.h>

#include <array>
#include <cerrno>
#include <csignal>
#include <cstring>
#include <string>
#include <vector>

#include "abi/owner.h"
#include "base/clock.hpp"
#include "base/process.hpp"
#include "base/stop.hpp"
#include "kern/netns.hpp"
#include "lab/pairs.hpp"
#include "path/sockets/udp.hpp"

namespace agentnic::lab {
namespace {

constexpr int kRepeats = 11;
constexpr std::size_t kSize = 64;
constexpr int kBefore = 200;  // answers by the owner
constexpr std::uint64_t kBetweenNs = 500'000;
constexpr std::uint64_t kPatienceNs = 5'000'000'000;
constexpr double kTargetMs = 100;

/// A server of kXskPort, once it is ready.
Result<Child> serve(const Bench& bench, const std::vector<std::string>& words) {
  Argv argv = {bench.program, "serve", "--netns", bench.lab.server.netns,
               "--wait",      "block", "--cpu",   std::to_string(bench.server_cpu),
               "--json"};
  argv.insert(argv.end(), words.begin(), words.end());
  Child child = ANIC_TRY(Child::start(argv));
  ANIC_TRY(child.read_line(kAnswerMs));
  return child;
}

/// Asks again and again, with a number; whether an answer came to one that is not before `first`.
class Asker {
 public:
  explicit Asker(path::UdpSocket socket) : socket_(std::move(socket)) {}

  [[nodiscard]] std::uint64_t next() const { return number_; }
  bool ask(std::uint64_t first) {
    std::array<std::byte, kSize> request{};
    std::memcpy(request.data(), &number_, sizeof(number_));
    ++number_;
    (void)socket_.send(request);
    const std::uint64_t until = monotonic_ns() + kBetweenNs;
    for (std::uint64_t now = monotonic_ns(); now < until; now = monotonic_ns()) {
      std::array<std::byte, kSize> answer{};
      std::uint64_t answered = 0;
      if (!socket_.receive(answer, path::Wait::Spin)) continue;
      std::memcpy(&answered, answer.data(), sizeof(answered));
      if (answered >= first) return true;
    }
    return false;
  }

 private:
  path::UdpSocket socket_;
  std::uint64_t number_ = 0;
};

/// From the moment that the owner is stopped to the first answer to what was asked after it.
Result<double> failover_ms(const Bench& bench) {
  const Child owner = ANIC_TRY(serve(bench, {"--transport", "xsk", "--iface", bench.lab.server.ifname}));
  const Child kernel = ANIC_TRY(serve(
      bench, {"--transport", "udp", "--address", bench.lab.server.ipv4, "--port", std::to_string(kXskPort)}));
  const kern::NetNs client = ANIC_TRY(kern::NetNs::open(bench.lab.client.netns));
  const path::Address server = ANIC_TRY(path::Address::parse(bench.lab.server.ipv4, kXskPort));
  Asker asker(ANIC_TRY(client.run([&] { return path::UdpSocket::connect(server); })));
  int answers = 0;
  for (int i = 0; i < kBefore; ++i) answers += asker.ask(asker.next()) ? 1 : 0;
  if (answers == 0) return fail(Exit::Failed, "the owner of an AF_XDP socket does not answer");
  const std::uint64_t begun = monotonic_ns();
  if (::kill(owner.pid(), SIGSTOP) != 0 || ::waitpid(owner.pid(), nullptr, WUNTRACED) != owner.pid())
    return fail_errno(errno, "stop the owner of an AF_XDP socket");
  const std::uint64_t first = asker.next();
  while (!asker.ask(first)) {
    if (monotonic_ns() - begun > kPatienceNs) return fail(Exit::Failed, "nobody took over from the owner");
  }
  const std::uint64_t took = monotonic_ns() - begun;
  ::kill(owner.pid(), SIGCONT);
  return static_cast<double>(took) * 1e-6;
}

}  // namespace

Result<Json> xsk_failover_ms(const Bench& bench) {
  std::vector<double> values;
  for (int repeat = 0; repeat < kRepeats; ++repeat) {
    values.push_back(ANIC_TRY(failover_ms(bench)));
    if (stop_requested()) return fail(Exit::Failed, "stopped");
  }
  return bench_row_alone(
      {.id = "xsk_failover_ms",
       .unit = "ms",
       .peer = "",
       .note =
           fmt::format("from SIGSTOP of the owner of an AF_XDP socket to the kernel's first answer, asked "
                       "every {} us; an owner is stalled after {} ms",
                       kBetweenNs / 1000, ANIC_OWNER_STALE_NS / 1'000'000)},
      values, kTargetMs, Bound::AtMost, "");
}

}  // namespace agentnic::lab
