// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <infiniband/verbs.h>

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>

#include "base/result.hpp"
#include "path/mapping.hpp"
#include "path/rdma/device.hpp"

namespace agentnic::path {

/// Memory that an RDMA device reads and writes: its pages stay where they are as long as it lives, so it is
/// made once and used again. It goes before its device.
class RdmaMemory final {
 public:
  /// `access`: IBV_ACCESS_*. Failed, with the remedy, when the limit of locked memory (RLIMIT_MEMLOCK) is too
  /// low for it; known before the device is asked.
  static Result<RdmaMemory> open(const RdmaDevice& device, std::size_t bytes, unsigned access);

  [[nodiscard]] std::span<std::byte> bytes() const noexcept { return {memory_.get(), memory_.size()}; }
  [[nodiscard]] std::uint64_t address() const noexcept {
    return reinterpret_cast<std::uint64_t>(memory_.get());
  }
  [[nodiscard]] std::uint32_t local_key() const noexcept { return region_->lkey; }
  [[nodiscard]] std::uint32_t remote_key() const noexcept { return region_->rkey; }
  /// What registering it took: faulting its pages in, pinning them, telling the device.
  [[nodiscard]] std::uint64_t registration_ns() const noexcept { return registration_ns_; }

 private:
  struct Release {
    void operator()(ibv_mr* region) const noexcept { ibv_dereg_mr(region); }
  };
  RdmaMemory() = default;
  Mapping memory_;
  std::unique_ptr<ibv_mr, Release> region_;
  std::uint64_t registration_ns_ = 0;
};

}  // namespace agentnic::path
