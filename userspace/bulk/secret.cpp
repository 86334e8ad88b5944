// SPDX-License-Identifier: Apache-2.0
#include "bulk/secret.hpp"

#include <sodium.h>

#include <cstring>

#include "base/file.hpp"

namespace agentnic::bulk {
namespace {

constexpr std::size_t kSecretLeast = 16;
constexpr std::size_t kSecretMost = 4096;
constexpr std::string_view kPurpose = "agentnic-bulk session keys 1";

const unsigned char* bytes_of(std::span<const std::byte> bytes) {
  return reinterpret_cast<const unsigned char*>(bytes.data());
}

}  // namespace

Result<Secret> Secret::read(const std::string& path) {
  std::string text = ANIC_TRY(read_secret_file(path, kSecretMost));
  while (text.ends_with('\n') || text.ends_with('\r')) text.pop_back();
  if (text.size() < kSecretLeast) {
    return fail(Exit::BadInput, "read " + path + ": the secret has less than 16 bytes",
                "head -c 32 /dev/urandom | base64 > " + path);
  }
  return Secret(std::move(text));
}

Secret::~Secret() { sodium_memzero(text_.data(), text_.size()); }

SessionKeys Secret::keys(const Hello& client, const Hello& server) const {
  // The secret may have any length, a key of BLAKE2b at most 64 bytes.
  std::array<unsigned char, crypto_generichash_KEYBYTES_MAX> root{};
  crypto_generichash(root.data(), root.size(), reinterpret_cast<const unsigned char*>(text_.data()),
                     text_.size(), nullptr, 0);
  std::array<unsigned char, 64> both{};
  crypto_generichash_state state;
  crypto_generichash_init(&state, root.data(), root.size(), both.size());
  crypto_generichash_update(&state, reinterpret_cast<const unsigned char*>(kPurpose.data()), kPurpose.size());
  crypto_generichash_update(&state, bytes_of(client.nonce), client.nonce.size());
  crypto_generichash_update(&state, bytes_of(server.nonce), server.nonce.size());
  crypto_generichash_final(&state, both.data(), both.size());
  SessionKeys keys;
  std::memcpy(keys.client.data(), both.data(), keys.client.size());
  std::memcpy(keys.server.data(), both.data() + keys.client.size(), keys.server.size());
  sodium_memzero(root.data(), root.size());
  sodium_memzero(both.data(), both.size());
  return keys;
}

Result<Hello> make_hello() {
  if (sodium_init() < 0) return fail(Exit::Failed, "start libsodium");
  Hello hello;
  randombytes_buf(hello.nonce.data(), hello.nonce.size());
  return hello;
}

Mac mac_of(const MacKey& key, std::uint64_t number, std::span<const std::byte, kHeaderBytes> header,
           std::span<const std::byte> payload) {
  std::array<unsigned char, sizeof(number)> place{};
  for (std::size_t i = 0; i < place.size(); ++i)
    place[i] = static_cast<unsigned char>(number >> (56 - 8 * i));
  crypto_generichash_state state;
  Mac mac{};
  crypto_generichash_init(&state, bytes_of(key), key.size(), mac.size());
  crypto_generichash_update(&state, place.data(), place.size());
  crypto_generichash_update(&state, bytes_of(header), header.size());
  crypto_generichash_update(&state, bytes_of(payload), payload.size());
  crypto_generichash_final(&state, reinterpret_cast<unsigned char*>(mac.data()), mac.size());
  return mac;
}

bool same_mac(const Mac& one, const Mac& other) {
  return sodium_memcmp(one.data(), other.data(), one.size()) == 0;
}

}  // namespace agentnic::bulk
