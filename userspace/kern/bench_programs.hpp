// SPDX-License-Identifier: Apache-2.0
#pragma once

/// The programs of `make bench`: the packet path on many flows, and parts of the guardian.

#include <memory>

#include "abi/bench.h"
#include "base/result.hpp"
#include "kern/maps.hpp"

struct bench_bpf;

namespace agentnic::kern {

/// Owns the loaded skeleton; descriptors are borrowed.
class BenchPrograms final {
 public:
  /// Over the maps of an instance.
  static Result<BenchPrograms> load(const Maps& maps);

  [[nodiscard]] Status set(const anic_bench& setup) const;
  [[nodiscard]] int flows_fd() const noexcept;    ///< the packet path on the next flow
  [[nodiscard]] int noop_fd() const noexcept;     ///< choosing the next flow alone
  [[nodiscard]] int nothing_fd() const noexcept;  ///< takes an order, and does nothing
  [[nodiscard]] int chain_fd() const noexcept;    ///< records of the audit, as many as an order's `what`
  [[nodiscard]] int fill_fd() const noexcept;     ///< all that a tick can find to do, at an order's time
  [[nodiscard]] int tick_fd() const noexcept;     ///< one tick at an order's time; answers with ns, as chain

 private:
  struct Destroy {
    void operator()(bench_bpf* skeleton) const noexcept;
  };
  std::unique_ptr<bench_bpf, Destroy> skeleton_;
};

}  // namespace agentnic::kern
