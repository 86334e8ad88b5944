// SPDX-License-Identifier: Apache-2.0
#pragma once

/// Ours and a peer's, measured by turns in the same run, and the row of results/bench that becomes of it.

#include <functional>
#include <string>
#include <vector>

#include "base/json.hpp"
#include "base/result.hpp"

namespace agentnic::lab {

/// Repeats of one benchmark: ours and the peer's, paired.
struct Pairs {
  std::vector<double> ours;
  std::vector<double> peers;
  std::string problem;  ///< why it is not valid, or empty
};

/// Pair by pair.
std::vector<double> ours_over_peers(const Pairs& pairs);
std::vector<double> peers_over_ours(const Pairs& pairs);

inline constexpr int kPairs = 11;

/// Measures both by turns, and by turns each first.
Result<Pairs> alternate(const std::string& id, const std::function<Result<double>(Pairs&)>& ours,
                        const std::function<Result<double>(Pairs&)>& peer, int repeats = kPairs);

/// What a row says beside its figures.
struct RowWords {
  std::string id;
  std::string unit;
  std::string peer;
  std::string note;
};

/// The value must be at most, or at least, the target.
enum class Bound { AtMost, AtLeast };

/// A row of results/bench/latest.json. `values` are those of the repeats, `ratios` the paired ones (above 1
/// is better for us).
Json bench_row(const RowWords& words, const std::vector<double>& values, const std::vector<double>& ratios,
               double peer_value, double target, Bound bound, const std::string& problem);

/// Of values that no peer has.
Json bench_row_alone(const RowWords& words, const std::vector<double>& values, double target, Bound bound,
                     const std::string& problem);

}  // namespace agentnic::lab
