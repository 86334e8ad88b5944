// SPDX-License-Identifier: Apache-2.0
#pragma once

/// Digests of content, as it goes by: XXH3 of 128 bits, as `xxhsum -H2` prints it, or SHA-256.

#include <nettle/sha2.h>

#include <cstddef>
#include <memory>
#include <span>
#include <string>

#include "base/result.hpp"
#include "bulk/wire.hpp"

struct XXH3_state_s;

namespace agentnic::bulk {

class Hasher final {
 public:
  explicit Hasher(Digest kind);
  void add(std::span<const std::byte> bytes) noexcept;
  /// Of all that was added; empty for Digest::None.
  [[nodiscard]] Bytes digest() const;
  [[nodiscard]] bool counts() const noexcept { return kind_ != Digest::None; }

 private:
  struct Free {
    void operator()(XXH3_state_s* state) const noexcept;
  };
  Digest kind_;
  std::unique_ptr<XXH3_state_s, Free> xxh_;
  sha256_ctx sha_{};
};

/// Of what a file begins with, to go on from there. Failed, when it cannot be read so far.
Result<Hasher> hash_beginning(int fd, std::uint64_t bytes, Digest kind);

/// "xxh128", "sha256", "none".
const char* digest_name(Digest kind);

}  // namespace agentnic::bulk
