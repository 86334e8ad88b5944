// SPDX-License-Identifier: Apache-2.0
#include "base/stop.hpp"

#include <sys/time.h>

#include <csignal>

namespace agentnic {
namespace {

volatile std::sig_atomic_t stop_flag = 0;

void on_stop(int) { stop_flag = 1; }

void on_tick(int) {}

}  // namespace

void catch_stop_signals() noexcept {
  struct sigaction action{};
  action.sa_handler = on_stop;
  ::sigaction(SIGINT, &action, nullptr);
  ::sigaction(SIGTERM, &action, nullptr);
  action.sa_handler = on_tick;
  ::sigaction(SIGALRM, &action, nullptr);
  const timeval period{.tv_sec = 0, .tv_usec = kStopCheckMs * 1000};
  const itimerval timer{.it_interval = period, .it_value = period};
  ::setitimer(ITIMER_REAL, &timer, nullptr);
}

bool stop_requested() noexcept { return stop_flag != 0; }

}  // namespace agentnic
