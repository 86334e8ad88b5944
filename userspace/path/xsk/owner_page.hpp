// SPDX-License-Identifier: Apache-2.0
#pragma once

/// What an owner of an AF_XDP socket tells XDP of itself, so that frames take path A while it does not keep
/// up: bpf/abi/owner.h.

#include <cstdint>
#include <memory>

#include "abi/owner.h"
#include "base/result.hpp"

namespace agentnic::path {

/// Mapped. One thread.
class OwnerPage final {
 public:
  /// `map_fd`: of a new page. `room`: see looked().
  static Result<OwnerPage> open(int map_fd, std::uint32_t room);

  /// A look at the ring, how many frames it brought, and for how many there is room from now on.
  void looked(std::uint32_t frames, std::uint32_t room) noexcept;
  /// All that the kernel has lost of what was redirected, since the socket was made.
  void lost(std::uint64_t frames) noexcept;
  /// Whether there is more that was redirected than was received or lost. It may be on its way.
  [[nodiscard]] bool waits() const noexcept;
  /// Frames that took path A because of this owner.
  [[nodiscard]] std::uint64_t refused() const noexcept;

 private:
  struct Unmap {
    void operator()(anic_owner* page) const noexcept;
  };
  OwnerPage() = default;
  void publish() noexcept;

  std::unique_ptr<anic_owner, Unmap> page_;
  std::uint64_t received_ = 0;
  std::uint64_t lost_ = 0;
};

}  // namespace agentnic::path
