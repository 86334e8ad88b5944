// SPDX-License-Identifier: Apache-2.0
#pragma once

/// Counters for Prometheus (text exposition format 0.0.4), over HTTP.

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>

#include "abi/owner.h"
#include "base/result.hpp"
#include "base/unique_fd.hpp"

struct MHD_Daemon;

namespace agentnic::cli {

/// What serve has done since it was started.
struct ServeCounters {
  std::uint64_t grants = 0;
  std::uint64_t refusals = 0;
};

std::string metrics_text(const std::string& ifname, const std::map<std::uint32_t, anic_owner>& owners,
                         const ServeCounters& counters);

/// Answers GET /metrics. No thread of its own: call run() when fd() is readable, and now and then.
class MetricsServer final {
 public:
  /// `ADDRESS:PORT`, the address numeric; an IPv6 one in brackets.
  static Result<MetricsServer> open(const std::string& address, std::function<std::string()> text);
  void run() noexcept;
  /// When to call it at the latest; at most `most_ms`.
  [[nodiscard]] int timeout_ms(int most_ms) const noexcept;
  [[nodiscard]] int fd() const noexcept { return fd_; }

 private:
  struct Stop {
    void operator()(MHD_Daemon* daemon) const noexcept;
  };
  MetricsServer() = default;
  std::unique_ptr<std::function<std::string()>> text_;  // its address is known to the daemon
  std::unique_ptr<MHD_Daemon, Stop> daemon_;
  int fd_ = -1;
};

}  // namespace agentnic::cli
