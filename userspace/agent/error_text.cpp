// SPDX-License-Identifier: Apache-2.0
#include "agent/error_text.hpp"

#include <fmt/format.h>

#include <utility>

#include "policy/text.hpp"

namespace agentnic::agent {
namespace {

constexpr std::uint64_t kSecondNs = 1'000'000'000;

}  // namespace

std::string ErrorText::add(std::string_view bytes, std::uint64_t now_ns) {
  std::string printed;
  if (now_ns - second_ns_ >= kSecondNs) {
    printed = left_out();
    second_ns_ = now_ns;
    printed_ = 0;
  }
  rest_ += bytes;
  std::string_view left = rest_;
  for (;;) {
    const auto end = left.find('\n');
    if (end != std::string_view::npos) {
      say(printed, left.substr(0, end));
      left.remove_prefix(end + 1);
    } else if (left.size() > kErrorLine) {
      say(printed, left.substr(0, kErrorLine));
      left.remove_prefix(kErrorLine);
    } else {
      break;
    }
  }
  rest_.erase(0, rest_.size() - left.size());
  return printed;
}

std::string ErrorText::end() {
  std::string printed;
  if (!rest_.empty()) say(printed, std::exchange(rest_, {}));
  return printed + left_out();
}

void ErrorText::say(std::string& printed, std::string_view line) {
  const std::string text = fmt::format("agentnic-agent: the program says {}\n", policy::json_text(line));
  if (printed_ + text.size() > kErrorsASecond) {
    left_out_ += line.size() + 1;
    return;
  }
  printed_ += text.size();
  printed += text;
}

std::string ErrorText::left_out() {
  if (left_out_ == 0) return {};
  return fmt::format("agentnic-agent: the program said {} bytes more\n", std::exchange(left_out_, 0));
}

}  // namespace agentnic::agent
