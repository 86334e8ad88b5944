// SPDX-License-Identifier: Apache-2.0
#pragma once

/// What one try of a feature found out.

#include <string>
#include <utility>

namespace agentnic::probe {

/// The outcome of one try. A function that returns an Error instead could not try: the answer is not known.
struct Answer {
  bool available = false;
  std::string detail;  ///< what was tried, and what the kernel said
};

inline Answer yes(std::string detail) { return {true, std::move(detail)}; }
inline Answer no(std::string detail) { return {false, std::move(detail)}; }

}  // namespace agentnic::probe
