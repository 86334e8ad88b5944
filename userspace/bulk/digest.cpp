// SPDX-License-Identifier: Apache-2.0
#include "bulk/digest.hpp"

#include <xxhash.h>

#include <algorithm>

#include "base/file.hpp"
#include "base/stop.hpp"

namespace agentnic::bulk {
namespace {

constexpr std::size_t kBuffer = 256 << 10;

}  // namespace

void Hasher::Free::operator()(XXH3_state_s* state) const noexcept { XXH3_freeState(state); }

Hasher::Hasher(Digest kind) : kind_(kind) {
  if (kind == Digest::Xxh128) {
    xxh_.reset(XXH3_createState());
    XXH3_128bits_reset(xxh_.get());
  } else if (kind == Digest::Sha256) {
    sha256_init(&sha_);
  }
}

void Hasher::add(std::span<const std::byte> bytes) noexcept {
  if (kind_ == Digest::Xxh128) {
    XXH3_128bits_update(xxh_.get(), bytes.data(), bytes.size());
  } else if (kind_ == Digest::Sha256) {
    sha256_update(&sha_, bytes.size(), reinterpret_cast<const std::uint8_t*>(bytes.data()));
  }
}

Bytes Hasher::digest() const {
  if (kind_ == Digest::Xxh128) {
    XXH128_canonical_t canonical;
    XXH128_canonicalFromHash(&canonical, XXH3_128bits_digest(xxh_.get()));
    const auto* first = reinterpret_cast<const std::byte*>(canonical.digest);
    return {first, first + sizeof(canonical.digest)};
  }
  if (kind_ == Digest::Sha256) {
    sha256_ctx copy = sha_;
    Bytes bytes(SHA256_DIGEST_SIZE);
    sha256_digest(&copy, bytes.size(), reinterpret_cast<std::uint8_t*>(bytes.data()));
    return bytes;
  }
  return {};
}

Result<Hasher> hash_beginning(int fd, std::uint64_t bytes, Digest kind) {
  Hasher hasher(kind);
  if (!hasher.counts()) return hasher;
  std::vector<std::byte> buffer(kBuffer);
  for (std::uint64_t at = 0; at < bytes;) {
    const auto part = std::span(buffer).first(std::min<std::uint64_t>(buffer.size(), bytes - at));
    if (stop_requested() || read_at(fd, part, at) != part.size())
      return fail(Exit::Failed, "read what is there already");
    hasher.add(part);
    at += part.size();
  }
  return hasher;
}

const char* digest_name(Digest kind) {
  switch (kind) {
    case Digest::Xxh128:
      return "xxh128";
    case Digest::Sha256:
      return "sha256";
    case Digest::None:
      break;
  }
  return "none";
}

}  // namespace agentnic::bulk
