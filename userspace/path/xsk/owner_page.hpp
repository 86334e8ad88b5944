// SPDX-License-Identifier: Apache-2.0
#pragma once

/// What an owner of an AF_XDP socket tells XDP of itself, so that frames take path A while it does not keep
/// up: bpf/abi/owner.h.

#include <cstdint>
#include <memory>
#include <optional>

#include "abi/owner.h"
#include "base/result.hpp"

namespace agentnic::path {

/// Mapped. One thread. XDP reads it on another CPU: nothing is written that has not changed, and a sign of
/// life is not given with every look of a busy loop.
class OwnerPage final {
 public:
  /// `map_fd`: of a new page. `room`: see looked(). `longest`: bytes of a frame; longer ones take path A.
  static Result<OwnerPage> open(int map_fd, std::uint32_t room, std::uint32_t longest);

  /// A look at the ring, how many packets it brought, and for how many there is room from now on. If one of
  /// them is a sample of turnaround, its number among them; it is outstanding until turned() or given_up().
  std::optional<std::uint32_t> looked(std::uint32_t packets, std::uint32_t room) noexcept;
  /// A sign of life, without a look.
  void lives() noexcept;
  /// The answer to the sample has left.
  void turned() noexcept;
  /// There will be none.
  void given_up() noexcept;
  /// All packets that were given to the device.
  void transmitted(std::uint64_t packets) noexcept;
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
  std::optional<std::uint32_t> sample(std::uint32_t packets) noexcept;

  std::unique_ptr<anic_owner, Unmap> page_;
  std::uint32_t room_ = 0;   // as it was published
  std::uint32_t quiet_ = 0;  // looks at an empty ring since
  std::uint64_t received_ = 0;
  std::uint64_t lost_ = 0;
  std::uint64_t sampled_ = 0;    // sample_at of what was taken or given up last
  std::uint64_t sample_at_ = 0;  // of what was taken up and is outstanding
  std::uint64_t sample_ns_ = 0;
};

}  // namespace agentnic::path
