// SPDX-License-Identifier: Apache-2.0
#pragma once

/// The load generator: one UDP client that asks, waits for the echo, and keeps time.

#include <cstdint>
#include <string>

#include "base/histogram.hpp"
#include "base/json.hpp"
#include "base/result.hpp"
#include "lab/line.hpp"
#include "path/sockets/udp.hpp"

namespace agentnic::lab {

/// How requests follow one another.
enum class Loop {
  Closed,  ///< one outstanding, or so many: the next leaves when an answer is there. Latency: from the send
  Open,    ///< at a fixed rate, whatever comes back. Latency: from the intended send time
};

struct LoadOptions {
  std::string transport = "udp";  ///< what the line is: for who reads the result
  std::size_t size = 64;          ///< bytes of UDP payload
  Loop loop = Loop::Closed;
  path::Wait wait = path::Wait::Spin;
  unsigned outstanding = 1;  ///< Loop::Closed: requests that wait for answers at any moment
  double rate_per_s = 0;     ///< Loop::Open only
  double warmup_s = 0.1;     ///< traffic that is not recorded
  double duration_s = 1;
};

/// Two numbers and a word of it go into every request and must come back as they were.
inline constexpr std::size_t kMinSize = 24;
inline constexpr std::size_t kMaxSize = 65507;

/// CPU time in a window, in seconds.
struct CpuUse {
  double client = 0;   ///< this process, user and system (getrusage)
  double machine = 0;  ///< all that was not idle, on all CPUs (/proc/stat, 10 ms ticks)
  double irq = 0;      ///< the share of it in softirq and hard irq
  double steal = 0;    ///< taken from this machine by its host; not part of `machine`
};

struct LoadResult {
  Histogram latency_ns;
  double seconds = 0;        ///< the measured window
  double offered_per_s = 0;  ///< Loop::Open: what was asked for; else what was sent
  std::uint64_t sent = 0;
  std::uint64_t received = 0;
  std::uint64_t lost = 0;  ///< no answer within kAnswerTimeoutNs; Loop::Closed records that time for them
  std::uint64_t late_sends = 0;  ///< Loop::Open: left more than kLateSend after their time
  std::uint64_t missed = 0;      ///< Loop::Open: their time came, and the run ended before they left
  std::uint64_t unsent = 0;      ///< refused by the kernel
  std::uint64_t damaged = 0;     ///< came back with another content
  std::uint64_t stale = 0;       ///< came back twice, or after it was given up
  std::uint64_t dropped = 0;     ///< by the kernel at the client's socket
  CpuUse cpu;
  std::string invalid;  ///< why the run cannot be trusted, or empty

  [[nodiscard]] double achieved_per_s() const {
    return seconds > 0 ? static_cast<double>(received) / seconds : 0;
  }
};

inline constexpr std::uint64_t kAnswerTimeoutNs = 100'000'000;
inline constexpr std::uint64_t kLateSendNs = 50'000;

/// Runs to the end, or until stop_requested(), which is an error.
Result<LoadResult> run_load(Line& line, const LoadOptions& options);

/// Schema agentnic.run/1 without argv. Units are in the key names; a percentile without samples enough is
/// null.
Json to_json(const LoadOptions& options, const LoadResult& result);

/// The histogram as [[value, count], ...], and back.
Json to_json(const Histogram& histogram);
Histogram histogram_from_json(const Json& json);

std::string wait_name(path::Wait wait);
std::string loop_name(Loop loop);

}  // namespace agentnic::lab
