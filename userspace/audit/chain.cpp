// SPDX-License-Identifier: Apache-2.0
#include "audit/chain.hpp"

#include <sodium.h>

#include <array>
#include <cstddef>
#include <cstring>
#include <vector>

namespace agentnic::audit {
namespace {

constexpr std::size_t kMacOffset = offsetof(anic_record, mac);
constexpr std::size_t kWordsOfRecord = kMacOffset / sizeof(std::uint64_t);
static_assert(kWordsOfRecord + 2 == ANIC_MAC_WORDS && kMacOffset % sizeof(std::uint64_t) == 0);
static_assert(crypto_shorthash_siphashx24_BYTES == sizeof(Words));
static_assert(crypto_shorthash_siphashx24_KEYBYTES == sizeof(Words));

void put(std::uint64_t word, unsigned char* to) {
  for (unsigned i = 0; i < sizeof(word); ++i) to[i] = static_cast<unsigned char>(word >> (8 * i));
}

std::uint64_t get(const unsigned char* from) {
  std::uint64_t word = 0;
  for (unsigned i = 0; i < sizeof(word); ++i) word |= std::uint64_t{from[i]} << (8 * i);
  return word;
}

}  // namespace

Words siphash(const Words& key, std::span<const std::uint64_t> words) {
  std::array<unsigned char, sizeof(Words)> key_bytes{};
  put(key.low, key_bytes.data());
  put(key.high, key_bytes.data() + sizeof(std::uint64_t));
  std::vector<unsigned char> bytes(words.size_bytes());
  for (std::size_t i = 0; i < words.size(); ++i) put(words[i], bytes.data() + i * sizeof(std::uint64_t));
  std::array<unsigned char, sizeof(Words)> out{};
  crypto_shorthash_siphashx24(out.data(), bytes.data(), bytes.size(), key_bytes.data());
  return {get(out.data()), get(out.data() + sizeof(std::uint64_t))};
}

Words mac_of(const Chain& chain, const anic_record& record) {
  std::array<std::uint64_t, ANIC_MAC_WORDS> words{chain.mac.low, chain.mac.high};
  std::memcpy(&words[2], &record, kMacOffset);
  return siphash(chain.key, words);
}

void advance(Chain& chain, const Words& mac) {
  chain.mac = mac;
  ++chain.seq;
  if (chain.seq % ANIC_SEGMENT == 0) {
    const std::array<std::uint64_t, 2> next = {ANIC_RATCHET, chain.seq / ANIC_SEGMENT};
    chain.key = siphash(chain.key, next);
  }
}

std::optional<std::uint64_t> first_bad(Chain& chain, std::span<const anic_record> records) {
  for (const anic_record& record : records) {
    const Words mac = mac_of(chain, record);
    if (record.seq != chain.seq + 1 || mac != Words{record.mac[0], record.mac[1]}) return chain.seq + 1;
    advance(chain, mac);
  }
  return std::nullopt;
}

}  // namespace agentnic::audit
