// SPDX-License-Identifier: Apache-2.0
/// Fuzz target: the policy language, on the text of a document.

#include <cstdint>

#include "policy/compile.hpp"
#include "policy/parse.hpp"
#include "text_rules.hpp"

using namespace agentnic;

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
