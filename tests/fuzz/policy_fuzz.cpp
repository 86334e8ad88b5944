// SPDX-License-Identifier: Apache-2.0
/// Fuzz target: the policy language, on the text of a document.

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <string_view>

#include "policy/compile.hpp"
#include "policy/parse.hpp"

using namespace agentnic;

namespace {

void hold(bool holds, const char* rule, const std::string& text = {}) {
  if (holds) return;
  std::fprintf(stderr, "does not hold: %s: '%s'\n", rule, text.c_str());
  std::abort();
}

/// Of ASCII or, in UTF-8, of C1: either can take over the terminal that shows it.
bool has_control_characters(std::string_view text) {
  bool is_second = false;  // after the first byte of U+0080 to U+00BF
  return std::ranges::any_of(text, [&is_second](char c) {
    const auto byte = static_cast<unsigned char>(c);
    const bool found = byte < 0x20 || byte == 0x7f || (is_second && byte >= 0x80 && byte < 0xa0);
    is_second = byte == 0xc2;
    return found;
  });
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const auto parsed = policy::parse({reinterpret_cast<const char*>(data), size}, "input");
  if (!parsed) {
    const Error& error = parsed.error();
    hold(error.exit == Exit::BadInput, "a bad document is bad input", error.text());
    hold(error.what.starts_with("input:"), "an error names the document", error.text());
    hold(!has_control_characters(error.text()), "an error is one line of text", error.text());
    return 0;
  }
  const auto ids = policy::assign_ids(*parsed, {});
  hold(ids.has_value(), "there are ids for every policy");
  hold(policy::assign_ids(*parsed, *ids).value() == *ids, "who keeps its name keeps its id");
  hold(policy::compile(*parsed, *ids) == policy::compile(*parsed, *ids), "tables follow from policy and ids");
  return 0;
}
