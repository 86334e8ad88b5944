// SPDX-License-Identifier: Apache-2.0
#pragma once

/// Where features are tried: throw-away interfaces in namespaces that only this process has.

#include <optional>
#include <vector>

#include "base/result.hpp"
#include "kern/interface.hpp"
#include "kern/object.hpp"
#include "kern/verifier.hpp"

namespace agentnic::probe {

/// Moves the process that calls enter() into network and mount namespaces of its own. Everything that is
/// made there (interfaces, links, pins, programs) goes when the process ends, however it ends; so nothing is
/// ever taken down here, and each try gets an interface of its own. One thread.
class Ground final {
 public:
  /// What of it could not be made is told by the functions below; the others go on.
  void enter();

  /// The namespaces; without them nothing is known of what follows.
  [[nodiscard]] const Status& entered() const noexcept { return entered_; }
  /// A bpffs of its own at the usual place.
  [[nodiscard]] const Status& bpffs() const noexcept { return bpffs_; }
  /// One end of a new veth pair, one queue on each side, both ends up. Only with a bpffs of its own, because
  /// libxdp pins below whatever bpffs it finds.
  Result<kern::Interface> new_veth();
  /// 127.0.0.1 answers: for sockets that talk to each other.
  Status loopback();
  /// The instance object, loaded once. Borrowed.
  Result<const kern::Object*> object();
  /// What the verifier says of each of its programs.
  Result<std::vector<kern::VerifiedProgram>> programs();

 private:
  Status entered_ = fail(Exit::Failed, "not tried: this takes root; run it as root");
  Status bpffs_ = entered_;
  std::optional<Result<kern::Object>> object_;
  std::optional<Result<std::vector<kern::VerifiedProgram>>> programs_;
  int veths_ = 0;
};

}  // namespace agentnic::probe
