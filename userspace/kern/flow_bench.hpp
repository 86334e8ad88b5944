// SPDX-License-Identifier: Apache-2.0
#pragma once

/// The programs of `make bench` that run the packet path on many flows.

#include <memory>

#include "abi/bench.h"
#include "base/result.hpp"
#include "kern/maps.hpp"

struct bench_bpf;

namespace agentnic::kern {

/// Owns the loaded skeleton; descriptors are borrowed.
class FlowBench final {
 public:
  /// Over the maps of an instance.
  static Result<FlowBench> load(const Maps& maps);

  [[nodiscard]] Status set(const anic_bench& setup) const;
  [[nodiscard]] int flows_fd() const noexcept;  ///< the packet path on the next flow
  [[nodiscard]] int noop_fd() const noexcept;   ///< choosing the next flow alone

 private:
  struct Destroy {
    void operator()(bench_bpf* skeleton) const noexcept;
  };
  std::unique_ptr<bench_bpf, Destroy> skeleton_;
};

}  // namespace agentnic::kern
