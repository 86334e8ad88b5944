// SPDX-License-Identifier: Apache-2.0
#include "base/histogram.hpp"

#include <algorithm>
#include <bit>
#include <cmath>

namespace agentnic {
namespace {

constexpr unsigned kLinearBits = 11;  // values below 2^11 are exact
constexpr unsigned kTopBits = 40;     // values below 2^40 ns are kept
constexpr std::size_t kHalf = 1U << (kLinearBits - 1);
constexpr std::size_t kBuckets = (kTopBits - kLinearBits + 2) * kHalf;
constexpr double kSamplesBeyond = 10;

std::size_t index_of(std::uint64_t value) noexcept {
  const auto width = static_cast<unsigned>(std::bit_width(value));
  if (width <= kLinearBits) return value;
  const unsigned shift = width - kLinearBits;
  return shift * kHalf + (value >> shift);
}

std::uint64_t middle_of(std::size_t index) noexcept {
  if (index < 2 * kHalf) return index;
  const std::size_t shift = index / kHalf - 1;
  const std::uint64_t low = (index - shift * kHalf) << shift;
  return low + (std::uint64_t{1} << shift) / 2;
}

}  // namespace

Histogram::Histogram() : counts_(kBuckets) {}

void Histogram::record(std::uint64_t value) noexcept { add(value, 1); }

void Histogram::add(std::uint64_t value, std::uint64_t times) noexcept {
  if (times == 0) return;
  std::size_t index = index_of(value);
  if (index >= kBuckets) {
    index = kBuckets - 1;
    clipped_ += times;
  }
  counts_[index] += times;
  count_ += times;
  min_ = std::min(min_, value);
  max_ = std::max(max_, value);
  sum_ += static_cast<double>(value) * static_cast<double>(times);
}

void Histogram::merge(const Histogram& other) noexcept {
  for (std::size_t i = 0; i < kBuckets; ++i) counts_[i] += other.counts_[i];
  count_ += other.count_;
  clipped_ += other.clipped_;
  min_ = std::min(min_, other.min_);
  max_ = std::max(max_, other.max_);
  sum_ += other.sum_;
}

void Histogram::clear() noexcept {
  std::ranges::fill(counts_, 0);
  count_ = clipped_ = max_ = 0;
  min_ = UINT64_MAX;
  sum_ = 0;
}

double Histogram::mean() const noexcept { return count_ ? sum_ / static_cast<double>(count_) : 0; }

std::optional<std::uint64_t> Histogram::percentile(double fraction) const noexcept {
  const auto total = static_cast<double>(count_);
  // The product is rounded so that 0.01 * 1000 is ten samples in floating point too.
  if (count_ == 0 || std::round(total * (1 - fraction) * 1e6) / 1e6 < kSamplesBeyond) return std::nullopt;
  const auto rank =
      std::max<std::uint64_t>(1, static_cast<std::uint64_t>(std::ceil(total * fraction - 1e-6)));
  std::uint64_t seen = 0;
  for (std::size_t i = 0; i < kBuckets; ++i) {
    seen += counts_[i];
    if (seen >= rank) return std::clamp(middle_of(i), min_, max_);
  }
  return max_;
}

std::vector<std::pair<std::uint64_t, std::uint64_t>> Histogram::buckets() const {
  std::vector<std::pair<std::uint64_t, std::uint64_t>> used;
  for (std::size_t i = 0; i < kBuckets; ++i) {
    if (counts_[i] != 0) used.emplace_back(middle_of(i), counts_[i]);
  }
  return used;
}

}  // namespace agentnic
