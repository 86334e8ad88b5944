// SPDX-License-Identifier: Apache-2.0
/// Fuzz target: a recording of an agent, which somebody else may have written.

#include <cstdint>
#include <string>
#include <string_view>

#include "agent/recording.hpp"
#include "text_rules.hpp"

using namespace agentnic;

namespace {

/// What was read, written again.
std::string written(const agent::Step& step, const agent::Told& told) {
  const std::uint64_t tick = step.observation.tick;
  std::string lines =
      agent::observation_line(step.observation) + agent::answer_line(step.proposals, tick, told.names);
  for (const agent::Decision& decision : step.decisions)
    lines += agent::decision_line(decision, tick, told.hello.session, told.names);
  return lines;
}

/// Adds all lines to it; the steps that they make, written again.
std::string steps(agent::RecordingParser& parser, std::string_view text) {
  std::string lines;
  for (std::size_t end = 0; (end = text.find('\n')) != std::string_view::npos; text.remove_prefix(end + 1)) {
    const auto step = parser.add(text.substr(0, end));
    if (!step) {
      const Error& error = step.error();
      hold(error.exit == Exit::BadInput, "a bad recording is bad input", error.text());
      hold(error.what.starts_with("line "), "an error names the line", error.text());
      hold(!has_control_characters(error.text()), "an error is one line of text", error.text());
      break;
    }
    if (!*step) continue;
    hold((*step)->decisions.size() == (*step)->proposals.size(), "a step has all its decisions");
    lines += written(**step, parser.told());
  }
  return lines;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  agent::RecordingParser parser;
  const std::string lines = steps(parser, text);
  if (!parser.begun()) return 0;
  const std::size_t head = text.find('\n') + 1;
  const std::size_t hello = text.find('\n', head) + 1;
  agent::RecordingParser again;
  hold(steps(again, std::string(text.substr(0, hello)) + lines) == lines, "what is written is what was read",
       lines);
  return 0;
}
