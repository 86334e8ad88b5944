// SPDX-License-Identifier: Apache-2.0
#pragma once

/// The Internet checksum (RFC 1071) in its two steps. Sums are of words as they lie in memory, so that what
/// is added to them has to be in network order, and so is the result.

#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>

namespace agentnic {

/// Adds `size` bytes to an unfolded sum.
inline std::uint64_t checksum_add(const std::byte* data, std::size_t size, std::uint64_t sum) noexcept {
  // The sum of 32-bit words folds to the same 16 bits (RFC 1071, section 2). Four sums side by side do not
  // wait for each other.
  std::uint64_t more[3] = {};
  for (; size >= 16; data += 16, size -= 16) {
    std::uint64_t words[2] = {};
    std::memcpy(words, data, sizeof(words));
    sum += static_cast<std::uint32_t>(words[0]);
    more[0] += words[0] >> 32U;
    more[1] += static_cast<std::uint32_t>(words[1]);
    more[2] += words[1] >> 32U;
  }
  sum += more[0] + more[1] + more[2];
  for (; size >= 4; data += 4, size -= 4) {
    std::uint32_t word = 0;
    std::memcpy(&word, data, sizeof(word));
    sum += word;
  }
  std::uint32_t rest = 0;
  std::memcpy(&rest, data, size);
  return sum + rest;
}

/// Folds to 16 bits; what stands in a header is the complement of it.
inline std::uint16_t checksum_fold(std::uint64_t sum) noexcept {
  while (sum >> 16U) sum = (sum & 0xffffU) + (sum >> 16U);
  return static_cast<std::uint16_t>(sum);
}

/// Adds bytes that come after an odd number of others: the first is the second of its word.
inline std::uint64_t checksum_add_odd(const std::byte* data, std::size_t size, std::uint64_t sum) noexcept {
  // The sum of swapped words is the swapped sum (RFC 1071, section 2 (B)).
  return sum + std::byteswap(checksum_fold(checksum_add(data, size, 0)));
}

}  // namespace agentnic
