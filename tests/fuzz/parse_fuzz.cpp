// SPDX-License-Identifier: Apache-2.0
/// Fuzz target: the packet parser, on a frame.

#include <cstdint>
#include <cstdio>
#include <cstdlib>

#include "parse_rules.hpp"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  if (const char* rule = agentnic::broken_rule({reinterpret_cast<const std::byte*>(data), size})) {
    std::fprintf(stderr, "does not hold: %s\n", rule);
    std::abort();
  }
  return 0;
}
