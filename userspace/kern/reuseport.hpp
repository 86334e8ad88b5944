// SPDX-License-Identifier: Apache-2.0
#pragma once

/// Sockets of one port, one for each CPU: bpf/reuseport.

#include <memory>

#include "base/result.hpp"

struct reuseport_bpf;

namespace agentnic::kern {

/// Chooses among sockets that share a port (SO_REUSEPORT) by the CPU that a packet is on, which is where
/// steering has put its flow (docs/steering.md). Without one on that CPU the kernel chooses. The sockets keep
/// the program when this is gone; take it down when they are closed.
class ReuseportGroup final {
 public:
  /// Takes CAP_BPF and CAP_NET_ADMIN.
  static Result<ReuseportGroup> open();
  /// A socket that is bound (UDP) or listens (TCP) on the port of all others, for packets of this CPU.
  Status add(int socket_fd, int cpu);

 private:
  struct Destroy {
    void operator()(reuseport_bpf* skeleton) const noexcept;
  };
  std::unique_ptr<reuseport_bpf, Destroy> skeleton_;
  bool attached_ = false;
};

}  // namespace agentnic::kern
