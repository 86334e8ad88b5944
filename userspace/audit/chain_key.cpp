// SPDX-License-Identifier: Apache-2.0
#include "audit/chain_key.hpp"

#include <fmt/format.h>
#include <sodium.h>

#include <charconv>
#include <cstring>

namespace agentnic::audit {
namespace {

constexpr std::string_view kHead = "agentnic-chain-key/1\n";
constexpr std::uint64_t kAheadMost = 100'000;
static_assert(crypto_auth_hmacsha256_KEYBYTES == sizeof(ChainKey::secret));
static_assert(crypto_auth_hmacsha256_BYTES == sizeof(ChainKey::secret));

std::array<std::uint8_t, 32> derive(const ChainKey& key, std::string_view word) {
  std::array<std::uint8_t, 32> made{};
  crypto_auth_hmacsha256(made.data(), reinterpret_cast<const unsigned char*>(word.data()), word.size(),
                         key.secret.data());
  return made;
}

}  // namespace

Words ChainKey::first() const {
  const auto bytes = derive(*this, "agentnic chain");
  Words key;
  for (unsigned i = 0; i < 8; ++i) {
    key.low |= std::uint64_t{bytes[i]} << (8 * i);
    key.high |= std::uint64_t{bytes[8 + i]} << (8 * i);
  }
  return key;
}

ChainKey ChainKey::next() const { return {.number = number + 1, .secret = derive(*this, "agentnic next")}; }

std::optional<ChainKey> ChainKey::of(std::uint64_t later) const {
  if (later < number || later - number > kAheadMost) return std::nullopt;
  ChainKey key = *this;
  while (key.number < later) key = key.next();
  return key;
}

Result<ChainKey> make_chain_key() {
  if (sodium_init() < 0) return fail(Exit::Failed, "start libsodium");
  ChainKey key;
  randombytes_buf(key.secret.data(), key.secret.size());
  return key;
}

std::string chain_key_text(const ChainKey& key) {
  char hex[2 * sizeof(key.secret) + 1];  // in constant time
  sodium_bin2hex(hex, sizeof(hex), key.secret.data(), key.secret.size());
  return fmt::format("{}{}\n{}\n", kHead, key.number, hex);
}

Result<ChainKey> parse_chain_key(std::string_view text) {
  ChainKey key;
  if (text.starts_with(kHead)) {
    const std::string_view rest = text.substr(kHead.size());
    const std::size_t end = rest.find('\n');
    if (end != rest.npos) {
      const auto [stop, code] = std::from_chars(rest.data(), rest.data() + end, key.number);
      std::size_t size = 0;
      const std::string_view hex = rest.substr(end + 1);
      sodium_hex2bin(key.secret.data(), key.secret.size(), hex.data(), hex.size(), nullptr, &size, nullptr);
      if (code == std::errc() && stop == rest.data() + end && key.number != 0 && size == key.secret.size() &&
          chain_key_text(key) == text)
        return key;
    }
  }
  return fail(
      Exit::BadInput, "read the chain key: it is not one",
      "three lines: agentnic-chain-key/1, a number, 64 hexadecimal digits; agentnic-audit keygen makes one");
}

}  // namespace agentnic::audit
