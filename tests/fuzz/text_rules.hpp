// SPDX-License-Identifier: Apache-2.0
#pragma once

/// What fuzz targets hold all texts to.

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <string_view>

namespace agentnic {

inline void hold(bool holds, const char* rule, const std::string& text = {}) {
  if (holds) return;
  std::fprintf(stderr, "does not hold: %s: '%s'\n", rule, text.c_str());
  std::abort();
}

/// Of ASCII or, in UTF-8, of C1: either can take over the terminal that shows it.
inline bool has_control_characters(std::string_view text) {
  bool is_second = false;  // after the first byte of U+0080 to U+00BF
  return std::ranges::any_of(text, [&is_second](char c) {
    const auto byte = static_cast<unsigned char>(c);
    const bool found = byte < 0x20 || byte == 0x7f || (is_second && byte >= 0x80 && byte < 0xa0);
    is_second = byte == 0xc2;
    return found;
  });
}

}  // namespace agentnic
