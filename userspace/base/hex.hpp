// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <cstddef>
#include <ranges>
#include <span>
#include <string>

namespace agentnic {

/// Bytes as lower-case hexadecimal, as digests are written; not for secrets.
template <std::ranges::contiguous_range Bytes>
  requires(sizeof(std::ranges::range_value_t<Bytes>) == 1)
std::string hex(const Bytes& bytes) {
  const auto raw = std::as_bytes(std::span(bytes));
  return fmt::format("{:02x}", fmt::join(raw | std::views::transform(std::to_integer<unsigned>), ""));
}

}  // namespace agentnic
