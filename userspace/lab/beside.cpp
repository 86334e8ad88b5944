// SPDX-License-Identifier: Apache-2.0
#include "lab/beside.hpp"

#include <pthread.h>

#include <atomic>
#include <chrono>
#include <csignal>
#include <utility>

#include "kern/test_run.hpp"
#include "lab/environment.hpp"

namespace agentnic::lab {
namespace {

constexpr auto kPause = std::chrono::milliseconds(1);

/// A signal ends the kernel's loop of runs; it has to arrive, not to do anything.
void ignore(int /*signal*/) {}

}  // namespace

Beside::Beside(int cpu, int prog_fd, Frame frame) {
  struct sigaction action{};
  action.sa_handler = ignore;
  ::sigaction(SIGUSR1, &action, nullptr);
  worker_ = std::jthread([cpu, prog_fd, frame = std::move(frame)](const std::stop_token& stop) {
    if (!pin_to_cpu(cpu)) return;
    while (!stop.stop_requested()) {
      if (!kern::run_until_signal(prog_fd, frame)) return;
    }
  });
}

Beside::~Beside() {
  worker_.request_stop();
  std::atomic<bool> ended = false;
  const std::jthread waker([&] {  // it may be between two calls, and miss a signal
    while (!ended) {
      ::pthread_kill(worker_.native_handle(), SIGUSR1);
      std::this_thread::sleep_for(kPause);
    }
  });
  worker_.join();
  ended = true;
}

}  // namespace agentnic::lab
