// SPDX-License-Identifier: Apache-2.0
#include "path/uring/ring.hpp"

#include <fmt/format.h>
#include <poll.h>

#include <algorithm>
#include <cerrno>

#include "base/stop.hpp"

namespace agentnic::path {
namespace {

constexpr const char* kHint = "it takes Linux 6.1, and kernel.io_uring_disabled at 0";

}  // namespace

Result<Ring> Ring::open(const RingOptions& options) {
  io_uring_params params{};
  // Disabled: nobody's until start().
  params.flags = IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN | IORING_SETUP_TASKRUN_FLAG |
                 IORING_SETUP_R_DISABLED | IORING_SETUP_CQSIZE | IORING_SETUP_CLAMP |
                 (options.large_completions ? IORING_SETUP_CQE32 : 0U);
  params.cq_entries = options.completions;
  auto unopened = std::make_unique<io_uring>();
  if (const int code = io_uring_queue_init_params(options.submissions, unopened.get(), &params); code != 0) {
    const std::string what = fmt::format("make an io_uring with {} completions", options.completions);
    if (code == -EINVAL) return fail(Exit::Unsupported, what + ": this kernel refuses it", kHint);
    if (code == -EPERM) return fail(Exit::Unsupported, what + ": it is not allowed here", kHint);
    return fail_errno(code, what);
  }
  Ring made(Opened(unopened.release()), ANIC_TRY(make_tick()));
  if (options.files != 0) {
    if (const int code = io_uring_register_files_sparse(made.get(), options.files); code != 0)
      return fail_errno(code, fmt::format("register {} files with an io_uring", options.files),
                        code == -EMFILE ? "this process may have fewer: ulimit -n" : "");
  }
  if (options.busy_poll.us != 0) {
    io_uring_napi napi{.busy_poll_to = options.busy_poll.us, .prefer_busy_poll = 1, .pad = {}, .resv = 0};
    const int code = io_uring_register_napi(made.get(), &napi);
    if (code == -EINVAL)
      return fail(Exit::Unsupported, "busy polling by io_uring: this kernel has none", "it takes Linux 6.9");
    if (code != 0) return fail_errno(code, "turn busy polling by io_uring on");
    made.polls_ = true;
  }
  return made;
}

Status Ring::start() noexcept {
  if (const int code = io_uring_enable_rings(&*ring_); code != 0)
    return fail_errno(code, "start an io_uring");
  io_uring_register_ring_fd(&*ring_);  // it works without, a little slower
  return {};
}

io_uring_sqe* Ring::next(std::uint64_t id) noexcept {
  io_uring_sqe* entry = io_uring_get_sqe(&*ring_);
  while (entry == nullptr) {  // an interrupted call may leave it full
    submit(Wait::Spin);
    entry = io_uring_get_sqe(&*ring_);
  }
  entry->user_data = id;
  return entry;
}

void Ring::submit(Wait wait, unsigned at_once) noexcept {
  if (wait == Wait::Block) {
    if (!ticking_) {
      io_uring_prep_poll_multishot(next(kTick), tick_.get(), POLLIN);
      ticking_ = true;
    }
    const unsigned count = std::min(at_once + 1, *ring_->cq.kring_entries / 2);
    if (polls_) {  // Linux 6.9 and 6.10 look at how long to poll for only in a wait that has a limit
      __kernel_timespec limit{.tv_sec = 0, .tv_nsec = kStopCheckMs * 1'000'000LL};
      io_uring_cqe* done = nullptr;
      io_uring_submit_and_wait_timeout(&*ring_, &done, count, &limit, nullptr);
    } else {
      io_uring_submit_and_wait(&*ring_, count);
    }
  } else if (io_uring_sq_ready(&*ring_) != 0) {
    io_uring_submit_and_get_events(&*ring_);
  } else {
    io_uring_cqe* done = nullptr;
    io_uring_peek_cqe(&*ring_, &done);  // a call only when the kernel says that there is something for one
  }
}

void Ring::cancel_all() noexcept {
  io_uring_sync_cancel_reg all{};
  all.flags = IORING_ASYNC_CANCEL_ANY | IORING_ASYNC_CANCEL_ALL;
  all.timeout = {.tv_sec = -1, .tv_nsec = -1};
  io_uring_register_sync_cancel(&*ring_, &all);
}

}  // namespace agentnic::path
