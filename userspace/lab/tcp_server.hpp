// SPDX-License-Identifier: Apache-2.0
#pragma once

/// TCP servers for load: one worker, or one on each of several CPUs that share the port.

#include <optional>
#include <variant>
#include <vector>

#include "base/result.hpp"
#include "path/sockets/tcp_echo.hpp"
#include "path/uring/tcp_echo.hpp"

namespace agentnic::lab {

struct TcpServerOptions {
  path::Address local;
  path::BusyPoll busy_poll = {};
  path::Wait wait = path::Wait::Block;
  std::optional<path::UringEchoOptions> uring = std::nullopt;  ///< io_uring, not epoll
  std::vector<int> cpus = {};  ///< a worker on each of these; none: one, wherever it is
};

struct TcpServed {
  path::TcpEchoCounters echo;
  path::UringCounters uring;  ///< zeros of one that uses epoll
};

class TcpServer final {
 public:
  /// Listens. Several workers take CAP_BPF: a program gives each what comes on its CPU.
  static Result<TcpServer> open(const TcpServerOptions& options);
  /// Until stop_requested(); counters of each worker, in the order of the CPUs.
  Result<std::vector<TcpServed>> run();

 private:
  TcpServerOptions options_;
  std::vector<std::variant<path::TcpEcho, path::UringEcho>> workers_;
};

}  // namespace agentnic::lab
