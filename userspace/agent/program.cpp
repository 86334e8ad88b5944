// SPDX-License-Identifier: Apache-2.0
#include "agent/program.hpp"

#include <fmt/format.h>
#include <poll.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <iostream>

#include "base/clock.hpp"
#include "base/stop.hpp"
#include "policy/units.hpp"

namespace agentnic::agent {
namespace {

constexpr std::size_t kUnsentMax = 1U << 20U;     // an observation of all lanes is a fifth of this
constexpr int kBadLinesMax = 16;                  // instead of one answer
constexpr std::size_t kErrorsAtOnce = 1U << 20U;  // bytes: no pipe of who has no privileges holds more
constexpr std::uint64_t kMs = 1'000'000;

std::unexpected<Error> fault(std::string what) {
  return fail(Exit::Failed, "the program " + std::move(what));
}

}  // namespace

ProgramController::ProgramController(Pipes pipes, const Hello& hello, Names names)
    : pipes_(std::move(pipes)),
      names_(std::move(names)),
      session_(hello.session),
      unsent_(hello_line(hello, names_)) {}

ProgramController::~ProgramController() { end_errors(); }

Result<std::optional<std::vector<Proposal>>> ProgramController::decide(const Observation& observation) {
  auto answer = answer_to(observation);
  if (!answer) end_errors();  // its last words may be the reason, and come before the error
  return answer;
}

Result<std::optional<std::vector<Proposal>>> ProgramController::answer_to(const Observation& observation) {
  relay_errors();
  tick_ = observation.tick;
  ANIC_TRY(send(observation_line(observation)));
  const std::uint64_t until_ns = monotonic_ns() + observation.heartbeat_ns;
  for (int bad = 0;;) {
    while (const auto line = lines_.take()) {
      auto answer = parse_answer(*line, tick_, names_);
      if (answer) return answer;
      const std::string text = answer.error().text();
      if (bad == 0) std::cerr << "agentnic-agent: the program's line is no answer: " << text << std::endl;
      if (++bad == kBadLinesMax) return fault(fmt::format("sent {} lines that are no answer", bad));
      ANIC_TRY(send(error_line(text)));
    }
    if (lines_.too_long()) return fault(fmt::format("sent a line longer than {} bytes", kMaxLine));
    if (stop_requested()) return std::nullopt;
    if (ended_)
      return fault(lines_.empty() ? "closed its standard output"
                                  : "closed its standard output in the middle of a line");
    if (monotonic_ns() >= until_ns)
      return fault(fmt::format("did not answer for {}", policy::duration_text(observation.heartbeat_ns)));
    ANIC_TRY(wait(until_ns));
  }
}

Status ProgramController::decided(const std::vector<Decision>& decisions) {
  for (const Decision& decision : decisions) ANIC_TRY(send(decision_line(decision, tick_, session_, names_)));
  return {};
}

Status ProgramController::send(const std::string& line) {
  unsent_ += line;
  ANIC_TRY(flush());
  if (unsent_.size() > kUnsentMax)
    return fault(fmt::format("does not read: {} bytes wait for it", unsent_.size()));
  return {};
}

Status ProgramController::flush() {
  while (!unsent_.empty()) {
    const ssize_t sent = ::write(pipes_.to.get(), unsent_.data(), unsent_.size());
    if (sent < 0 && errno == EAGAIN) return {};
    if (sent < 0 && errno == EINTR) continue;
    if (sent < 0 && errno == EPIPE) {  // it reads no more: what it still has to say comes first
      unsent_.clear();
      return {};
    }
    if (sent < 0) return fail_errno(errno, "write to the program");
    unsent_.erase(0, static_cast<std::size_t>(sent));
  }
  return {};
}

Status ProgramController::wait(std::uint64_t until_ns) {
  // A program that finds the pipe of its standard error full cannot answer.
  std::array<pollfd, 3> waiting = {{{pipes_.from.get(), POLLIN, 0},
                                    {pipes_.errors.get(), POLLIN, 0},
                                    {unsent_.empty() ? -1 : pipes_.to.get(), POLLOUT, 0}}};
  const std::uint64_t now = monotonic_ns();
  const std::uint64_t left_ms = now >= until_ns ? 0 : (until_ns - now) / kMs + 1;
  const int ready = ::poll(waiting.data(), waiting.size(),
                           static_cast<int>(std::min<std::uint64_t>(left_ms, kStopCheckMs)));
  if (ready < 0 && errno != EINTR) return fail_errno(errno, "wait for the program");
  ANIC_TRY(flush());
  if (ready > 0 && waiting[1].revents != 0) relay_errors();
  if (ready > 0 && waiting[0].revents != 0) return read_some();
  return {};
}

Status ProgramController::read_some() {
  std::array<char, 16384> part{};
  const ssize_t got = ::read(pipes_.from.get(), part.data(), part.size());
  if (got < 0 && errno != EAGAIN && errno != EINTR) return fail_errno(errno, "read from the program");
  if (got == 0) ended_ = true;
  if (got > 0) lines_.add({part.data(), static_cast<std::size_t>(got)});
  return {};
}

void ProgramController::relay_errors() {
  std::array<char, 16384> part{};
  std::string printed = errors_.add({}, monotonic_ns());
  for (std::size_t taken = 0; pipes_.errors && taken < kErrorsAtOnce;) {
    const ssize_t got = ::read(pipes_.errors.get(), part.data(), part.size());
    if (got < 0 && errno == EINTR) continue;
    if (got == 0) pipes_.errors.reset();  // poll() would say so again and again
    if (got <= 0) break;
    taken += static_cast<std::size_t>(got);
    printed += errors_.add({part.data(), static_cast<std::size_t>(got)}, monotonic_ns());
  }
  std::cerr << printed << std::flush;
}

void ProgramController::end_errors() {
  relay_errors();
  std::cerr << errors_.end() << std::flush;
}

}  // namespace agentnic::agent
