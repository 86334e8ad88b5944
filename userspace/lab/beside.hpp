// SPDX-License-Identifier: Apache-2.0
#pragma once

/// A second CPU at work while something is measured.

#include <thread>

#include "lab/packet.hpp"

namespace agentnic::lab {

/// Runs a program on one frame again and again, on a CPU of its own, for as long as it lives. Borrows the
/// program. All runs are one call: entering the kernel anew takes milliseconds.
class Beside final {
 public:
  Beside(int cpu, int prog_fd, Frame frame);
  ~Beside();
  Beside(const Beside&) = delete;
  Beside& operator=(const Beside&) = delete;

 private:
  std::jthread worker_;
};

}  // namespace agentnic::lab
