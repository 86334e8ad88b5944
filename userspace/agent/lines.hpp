// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <optional>
#include <string>
#include <string_view>

namespace agentnic::agent {

/// Lines of somebody who may send anything, without end, or nothing.
class LineBuffer final {
 public:
  /// `most`: bytes of a line, without its end.
  explicit LineBuffer(std::size_t most) : most_(most) {}

  void add(std::string_view bytes) { bytes_.append(bytes); }

  /// The next whole line, without its end; not one that is too long.
  std::optional<std::string> take() {
    const auto end = bytes_.find('\n');
    if (end == std::string::npos || end > most_) return std::nullopt;
    std::string line = bytes_.substr(0, end);
    bytes_.erase(0, end + 1);
    return line;
  }

  /// What is there is, or begins, a line longer than any may be.
  [[nodiscard]] bool too_long() const {
    const auto end = bytes_.find('\n');
    return (end == std::string::npos ? bytes_.size() : end) > most_;
  }

  [[nodiscard]] bool empty() const { return bytes_.empty(); }

 private:
  std::size_t most_;
  std::string bytes_;
};

}  // namespace agentnic::agent
