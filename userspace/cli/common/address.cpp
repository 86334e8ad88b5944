// SPDX-License-Identifier: Apache-2.0
#include "cli/common/address.hpp"

#include <fmt/format.h>

#include <charconv>
#include <cstdint>

namespace agentnic::cli {

Result<path::Address> parse_address(const std::string& text) {
  const std::size_t colon = text.rfind(':');
  std::uint16_t port = 0;
  if (colon != std::string::npos) {
    const auto [end, code] = std::from_chars(text.data() + colon + 1, text.data() + text.size(), port);
    std::string host = text.substr(0, colon);
    if (host.starts_with('[') && host.ends_with(']')) host = host.substr(1, host.size() - 2);
    if (code == std::errc() && end == text.data() + text.size()) return path::Address::parse(host, port);
  }
  return fail(Exit::BadInput, fmt::format("{} is no address and port", text),
              "10.0.0.9:9000 or [2001:db8::9]:9000");
}

}  // namespace agentnic::cli
