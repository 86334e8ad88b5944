// SPDX-License-Identifier: Apache-2.0
#pragma once

/// The secret from which the key of each chain of records comes. It goes forward with each chain, so that
/// whoever takes it from the host today forges nothing of earlier chains; who kept an earlier one can follow.
/// Pure, but for the making.
///
///     key of chain n   the first 16 bytes of HMAC-SHA-256 (RFC 2104) of "agentnic chain" under secret n
///     secret n + 1     HMAC-SHA-256 of "agentnic next" under secret n

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "audit/chain.hpp"
#include "base/result.hpp"

namespace agentnic::audit {

struct ChainKey {
  std::uint64_t number = 1;  ///< of the chain that is the next
  std::array<std::uint8_t, 32> secret{};

  /// What the kernel gets, and nobody else needs.
  [[nodiscard]] Words first() const;
  [[nodiscard]] ChainKey next() const;
  /// That of a later chain, or this one's; nothing: it was before this one, or is too far ahead to be true.
  [[nodiscard]] std::optional<ChainKey> of(std::uint64_t later) const;
};

/// A new one, at random.
Result<ChainKey> make_chain_key();

/// Three lines: `agentnic-chain-key/1`, the number, the secret in hexadecimal.
std::string chain_key_text(const ChainKey& key);
Result<ChainKey> parse_chain_key(std::string_view text);

}  // namespace agentnic::audit
