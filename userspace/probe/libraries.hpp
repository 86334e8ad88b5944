// SPDX-License-Identifier: Apache-2.0
#pragma once

/// The libraries that this program stands on, and whether they are new enough.

#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace agentnic::probe {

struct Library {
  std::string name;
  std::string needed_by;
  std::string built_with;  ///< empty where its headers do not say
  std::string running;     ///< empty where it does not say
  std::string minimum;     ///< as .ci/packages has it
  std::optional<bool> ok;  ///< nothing where no version is known
  std::string remedy;
};

std::vector<Library> list_libraries();

/// Whether one version is at least another: numbers between dots, from the left. "1.10" is above "1.9".
bool version_at_least(std::string_view version, std::string_view minimum);

/// The version in the name of a shared library's file: "1.3.1" of "/usr/lib/libxdp.so.1.3.1"; empty where
/// there is none.
std::string version_in_file_name(std::string_view path);

}  // namespace agentnic::probe
