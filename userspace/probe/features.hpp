// SPDX-License-Identifier: Apache-2.0
#pragma once

/// What this kernel can do, found out by trying. To add a feature, add a row to kRows in features.cpp.

#include <optional>
#include <string>
#include <vector>

#include "kern/verifier.hpp"

namespace agentnic::probe {

struct Feature {
  std::string id;
  std::string title;
  std::string needed_by;
  bool required = false;          ///< without it nothing can be attached
  std::optional<bool> available;  ///< nothing: it could not be tried
  std::string detail;             ///< what was tried, and what the kernel said
  std::string remedy;             ///< what happens without it, and what to do
};

struct Tried {
  bool privileged = false;  ///< else only what takes no privileges was tried
  std::vector<Feature> features;
  std::vector<kern::VerifiedProgram> programs;  ///< empty where they could not be tried
};

/// Tries everything in a child process with namespaces of its own (see Ground); nothing of the machine is
/// touched. The order is that of the table. Only where no other thread runs.
Tried try_features();

}  // namespace agentnic::probe
