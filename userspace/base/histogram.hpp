// SPDX-License-Identifier: Apache-2.0
#pragma once

/// A log-linear histogram of durations.

#include <cstdint>
#include <optional>
#include <utility>
#include <vector>

namespace agentnic {

/// Counts values from 0 to about 18 minutes in nanoseconds with 3 significant digits.
///
/// Values below 2048 have a bucket each; above, every power of two is cut into 1024 buckets, so that a
/// bucket is at most 1/1024 of its value wide (the layout of HdrHistogram with 3 digits). What a bucket
/// reports is its middle: at most 0.05 % off. Larger values are counted in the last bucket and by
/// clipped(). One thread; record() neither allocates nor fails.
class Histogram final {
 public:
  Histogram();

  void record(std::uint64_t value) noexcept;
  void merge(const Histogram& other) noexcept;
  void clear() noexcept;

  [[nodiscard]] std::uint64_t count() const noexcept { return count_; }
  [[nodiscard]] std::uint64_t clipped() const noexcept { return clipped_; }
  [[nodiscard]] std::uint64_t min() const noexcept { return count_ ? min_ : 0; }
  [[nodiscard]] std::uint64_t max() const noexcept { return max_; }
  [[nodiscard]] double mean() const noexcept;

  /// The smallest recorded value with at least `fraction` of all values at or below it; nothing unless
  /// ten samples lie beyond it (p50: 20 samples, p99: 1,000, p99.9: 10,000).
  [[nodiscard]] std::optional<std::uint64_t> percentile(double fraction) const noexcept;

  /// Every bucket in use, as (value, count), ascending. add() of all of them makes an equal histogram.
  [[nodiscard]] std::vector<std::pair<std::uint64_t, std::uint64_t>> buckets() const;
  void add(std::uint64_t value, std::uint64_t times) noexcept;

 private:
  std::vector<std::uint64_t> counts_;
  std::uint64_t count_ = 0;
  std::uint64_t clipped_ = 0;
  std::uint64_t min_ = UINT64_MAX;
  std::uint64_t max_ = 0;
  double sum_ = 0;
};

}  // namespace agentnic
