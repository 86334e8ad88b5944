// SPDX-License-Identifier: Apache-2.0
#include "policy/model.hpp"

#include <netinet/in.h>

#include <algorithm>

namespace agentnic::policy {
namespace {

constexpr std::array<std::string_view, ANIC_CLASS__MAX> kClassNames = {"?",   "control",   "default",
                                                                       "rpc", "retrieval", "bulk"};
constexpr std::array<std::string_view, ANIC_PATH__MAX> kPathNames = {"?", "kernel", "xsk"};

}  // namespace

bool Policy::needs_xsk() const {
  return std::ranges::any_of(services, [](const Service& service) { return service.path == ANIC_PATH_XSK; });
}

std::string_view class_name(std::uint8_t cls) { return kClassNames[cls < ANIC_CLASS__MAX ? cls : 0]; }

std::string_view path_name(std::uint8_t path) { return kPathNames[path < ANIC_PATH__MAX ? path : 0]; }

std::string_view protocol_name(std::uint8_t protocol) {
  if (protocol == IPPROTO_UDP) return "udp";
  if (protocol == IPPROTO_TCP) return "tcp";
  return "?";
}

std::string digest_text(const std::uint8_t* bytes, std::size_t count) {
  constexpr std::string_view kDigits = "0123456789abcdef";
  std::string text;
  for (std::size_t i = 0; i < count; ++i) {
    text += kDigits[bytes[i] >> 4U];
    text += kDigits[bytes[i] & 15U];
  }
  return text;
}

}  // namespace agentnic::policy
