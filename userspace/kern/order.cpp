// SPDX-License-Identifier: Apache-2.0
#include "kern/order.hpp"

#include <bpf/bpf.h>

#include <cerrno>
#include <chrono>
#include <string>
#include <thread>

#include "base/clock.hpp"

namespace agentnic::kern {
namespace {

constexpr std::uint64_t kPatienceNs = 1'000'000'000;
constexpr auto kRetry = std::chrono::microseconds(100);

/// Of the size of an order.
Result<int> run(int prog_fd, const void* arguments, std::string_view what) {
  for (std::uint64_t begun = 0;;) {
    LIBBPF_OPTS(bpf_test_run_opts, options);
    options.ctx_in = arguments;
    options.ctx_size_in = sizeof(anic_order);
    if (bpf_prog_test_run_opts(prog_fd, &options) != 0) return fail_errno(errno, std::string(what));
    const int code = static_cast<int>(options.retval);
    if (code != -EBUSY) return code;
    if (begun == 0) begun = monotonic_ns();
    if (monotonic_ns() - begun > kPatienceNs) return code;
    std::this_thread::sleep_for(kRetry);
  }
}

}  // namespace

Result<int> run_order(int prog_fd, const anic_order& order, std::string_view what) {
  return run(prog_fd, &order, what);
}

Result<int> run_drain(int prog_fd, bool observe, std::string_view what) {
  const anic_draining draining = {
      .now_ns = 0, .observe = observe ? 1U : 0U, .unused = {}, .word = ANIC_DRAIN_WORD};
  return run(prog_fd, &draining, what);
}

}  // namespace agentnic::kern
