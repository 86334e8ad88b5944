// SPDX-License-Identifier: Apache-2.0
#pragma once

/// How fast content may go, how far it is, and who is told.

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

#include "base/result.hpp"

namespace agentnic::bulk {

/// A file that is through with, or what else there is to say.
struct Event {
  enum class What : std::uint8_t {
    File,      ///< in its place, by `how`
    Skipped,   ///< was there already
    Failed,    ///< for `why`; without a path: of files that the peer could not read
    Fallback,  ///< from path C to path A, for `why`
    Progress,
  };
  What what = What::Progress;
  std::string path = {};
  std::string how = {};
  std::string why = {};
  std::string digest = {};
  std::uint64_t bytes = 0;    ///< of the file
  std::uint64_t resumed = 0;  ///< of these, that were there before
};

/// What a session did.
struct Totals {
  std::uint64_t planned_files = 0;
  std::uint64_t planned_bytes = 0;
  std::uint64_t files = 0;  ///< in their places now
  std::uint64_t skipped = 0;
  std::uint64_t failed = 0;
  std::uint64_t left_out = 0;
  std::uint64_t moved_bytes = 0;      ///< of content, that went over the network
  std::uint64_t there_bytes = 0;      ///< of content, that did not have to
  std::uint64_t registration_ns = 0;  ///< of memory for RDMA, before content moved; in no rate
  std::uint64_t begin_ns = 0;         ///< CLOCK_MONOTONIC
  std::uint64_t end_ns = 0;
  std::string how = {};           ///< the path that was obtained at first
  std::string fallback = {};      ///< why it was left, or empty
  std::string rdma_port = {};     ///< ours, when RDMA was agreed upon
  std::string why_not_rdma = {};  ///< when it was asked for, and there was none
  std::string first_failure = {};

  [[nodiscard]] double seconds() const { return static_cast<double>(end_ns - begin_ns) * 1e-9; }
};

/// Keeps a rate, over all sessions that share it. Threads may.
class Pacer final {
 public:
  /// Bit/s of content at this moment; 0: no limit. Asked by one thread at a time.
  using Rate = std::function<std::uint64_t()>;
  explicit Pacer(Rate rate) : rate_(std::move(rate)) {}

  /// How much of `most` to send in one go, so that the rate is kept every few milliseconds.
  [[nodiscard]] std::size_t piece(std::size_t most);
  /// Waits until so much may be sent. Failed, when it is to stop.
  Status pace(std::size_t bytes);

 private:
  Rate rate_;
  std::mutex mutex_;
  std::uint64_t rate_bps_ = 0;
  std::uint64_t asked_ns_ = 0;  ///< when the rate was asked for
  std::uint64_t next_ns_ = 0;   ///< when the next piece may go
};
using Pacers = std::vector<std::shared_ptr<Pacer>>;

/// One session's. One thread.
class Meter final {
 public:
  using Tell = std::function<void(const Event&, const Totals&)>;
  /// All of the pacers are kept to.
  Meter(Pacers pacers, Tell tell);

  [[nodiscard]] std::size_t piece(std::size_t most) const;
  Status pace(std::size_t bytes) const;
  /// So much was sent, or received.
  void moved(std::size_t bytes);
  void tell(const Event& event);

  Totals totals;

 private:
  Pacers pacers_;
  Tell tell_;
  std::uint64_t told_ns_ = 0;
};

}  // namespace agentnic::bulk
