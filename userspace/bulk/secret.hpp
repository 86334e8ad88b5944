// SPDX-License-Identifier: Apache-2.0
#pragma once

/// The secret that both ends of a session share, and what proves to each that the other knows it.

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>

#include "base/result.hpp"
#include "bulk/wire.hpp"

namespace agentnic::bulk {

using MacKey = std::array<std::byte, 32>;
using Mac = std::array<std::byte, kMacBytes>;

/// Of one session: BLAKE2b of both nonces, keyed by the secret. One key for each direction, so that nothing
/// can be sent back to who sent it.
struct SessionKeys {
  MacKey client{};  ///< of what the client sends
  MacKey server{};
};

/// Wiped when it goes.
class Secret final {
 public:
  /// The content of a file that its owner alone may use, at least 16 bytes, without a new line at its end.
  static Result<Secret> read(const std::string& path);
  explicit Secret(std::string text) : text_(std::move(text)) {}
  Secret(const Secret&) = delete;
  Secret& operator=(const Secret&) = delete;
  Secret(Secret&& other) noexcept : text_(std::exchange(other.text_, {})) {}
  Secret& operator=(Secret&&) = delete;
  ~Secret();

  [[nodiscard]] SessionKeys keys(const Hello& client, const Hello& server) const;

 private:
  std::string text_;
};

/// A fresh nonce.
Result<Hello> make_hello();

/// Of the frame with this number among those that have a MAC: BLAKE2b of number, header and payload.
Mac mac_of(const MacKey& key, std::uint64_t number, std::span<const std::byte, kHeaderBytes> header,
           std::span<const std::byte> payload);
/// In a time that says nothing about where they differ.
bool same_mac(const Mac& one, const Mac& other);

}  // namespace agentnic::bulk
