// SPDX-License-Identifier: Apache-2.0
#include "base/stop.hpp"

#include <csignal>

namespace agentnic {
namespace {

volatile std::sig_atomic_t stop_flag = 0;

void on_stop(int) { stop_flag = 1; }

}  // namespace

void catch_stop_signals() noexcept {
  struct sigaction action{};
  action.sa_handler = on_stop;
  ::sigaction(SIGINT, &action, nullptr);
  ::sigaction(SIGTERM, &action, nullptr);
}

bool stop_requested() noexcept { return stop_flag != 0; }

}  // namespace agentnic
