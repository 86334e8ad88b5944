// SPDX-License-Identifier: Apache-2.0
#pragma once

/// The chain that records are in, as bpf/abi/audit.h lays it down: recomputed from a key. Pure.

#include <cstdint>
#include <optional>
#include <span>

#include "abi/audit.h"

namespace agentnic::audit {

/// Two words: a MAC, or a key.
struct Words {
  std::uint64_t low = 0;
  std::uint64_t high = 0;

  friend bool operator==(const Words&, const Words&) = default;
};

/// SipHash-2-4 with 128 bits of output, of words in little-endian order.
Words siphash(const Words& key, std::span<const std::uint64_t> words);

/// A place in the chain: after record `seq`. Before the first: the first key, and zeros.
struct Chain {
  Words key;  ///< of the segment of the next record
  std::uint64_t seq = 0;
  Words mac;  ///< of record `seq`
};

/// What the MAC of the next record must be.
Words mac_of(const Chain& chain, const anic_record& record);

/// Goes on by a record that has this MAC: changes the key at the end of a segment.
void advance(Chain& chain, const Words& mac);

/// Goes on by records that must be the next ones, in order. Nothing: all are. Else the number of the first
/// that is missing, in another's place, or not what the kernel wrote; `chain` then stands before it.
std::optional<std::uint64_t> first_bad(Chain& chain, std::span<const anic_record> records);

}  // namespace agentnic::audit
