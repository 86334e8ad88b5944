// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>

#include "base/result.hpp"

namespace agentnic::path {

/// Mapped memory, in whole pages.
class Mapping final {
 public:
  /// What `fd` has at `offset`, shared with whoever has it too.
  static Result<Mapping> map(int fd, std::size_t bytes, std::int64_t offset, const char* what);
  /// Memory of our own, zeroed, in huge pages where the kernel has some to give.
  static Result<Mapping> anonymous(std::size_t bytes, const char* what);
  Mapping() = default;
  Mapping(Mapping&& other) noexcept;
  Mapping& operator=(Mapping&& other) noexcept;
  Mapping(const Mapping&) = delete;
  Mapping& operator=(const Mapping&) = delete;
  ~Mapping();

  [[nodiscard]] std::byte* get() const noexcept { return at_; }
  [[nodiscard]] std::size_t size() const noexcept { return bytes_; }

 private:
  static Result<Mapping> of(void* at, std::size_t bytes, const char* what);
  std::byte* at_ = nullptr;
  std::size_t bytes_ = 0;
};

}  // namespace agentnic::path
