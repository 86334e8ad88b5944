// SPDX-License-Identifier: Apache-2.0
#pragma once

/// The four rings of an AF_XDP socket, mapped from its descriptor, whoever made it. libxdp's own sockets
/// cannot be made of a descriptor; its accessors to rings are used.

#include <xdp/xsk.h>

#include <cstdint>

#include "base/result.hpp"

namespace agentnic::path {

/// Mapped memory of somebody else's.
class Mapping final {
 public:
  static Result<Mapping> map(int fd, std::size_t bytes, std::int64_t offset, const char* what);
  Mapping() = default;
  Mapping(Mapping&& other) noexcept;
  Mapping& operator=(Mapping&& other) noexcept;
  Mapping(const Mapping&) = delete;
  Mapping& operator=(const Mapping&) = delete;
  ~Mapping();

  [[nodiscard]] std::byte* get() const noexcept { return at_; }
  [[nodiscard]] std::size_t size() const noexcept { return bytes_; }

 private:
  std::byte* at_ = nullptr;
  std::size_t bytes_ = 0;
};

/// One thread. What the kernel has of them is read when they are mapped.
class XskRings final {
 public:
  /// `entries`: of each ring.
  static Result<XskRings> map(int socket_fd, std::uint32_t entries);

  xsk_ring_prod fill{};
  xsk_ring_cons completion{};
  xsk_ring_cons rx{};
  xsk_ring_prod tx{};

 private:
  Mapping maps_[4];
};

}  // namespace agentnic::path
