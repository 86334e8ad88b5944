// SPDX-License-Identifier: Apache-2.0
#include "lab/load.hpp"

#include <fmt/format.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>
#include <deque>
#include <fstream>
#include <vector>

#include "base/clock.hpp"
#include "base/hypervisor.hpp"
#include "base/stop.hpp"

namespace agentnic::lab {
namespace {

constexpr unsigned kMissesPerClock = 64;

struct Stamp {
  std::uint64_t sequence = 0;
  std::uint64_t intended_ns = 0;
  std::uint64_t check = 0;  ///< of the two, so that a mixed-up answer is seen
};
static_assert(sizeof(Stamp) == kMinSize);

std::uint64_t check_of(const Stamp& stamp) {
  return (stamp.sequence * 0x9e3779b97f4a7c15ULL) ^ stamp.intended_ns;
}

CpuUse cpu_now() {
  CpuUse use;
  rusage self{};
  ::getrusage(RUSAGE_SELF, &self);
  const auto seconds = [](const timeval& t) {
    return static_cast<double>(t.tv_sec) + static_cast<double>(t.tv_usec) * 1e-6;
  };
  use.client = seconds(self.ru_utime) + seconds(self.ru_stime);
  std::ifstream stat("/proc/stat");
  std::string cpu;
  std::array<double, 8> ticks{};  // user nice system idle iowait irq softirq steal: proc_stat(5)
  stat >> cpu;
  for (double& value : ticks) stat >> value;
  const auto hz = static_cast<double>(::sysconf(_SC_CLK_TCK));
  use.irq = (ticks[5] + ticks[6]) / hz;
  use.machine = (ticks[0] + ticks[1] + ticks[2]) / hz + use.irq;
  use.steal = ticks[7] / hz;
  return use;
}

CpuUse operator-(const CpuUse& a, const CpuUse& b) {
  return {a.client - b.client, a.machine - b.machine, a.irq - b.irq, a.steal - b.steal};
}

/// The client's half of both loops: stamped requests out, checked answers in.
class Client {
 public:
  Client(Line& line, const LoadOptions& options) : line_(line), wait_(options.wait), out_(options.size) {
    for (std::size_t i = 0; i < out_.size(); ++i) out_[i] = static_cast<std::byte>(i * 31);
  }

  /// Where refused requests and damaged answers are counted from now on; before the first send().
  void count_into(LoadResult& result) noexcept { result_ = &result; }

  /// Sends the next request; false when the kernel refused it.
  bool send(std::uint64_t intended_ns) noexcept {
    Stamp stamp{.sequence = ++sequence_, .intended_ns = intended_ns, .check = 0};
    stamp.check = check_of(stamp);
    std::memcpy(out_.data(), &stamp, sizeof(stamp));
    if (line_.send(out_)) return true;
    ++result_->unsent;
    return false;
  }

  /// One answer, if there is one and it is whole.
  std::optional<Stamp> receive(path::Wait wait) noexcept {
    const auto in = line_.receive(wait);
    if (!in) return std::nullopt;
    Stamp stamp;
    const bool whole = in->size() == out_.size() && (std::memcpy(&stamp, in->data(), sizeof(stamp)), true) &&
                       stamp.check == check_of(stamp) &&
                       std::memcmp(in->data() + sizeof(stamp), out_.data() + sizeof(stamp),
                                   out_.size() - sizeof(stamp)) == 0;
    if (whole) return stamp;
    ++result_->damaged;
    return std::nullopt;
  }

  [[nodiscard]] std::uint64_t sequence() const noexcept { return sequence_; }
  [[nodiscard]] path::Wait wait() const noexcept { return wait_; }
  Line& line() noexcept { return line_; }

 private:
  Line& line_;
  path::Wait wait_;
  LoadResult* result_ = nullptr;
  std::vector<std::byte> out_;
  std::uint64_t sequence_ = 0;
};

/// One request after the other until `end_ns`.
void closed_loop(Client& client, LoadResult& result, std::uint64_t end_ns) {
  const CpuUse cpu_before = cpu_now();
  std::uint64_t now = monotonic_ns();
  while (now < end_ns && !stop_requested()) {
    const std::uint64_t sent_at = monotonic_ns();
    if (!client.send(sent_at)) {
      now = monotonic_ns();
      continue;
    }
    ++result.sent;
    for (unsigned misses = 0;;) {
      const auto answer = client.receive(client.wait());
      // While spinning, the clock is not read after every look: that would be felt in the answer's time.
      if (!answer && client.wait() == path::Wait::Spin && ++misses % kMissesPerClock != 0) continue;
      now = monotonic_ns();
      if (answer && answer->sequence == client.sequence()) {
        ++result.received;
        result.latency_ns.record(now - sent_at);
        break;
      }
      if (answer) ++result.stale;
      if (now - sent_at > kAnswerTimeoutNs || stop_requested()) {
        ++result.lost;
        result.latency_ns.record(now - sent_at);  // left out, the worst would flatter the tail
        break;
      }
    }
  }
  result.cpu = cpu_now() - cpu_before;
}

/// The requests that wait for answers, the oldest first.
class Window final {
 public:
  explicit Window(LoadResult& result) noexcept : result_(result) {}
  [[nodiscard]] bool empty() const noexcept { return waiting_.empty(); }
  [[nodiscard]] std::size_t size() const noexcept { return waiting_.size() - answered_; }

  void sent(std::uint64_t sequence, std::uint64_t now) {
    if (waiting_.empty()) first_ = sequence;
    while (first_ + waiting_.size() < sequence) answer_at(waiting_.emplace_back());  // it was not taken
    waiting_.push_back({.sent_ns = now});
    ++result_.sent;
  }
  void received(const Stamp& answer, std::uint64_t now) {
    const std::uint64_t index = answer.sequence - first_;  // huge for one that was given up
    if (index >= waiting_.size() || waiting_[index].answered) {
      ++result_.stale;
      return;
    }
    result_.latency_ns.record(now - waiting_[index].sent_ns);
    ++result_.received;
    answer_at(waiting_[index]);
    trim();
  }
  /// Gives up those that have waited for too long.
  void expire(std::uint64_t now) {
    while (!waiting_.empty() && now - waiting_.front().sent_ns > kAnswerTimeoutNs) {
      ++result_.lost;
      result_.latency_ns.record(now - waiting_.front().sent_ns);
      answer_at(waiting_.front());
      trim();
    }
  }

 private:
  struct Request {
    std::uint64_t sent_ns = 0;
    bool answered = false;
  };
  void answer_at(Request& request) noexcept {
    request.answered = true;
    ++answered_;
  }
  void trim() {
    for (; !waiting_.empty() && waiting_.front().answered; ++first_, --answered_) waiting_.pop_front();
  }
  LoadResult& result_;
  std::deque<Request> waiting_;
  std::uint64_t first_ = 0;   ///< sequence of the oldest
  std::size_t answered_ = 0;  ///< of those in waiting_
};

/// So many requests at any moment until `end_ns`.
void window_loop(Client& client, LoadResult& result, unsigned outstanding, std::uint64_t end_ns) {
  const CpuUse cpu_before = cpu_now();
  Window window(result);
  std::uint64_t now = monotonic_ns();
  while (now < end_ns && !stop_requested()) {
    while (window.size() < outstanding && client.send(now)) window.sent(client.sequence(), now);
    // One look may wait, if everything has left that can: the next ones take what came with it.
    for (auto answer = client.receive(window.empty() ? path::Wait::Spin : client.wait()); answer;
         answer = client.receive(path::Wait::Spin)) {
      now = monotonic_ns();
      window.received(*answer, now);
    }
    now = monotonic_ns();
    window.expire(now);
  }
  result.cpu = cpu_now() - cpu_before;
}

/// A request every 1/rate seconds from `start_ns` to `end_ns`, and the answers as they come.
void open_loop(Client& client, LoadResult& result, double rate_per_s, std::uint64_t start_ns,
               std::uint64_t end_ns) {
  const double gap_ns = 1e9 / rate_per_s;
  const std::uint64_t first_sequence = client.sequence() + 1;
  const auto planned =
      static_cast<std::uint64_t>(std::ceil(static_cast<double>(end_ns - start_ns) / gap_ns - 1e-6));
  std::vector<bool> answered(planned);
  const CpuUse cpu_before = cpu_now();
  const auto due = [&](std::uint64_t count) {
    return start_ns + static_cast<std::uint64_t>(static_cast<double>(count) * gap_ns);
  };
  std::uint64_t attempts = 0;
  const auto drain = [&] {
    while (const auto answer = client.receive(path::Wait::Spin)) {
      const std::uint64_t index = answer->sequence - first_sequence;  // huge for one of the warm-up
      if (index >= planned || answered[index]) {
        ++result.stale;
        continue;
      }
      answered[index] = true;
      ++result.received;
      result.latency_ns.record(monotonic_ns() - answer->intended_ns);
    }
  };
  while (!stop_requested()) {
    const std::uint64_t now = monotonic_ns();
    const std::uint64_t next = due(attempts);
    if (attempts >= planned || now >= end_ns) break;
    if (now >= next) {
      result.late_sends += now - next > kLateSendNs;
      result.sent += client.send(next);
      ++attempts;
    } else if (client.wait() == path::Wait::Block) {
      client.line().wait_readable(next - now);
    }
    drain();
  }
  result.missed = planned - attempts;
  result.cpu = cpu_now() - cpu_before;  // the wait for the last answers is not part of the window
  const std::uint64_t linger_until = monotonic_ns() + kAnswerTimeoutNs;
  while (result.received < result.sent && monotonic_ns() < linger_until && !stop_requested()) drain();
  result.lost = result.sent - std::min(result.sent, result.received);
}

void judge(const LoadOptions& options, LoadResult& result) {
  constexpr double kShare = 0.01;
  const auto sent = static_cast<double>(result.sent);
  if (result.received == 0) {
    result.invalid = "no answer came";
  } else if (result.damaged != 0) {
    result.invalid = fmt::format("{} answers were damaged", result.damaged);
  } else if (options.loop == Loop::Open && static_cast<double>(result.late_sends) > sent * kShare) {
    result.invalid = fmt::format("the generator was the limit: {} of {} requests left late",
                                 result.late_sends, result.sent);
  } else if (options.loop == Loop::Open && sent / result.seconds < options.rate_per_s * (1 - kShare)) {
    result.invalid = fmt::format("the generator was the limit: it sent {:.0f} a second of {:.0f}",
                                 sent / result.seconds, options.rate_per_s);
  } else if (options.loop == Loop::Closed && static_cast<double>(result.lost) > sent * kShare) {
    result.invalid = fmt::format("{} of {} requests were lost", result.lost, result.sent);
  }
}

Json percentile(const Histogram& histogram, double fraction) {
  const auto value = histogram.percentile(fraction);
  return value ? Json(*value) : Json(nullptr);
}

}  // namespace

Result<LoadResult> run_load(Line& line, const LoadOptions& options) {
  if (options.size < kMinSize || options.size > kMaxSize) {
    return fail(Exit::BadInput, fmt::format("a request of {} bytes: the size goes from {} to {}",
                                            options.size, kMinSize, kMaxSize));
  }
  const bool rate_is_possible = options.rate_per_s >= 1 && options.rate_per_s <= 1e8;
  if (options.loop == Loop::Open && !rate_is_possible) {
    return fail(Exit::BadInput, "an open loop needs a rate from 1 to 100000000 a second", "--rate");
  }
  const WakeUps wake_ups;
  ::prctl(PR_SET_TIMERSLACK, 1UL);  // a sleep until the next send should end then
  const auto nanoseconds = [](double s) { return static_cast<std::uint64_t>(s * 1e9); };
  const auto pass = [&](Client& client, LoadResult& into, double seconds) {
    const std::uint64_t start = monotonic_ns();
    const std::uint64_t end = start + nanoseconds(seconds);
    if (options.loop == Loop::Closed) {
      if (options.outstanding == 1) {
        closed_loop(client, into, end);
      } else {
        window_loop(client, into, options.outstanding, end);
      }
      into.seconds = static_cast<double>(monotonic_ns() - start) * 1e-9;
    } else {
      open_loop(client, into, options.rate_per_s, start, end);
      into.seconds = seconds;
    }
  };
  LoadResult warmup;
  LoadResult result;
  Client client(line, options);  // one for both, so that late answers to the warm-up are known as such
  client.count_into(warmup);
  pass(client, warmup, options.warmup_s);
  client.count_into(result);
  const std::uint64_t drops_before = line.drops();
  pass(client, result, options.duration_s);
  result.dropped = line.drops() - drops_before;
  result.offered_per_s =
      options.loop == Loop::Open ? options.rate_per_s : static_cast<double>(result.sent) / result.seconds;
  if (stop_requested()) return fail(Exit::Failed, "stopped before the end of the run");
  judge(options, result);
  return result;
}

Json to_json(const Histogram& histogram) {
  Json list = Json::array();
  for (const auto& [value, count] : histogram.buckets()) list.push_back({value, count});
  return list;
}

Histogram histogram_from_json(const Json& json) {
  Histogram histogram;
  for (const Json& bucket : json)
    histogram.add(bucket.at(0).get<std::uint64_t>(), bucket.at(1).get<std::uint64_t>());
  return histogram;
}

Json to_json(const LoadOptions& options, const LoadResult& result) {
  const auto per_request_us = [&](double seconds) {
    return result.received ? seconds * 1e6 / static_cast<double>(result.received) : 0;
  };
  return {{"schema", "agentnic.run/1"},
          {"transport", options.transport},
          {"loop", loop_name(options.loop)},
          {"wait", wait_name(options.wait)},
          {"outstanding", options.loop == Loop::Closed ? Json(options.outstanding) : Json(nullptr)},
          {"size_bytes", options.size},
          {"warmup_s", options.warmup_s},
          {"duration_s", result.seconds},
          {"latency_from", options.loop == Loop::Open ? "intended send" : "send"},
          {"offered_per_s", result.offered_per_s},
          {"achieved_per_s", result.achieved_per_s()},
          {"sent", result.sent},
          {"received", result.received},
          {"lost", result.lost},
          {"late_sends", result.late_sends},
          {"missed", result.missed},
          {"unsent", result.unsent},
          {"damaged", result.damaged},
          {"stale", result.stale},
          {"dropped_at_client", result.dropped},
          {"min_ns", result.latency_ns.min()},
          {"mean_ns", result.latency_ns.mean()},
          {"p50_ns", percentile(result.latency_ns, 0.5)},
          {"p90_ns", percentile(result.latency_ns, 0.9)},
          {"p99_ns", percentile(result.latency_ns, 0.99)},
          {"p999_ns", percentile(result.latency_ns, 0.999)},
          {"max_ns", result.latency_ns.max()},
          {"cpu_client_pct", result.cpu.client / result.seconds * 100},
          {"cpu_machine_pct", result.cpu.machine / result.seconds * 100},
          {"cpu_irq_pct", result.cpu.irq / result.seconds * 100},
          {"cpu_steal_pct", result.cpu.steal / result.seconds * 100},
          {"cpu_machine_us_per_request", per_request_us(result.cpu.machine)},
          {"emulated", emulated()},
          {"valid", result.invalid.empty()},
          {"invalid_because", result.invalid},
          {"histogram_ns", to_json(result.latency_ns)}};
}

std::string wait_name(path::Wait wait) { return wait == path::Wait::Spin ? "spin" : "block"; }
std::string loop_name(Loop loop) { return loop == Loop::Closed ? "closed" : "open"; }

}  // namespace agentnic::lab
