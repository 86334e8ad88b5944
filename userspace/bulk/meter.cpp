// SPDX-License-Identifier: Apache-2.0
#include "bulk/meter.hpp"

#include <algorithm>
#include <utility>

#include <ctime>

#include "base/clock.hpp"
#include "base/stop.hpp"

namespace agentnic::bulk {
namespace {

constexpr std::uint64_t kSecond = 1'000'000'000;
constexpr std::uint64_t kAskNs = 50'000'000;   // a change of the budget is met after so long
constexpr std::uint64_t kPieceNs = 5'000'000;  // of content in one go
constexpr std::size_t kPieceLeast = 4096;
constexpr std::uint64_t kTellNs = 500'000'000;

}  // namespace

std::size_t Pacer::piece(std::size_t most) {
  const std::scoped_lock lock(mutex_);
  const std::uint64_t now = monotonic_ns();
  if (asked_ns_ == 0 || now - asked_ns_ >= kAskNs) {
    rate_bps_ = rate_();
    asked_ns_ = now;
  }
  if (rate_bps_ == 0) return most;
  const std::uint64_t fits = rate_bps_ / 8 * kPieceNs / kSecond;
  return std::min(most, std::max(kPieceLeast, static_cast<std::size_t>(fits)));
}

Status Pacer::pace(std::size_t bytes) {
  std::uint64_t now = monotonic_ns();
  std::uint64_t turn_ns = 0;
  {
    const std::scoped_lock lock(mutex_);
    if (rate_bps_ == 0) return {};
    // What was not sent in time is not made up for: that would be a burst.
    next_ns_ = turn_ns = std::max(next_ns_, now < kPieceNs ? 0 : now - kPieceNs);
    next_ns_ +=
        static_cast<std::uint64_t>(static_cast<double>(bytes) * 8 * kSecond / static_cast<double>(rate_bps_));
  }
  while (now < turn_ns) {
    if (stop_requested()) return fail(Exit::Failed, "stopped");
    const std::uint64_t nap = std::min<std::uint64_t>(turn_ns - now, kStopCheckMs * 1'000'000ULL);
    const timespec time{.tv_sec = 0, .tv_nsec = static_cast<long>(nap)};
    ::nanosleep(&time, nullptr);
    now = monotonic_ns();
  }
  return {};
}

Meter::Meter(Pacers pacers, Tell tell) : pacers_(std::move(pacers)), tell_(std::move(tell)) {
  totals.begin_ns = told_ns_ = monotonic_ns();
}

std::size_t Meter::piece(std::size_t most) const {
  for (const auto& pacer : pacers_) most = pacer->piece(most);
  return most;
}

Status Meter::pace(std::size_t bytes) const {
  for (const auto& pacer : pacers_) ANIC_TRY(pacer->pace(bytes));
  return {};
}

void Meter::moved(std::size_t bytes) {
  totals.moved_bytes += bytes;
  const std::uint64_t now = monotonic_ns();
  if (now - told_ns_ < kTellNs) return;
  told_ns_ = now;
  totals.end_ns = now;
  if (tell_) tell_({}, totals);
}

void Meter::tell(const Event& event) {
  totals.end_ns = monotonic_ns();
  switch (event.what) {
    case Event::What::File:
      ++totals.files;
      break;
    case Event::What::Skipped:
      ++totals.skipped;
      break;
    case Event::What::Failed:
      ++totals.failed;
      if (totals.first_failure.empty()) totals.first_failure = event.why;
      break;
    case Event::What::Fallback:
      totals.fallback = event.why;
      break;
    case Event::What::Progress:
      break;
  }
  if (tell_) tell_(event, totals);
}

}  // namespace agentnic::bulk
