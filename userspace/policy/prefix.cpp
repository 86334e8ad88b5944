// SPDX-License-Identifier: Apache-2.0
#include "policy/prefix.hpp"

#include <arpa/inet.h>
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <cstring>
#include <optional>

#include "policy/text.hpp"

namespace agentnic::policy {
namespace {

using Address = std::array<unsigned char, 16>;

constexpr std::uint32_t kMappedBits = 96;
constexpr std::size_t kMappedBytes = kMappedBits / 8;
constexpr std::size_t kIpv4At = ANIC_PREFIX_IPV4_BITS / 8;  // where struct anic_prefix has the address
constexpr Address kMapped = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff};

bool is_v4(std::string_view text) { return text.find(':') == std::string_view::npos; }

std::optional<Address> parse_address(std::string_view text) {
  // inet_pton() would stop at a NUL.
  if (text.find_first_not_of("0123456789abcdefABCDEF:.") != std::string_view::npos) return std::nullopt;
  const std::string copy(text);
  Address address = kMapped;
  const bool good = is_v4(text) ? ::inet_pton(AF_INET, copy.c_str(), &address[kMappedBytes]) == 1
                                : ::inet_pton(AF_INET6, copy.c_str(), address.data()) == 1;
  return good ? std::optional(address) : std::nullopt;
}

std::optional<std::uint32_t> parse_length(std::string_view text, std::uint32_t max) {
  std::uint32_t length = 0;
  const auto [end, code] = std::from_chars(text.data(), text.data() + text.size(), length);
  const bool plain = text == "0" || (!text.empty() && text[0] != '0');
  if (code != std::errc() || end != text.data() + text.size() || !plain || length > max) return std::nullopt;
  return length;
}

Address masked(Address address, std::uint32_t length) {
  for (std::uint32_t i = 0; i < address.size(); ++i) {
    const std::uint32_t kept = std::min(length - std::min(length, i * 8), 8U);
    address[i] = static_cast<unsigned char>(address[i] & (0xff00U >> kept));
  }
  return address;
}

bool is_mapped(const Address& address, std::uint32_t length) {
  return length >= kMappedBits &&
         std::equal(kMapped.begin(), kMapped.begin() + kMappedBytes, address.begin());
}

/// IPv4 where the prefix is of v4-mapped addresses.
anic_prefix as_key(const Address& address, std::uint32_t length) {
  Address words = address;
  if (is_mapped(address, length)) {
    const std::uint32_t first_be = htonl(ANIC_PREFIX_IPV4);
    words = {};
    std::memcpy(words.data(), &first_be, sizeof(first_be));
    std::copy(address.begin() + kMappedBytes, address.end(), &words[kIpv4At]);
    length -= kMappedBits - ANIC_PREFIX_IPV4_BITS;
  }
  anic_prefix prefix{};
  prefix.length = length;
  std::memcpy(prefix.address_be, words.data(), words.size());
  return prefix;
}

}  // namespace

Result<anic_prefix> parse_prefix(std::string_view text) {
  const auto slash = text.find('/');
  const std::string_view address_text = text.substr(0, slash);
  const std::optional<Address> address = parse_address(address_text);
  if (!address) {
    return fail(Exit::BadInput, fmt::format("{} is not an address prefix", json_text(text)),
                R"(such as "10.0.0.0/8", "2001:db8::/32", or an address alone)");
  }
  const std::uint32_t max = is_v4(address_text) ? 32 : 128;
  std::optional<std::uint32_t> length = max;
  if (slash != std::string_view::npos) length = parse_length(text.substr(slash + 1), max);
  if (!length) {
    return fail(Exit::BadInput, fmt::format("the length of {} is not from 0 to {}", json_text(text), max));
  }

  const std::uint32_t bits = *length + (is_v4(address_text) ? kMappedBits : 0);
  const Address kept = masked(*address, bits);
  if (kept != *address) {
    return fail(Exit::BadInput, fmt::format("{} has bits beyond its length", json_text(text)),
                fmt::format("the prefix of this length is \"{}\"", prefix_text(as_key(kept, bits))));
  }
  if (bits > ANIC_PREFIX_RESERVED_BITS && kept[0] == 0 && kept[1] == 0 && !is_mapped(kept, bits)) {
    return fail(Exit::BadInput, fmt::format("{} is in the reserved space ::/16", json_text(text)),
                R"(all of IPv4 is "0.0.0.0/0", all of IPv6 "::/0")");
  }
  return as_key(kept, bits);
}

std::string prefix_text(const anic_prefix& prefix) {
  const bool v4 = prefix.length >= ANIC_PREFIX_IPV4_BITS && prefix.address_be[0] == htonl(ANIC_PREFIX_IPV4);
  char text[INET6_ADDRSTRLEN] = "";
  ::inet_ntop(v4 ? AF_INET : AF_INET6, v4 ? &prefix.address_be[1] : &prefix.address_be[0], text,
              sizeof(text));
  return fmt::format("{}/{}", text, prefix.length - (v4 ? ANIC_PREFIX_IPV4_BITS : 0));
}

}  // namespace agentnic::policy
