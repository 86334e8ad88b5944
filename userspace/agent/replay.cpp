// SPDX-License-Identifier: Apache-2.0
#include "agent/replay.hpp"

#include <utility>

#include "base/stop.hpp"

namespace agentnic::agent {

Result<Replayed> replay(Recording& recording, Controller& controller) {
  Replayed result;
  const Names& names = recording.told().names;
  while (const auto step = ANIC_TRY(recording.next())) {
    const auto proposals = ANIC_TRY(controller.decide(step->observation));
    if (!proposals || stop_requested()) return fail(Exit::Failed, "the replay was stopped");
    ++result.observations;
    result.proposals += proposals->size();
    const std::uint64_t tick = step->observation.tick;
    std::string recorded = answer_line(step->proposals, tick, names);
    std::string replayed = answer_line(*proposals, tick, names);
    if (recorded != replayed) {
      ++result.different;
      if (!result.first)
        result.first = {.line = step->line,
                        .tick = tick,
                        .recorded = std::move(recorded),
                        .replayed = std::move(replayed)};
    } else if (!step->decisions.empty() && step->decisions.size() == step->proposals.size()) {
      ANIC_TRY(controller.decided(step->decisions));
    }
  }
  result.cut = recording.cut();
  return result;
}

}  // namespace agentnic::agent
