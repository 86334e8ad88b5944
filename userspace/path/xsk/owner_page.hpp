// SPDX-License-Identifier: Apache-2.0
#pragma once

/// What an owner of an AF_XDP socket tells XDP of itself, so that frames take path A while it does not keep
/// up: bpf/abi/owner.h.

#include <cstdint>
#include <memory>

#include "abi/owner.h"
#include "base/result.hpp"
#include "base/unique_fd.hpp"

namespace agentnic::path {

/// A map of its own, mapped. One thread.
class OwnerPage final {
 public:
  /// `room`: frames that the receive ring holds.
  static Result<OwnerPage> make(std::uint32_t room);

  /// Puts it where XDP looks for that of this queue: before its socket gets there.
  [[nodiscard]] Status enter(int pages_map_fd, std::uint32_t queue) const;

  /// A look at the ring, and how many frames it brought.
  void looked(std::uint32_t frames) noexcept;
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

  UniqueFd map_;
  std::unique_ptr<anic_owner, Unmap> page_;
  std::uint64_t received_ = 0;
  std::uint64_t lost_ = 0;
};

}  // namespace agentnic::path
