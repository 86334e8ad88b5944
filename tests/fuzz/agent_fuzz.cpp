// SPDX-License-Identifier: Apache-2.0
/// Fuzz target: what a program that is the agent may send, on one line of it.

#include <cstdint>
#include <cstring>
#include <string_view>

#include "agent/wire.hpp"
#include "text_rules.hpp"

using namespace agentnic;

namespace {

constexpr std::uint64_t kTick = 7;

agent::Names names() { return {.tenants = {{1, "acme"}, {64, "globex"}}, .services = {{3, "chat"}}}; }

bool same(const std::vector<agent::Proposal>& a, const std::vector<agent::Proposal>& b) {
  return std::ranges::equal(a, b, [](const agent::Proposal& one, const agent::Proposal& other) {
    return one.id == other.id && std::memcmp(&one.change, &other.change, sizeof(one.change)) == 0;
  });
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const auto parsed = agent::parse_answer({reinterpret_cast<const char*>(data), size}, kTick, names());
  if (!parsed) {
    const Error& error = parsed.error();
    hold(error.exit == Exit::BadInput, "a bad answer is bad input", error.text());
    hold(!has_control_characters(error.text()), "an error is one line of text", error.text());
    hold(agent::error_line(error.text()).find('\n') + 1 == agent::error_line(error.text()).size(),
         "an error is one line of JSON", error.text());
    return 0;
  }
  hold(parsed->size() <= ANIC_DRAIN_MAX, "no more proposals than a drain takes");
  for (const agent::Proposal& proposal : *parsed) {
    const anic_proposal& change = proposal.change;
    hold(names().tenants.contains(change.tenant), "tenants are those that were granted");
    hold(change.service == 0 || names().services.contains(change.service), "and so are services");
    hold(change.reason[0] != '\0' && change.reason[sizeof(change.reason) - 1] == '\0', "a reason is a text");
  }
  const auto again = agent::parse_answer(agent::answer_line(*parsed, kTick, names()), kTick, names());
  hold(again.has_value() && same(*again, *parsed), "what is written is what was read");
  return 0;
}
