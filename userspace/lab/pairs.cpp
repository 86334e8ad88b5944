// SPDX-License-Identifier: Apache-2.0
#include "lab/pairs.hpp"

#include <fmt/format.h>

#include "base/stop.hpp"
#include "lab/measure.hpp"

namespace agentnic::lab {

std::vector<double> ours_over_peers(const Pairs& pairs) {
  std::vector<double> ratios;
  for (std::size_t i = 0; i < pairs.ours.size(); ++i) ratios.push_back(pairs.ours[i] / pairs.peers[i]);
  return ratios;
}

std::vector<double> peers_over_ours(const Pairs& pairs) {
  std::vector<double> ratios;
  for (std::size_t i = 0; i < pairs.ours.size(); ++i) ratios.push_back(pairs.peers[i] / pairs.ours[i]);
  return ratios;
}

Result<Pairs> alternate(const std::string& id, const std::function<Result<double>(Pairs&)>& ours,
                        const std::function<Result<double>(Pairs&)>& peer, int repeats) {
  Progress progress(static_cast<std::size_t>(repeats));
  Pairs pairs;
  for (int repeat = 0; repeat < repeats; ++repeat) {
    progress.step(fmt::format("{} (repeat {} of {})", id, repeat + 1, repeats));
    const bool peer_first = repeat % 2 == 1;
    if (peer_first) pairs.peers.push_back(ANIC_TRY(peer(pairs)));
    pairs.ours.push_back(ANIC_TRY(ours(pairs)));
    if (!peer_first) pairs.peers.push_back(ANIC_TRY(peer(pairs)));
    if (stop_requested()) return fail(Exit::Failed, "stopped");
  }
  return pairs;
}

Json bench_row(const RowWords& words, const std::vector<double>& values, const std::vector<double>& ratios,
               double peer_value, double target, Bound bound, const std::string& problem) {
  const Spread value = spread(values);
  const Spread ratio = spread(ratios);
  const bool good = bound == Bound::AtMost ? value.median <= target : value.median >= target;
  return Json{{"id", words.id},
              {"value", value.median},
              {"unit", words.unit},
              {"peer", {{"name", words.peer}, {"value", peer_value}}},
              {"ratio", ratio.median},
              {"low", value.low},
              {"high", value.high},
              {"target", target},
              {"met", problem.empty() && good},
              {"valid", problem.empty()},
              {"note", fmt::format("target: value at {}; {}{}", bound == Bound::AtMost ? "most" : "least",
                                   words.note, problem.empty() ? "" : "; " + problem)}};
}

Json bench_row_alone(const RowWords& words, const std::vector<double>& values, double target, Bound bound,
                     const std::string& problem) {
  return bench_row(words, values, std::vector<double>(values.size(), 1.0), 0, target, bound, problem);
}

}  // namespace agentnic::lab
