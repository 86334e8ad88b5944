// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace agentnic::agent {

inline constexpr std::size_t kErrorLine = 4096;  ///< bytes without an end that become a line
inline constexpr std::size_t kErrorsASecond =
    8192;  ///< bytes that are printed; of more, only how much it was

/// What a program says on its standard error, as it is passed on: line by line, escaped, and no more of it
/// than somebody reads. Pure.
class ErrorText final {
 public:
  /// Takes it; what is to be printed now, whole lines.
  std::string add(std::string_view bytes, std::uint64_t now_ns);

  /// At the end: what has no end, and how much was left out.
  std::string end();

 private:
  void say(std::string& printed, std::string_view line);
  [[nodiscard]] std::string left_out();

  std::string rest_;
  std::uint64_t second_ns_ = 0;  ///< when it began
  std::size_t printed_ = 0;      ///< bytes, in that second
  std::size_t left_out_ = 0;
};

}  // namespace agentnic::agent
