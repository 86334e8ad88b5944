// SPDX-License-Identifier: Apache-2.0
#include "base/stop.hpp"

#include <sys/time.h>

#include <csignal>

namespace agentnic {
namespace {

volatile std::sig_atomic_t stop_flag = 0;

void on_stop(int) { stop_flag = 1; }

void on_tick(int) {}

void handle(int signal, void (*handler)(int)) noexcept {
  struct sigaction action{};
  action.sa_handler = handler;  // without SA_RESTART: calls that wait return EINTR
  ::sigaction(signal, &action, nullptr);
}

void tick_every(int milliseconds) noexcept {
  const timeval period{.tv_sec = 0, .tv_usec = milliseconds * 1000};
  const itimerval timer{.it_interval = period, .it_value = period};
  ::setitimer(ITIMER_REAL, &timer, nullptr);
}

}  // namespace

void catch_stop_signals() noexcept {
  handle(SIGINT, on_stop);
  handle(SIGTERM, on_stop);
}

bool stop_requested() noexcept { return stop_flag != 0; }

WakeUps::WakeUps() noexcept {
  handle(SIGALRM, on_tick);
  tick_every(kStopCheckMs);
}

WakeUps::~WakeUps() { tick_every(0); }

}  // namespace agentnic
