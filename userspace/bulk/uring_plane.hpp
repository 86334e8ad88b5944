// SPDX-License-Identifier: Apache-2.0
#pragma once

/// Path A over io_uring: on the wire what TcpPlane is, so that each end may choose. Content takes a buffer;
/// who sends reads ahead, and who receives goes on while what came before is written.

#include <deque>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "bulk/plane.hpp"
#include "path/uring/pump.hpp"

namespace agentnic::bulk {

class UringPlane final : public Plane {
 public:
  /// For this thread. Unsupported: there is no io_uring that it can use.
  static Result<std::unique_ptr<UringPlane>> open();
  Result<Outcome> send(Channel& channel, const Range& range, Hasher& hasher, Meter& meter) override;
  Result<Outcome> receive(Channel& channel, const Range& range, Hasher& hasher, Meter& meter) override;
  [[nodiscard]] std::string name() const override { return "uring"; }

 private:
  class Sending;
  class Receiving;
  explicit UringPlane(path::UringPump pump) : pump_(std::move(pump)) {}
  path::UringPump pump_;
};

}  // namespace agentnic::bulk
