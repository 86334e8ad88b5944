// SPDX-License-Identifier: Apache-2.0
#pragma once

/// An io_uring instance as path A uses it: one thread submits and reaps, and what completes does so in that
/// thread when it asks (IORING_SETUP_SINGLE_ISSUER, IORING_SETUP_DEFER_TASKRUN: Linux 6.1).

#include <liburing.h>

#include <cstdint>
#include <memory>

#include "base/result.hpp"
#include "base/unique_fd.hpp"
#include "path/sockets/options.hpp"
#include "path/tick.hpp"
#include "path/wait.hpp"

namespace agentnic::path {

struct RingOptions {
  unsigned submissions = 1024;
  unsigned completions = 8192;     ///< more are kept by the kernel until there is room: overflows()
  unsigned files = 0;              ///< slots for descriptors of the ring's own (registered files)
  bool large_completions = false;  ///< 32 bytes instead of 16: zero-copy receive takes them
  /// While the ring waits, the kernel polls the devices of its sockets (IORING_REGISTER_NAPI, Linux 6.9;
  /// Unsupported before). The budget is the kernel's own.
  BusyPoll busy_poll = {};
};

/// The request goes on, or, of a send without a copy, a notice follows.
inline bool has_more(const io_uring_cqe& done) noexcept { return (done.flags & IORING_CQE_F_MORE) != 0; }

/// One thread: the one that called start(), which may be another than that of open().
class Ring final {
 public:
  static Result<Ring> open(const RingOptions& options);

  /// Once, before anything is submitted.
  Status start() noexcept;

  /// The next entry of the submission queue; what is there is submitted first when it is full. `id`, which is
  /// not all ones, comes back with its completions.
  io_uring_sqe* next(std::uint64_t id) noexcept;

  /// Submits what there is, and waits until something has completed, for at most kStopCheckMs
  /// (base/stop.hpp), or a signal. `at_once`: of what is submitted at least so many complete without waiting
  /// for anything, and are not waited for alone; what they bring may lie until the next tick. Wait::Spin:
  /// does not wait.
  void submit(Wait wait, unsigned at_once = 0) noexcept;
  /// Asks the kernel to end all that is under way. What a thread of the kernel is at, such as the reading of
  /// a file, goes on until it completes. Completions are not reaped.
  void cancel_all() noexcept;

  /// Calls `handle(const io_uring_cqe&)` for each completion that there is. What it submits
  /// may complete in the next call.
  template <typename Handle>
  void reap(Handle&& handle) {
    unsigned head = 0;
    unsigned count = 0;
    io_uring_cqe* done = nullptr;
    io_uring_for_each_cqe(&*ring_, head, done) {
      ++count;
      if (done->user_data == kTick) {
        take_tick(tick_);
        ticking_ = has_more(*done);
      } else {
        handle(*done);
      }
    }
    io_uring_cq_advance(&*ring_, count);
  }

  /// Completions that found no room in the queue and were kept by the kernel, or, without memory, lost.
  [[nodiscard]] std::uint64_t overflows() const noexcept { return *ring_->cq.koverflow; }
  [[nodiscard]] io_uring* get() const noexcept { return &*ring_; }

 private:
  struct Close {
    void operator()(io_uring* ring) const noexcept {
      io_uring_queue_exit(ring);
      delete ring;
    }
  };
  using Opened = std::unique_ptr<io_uring, Close>;
  static constexpr std::uint64_t kTick = ~0ULL;  ///< no id of next()
  Ring(Opened ring, UniqueFd tick) noexcept : ring_(std::move(ring)), tick_(std::move(tick)) {}
  Opened ring_;
  UniqueFd tick_;
  bool ticking_ = false;
  bool polls_ = false;
};

}  // namespace agentnic::path
