// SPDX-License-Identifier: Apache-2.0
#pragma once

/// The four rings of a queue, mapped from the descriptors of its AF_XDP sockets, whoever made them. libxdp's
/// own sockets cannot be made of a descriptor; its accessors to rings are used.

#include <xdp/xsk.h>

#include <cstdint>

#include "base/result.hpp"
#include "path/mapping.hpp"

namespace agentnic::path {

/// One thread. What the kernel has of them is read when they are mapped.
class XskRings final {
 public:
  /// `entries`: of each ring.
  static Result<XskRings> map(int receiving_fd, int sending_fd, std::uint32_t entries);

  xsk_ring_prod fill{};
  xsk_ring_cons completion{};
  xsk_ring_cons rx{};
  xsk_ring_prod tx{};

 private:
  Mapping maps_[4];
};

}  // namespace agentnic::path
