// SPDX-License-Identifier: Apache-2.0
#include "agent/loop.hpp"

#include <fmt/format.h>

#include <cerrno>
#include <ctime>
#include <vector>

#include "base/clock.hpp"
#include "base/stop.hpp"

namespace agentnic::agent {
namespace {

/// Until then, or until somebody wants to stop.
void sleep_until(std::uint64_t then_ns) {
  constexpr std::uint64_t kSecond = 1'000'000'000;
  const timespec then{.tv_sec = static_cast<time_t>(then_ns / kSecond),
                      .tv_nsec = static_cast<long>(then_ns % kSecond)};
  while (!stop_requested() && ::clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &then, nullptr) == EINTR) {
  }
}

/// Each with its answer.
Result<std::vector<Decision>> ask(const kern::Session& session, const std::vector<Proposal>& proposals) {
  std::vector<Decision> decisions;
  std::uint64_t cookie = 0;
  for (const Proposal& proposal : proposals) {
    anic_proposal change = proposal.change;
    change.size = sizeof(change);
    change.cookie = ++cookie;
    ANIC_TRY(session.propose(change));
  }
  for (std::size_t answered = 0; answered < proposals.size();) {
    const auto drained = ANIC_TRY(session.drain());
    if (!drained) return ended_by_guardian(session.id());
    if (*drained == 0)
      return fail(Exit::Failed, fmt::format("session {} got no answer to a proposal", session.id()));
    for (int i = 0; i < *drained && answered < proposals.size(); ++i, ++answered) {
      const auto answer = session.answer(answered + 1);
      if (!answer)
        return fail(Exit::Failed, fmt::format("session {} lost the answer to a proposal", session.id()));
      decisions.push_back({proposals[answered], *answer});
    }
  }
  return decisions;
}

}  // namespace

std::unexpected<Error> ended_by_guardian(std::uint64_t session) {
  return fail(Exit::Failed, fmt::format("session {} was ended by the guardian", session),
              "agentnic-audit tail says why");
}

Status run_loop(const kern::Session& session, Controller& controller, Observer observer,
                const LoopSettings& settings) {
  std::uint64_t next_ns = monotonic_ns();
  for (std::uint64_t tick = 0; !stop_requested() && (settings.ticks == 0 || tick < settings.ticks); ++tick) {
    if (!ANIC_TRY(session.drain(true))) return ended_by_guardian(session.id());
    const Observation& observation = observer.observe(session.observation());
    const auto proposals = ANIC_TRY(controller.decide(observation));
    if (!proposals) break;
    if (!proposals->empty()) ANIC_TRY(controller.decided(ANIC_TRY(ask(session, *proposals))));
    // An answer that took longer than an interval is followed by the next observation at once, not by
    // several.
    next_ns = std::max(next_ns + settings.interval_ns, monotonic_ns());
    sleep_until(next_ns);
  }
  return {};
}

}  // namespace agentnic::agent
