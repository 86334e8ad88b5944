// SPDX-License-Identifier: Apache-2.0
#pragma once

/// Whole files, read and written at once.

#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.hpp"

namespace agentnic {

/// The content of a regular file of at most `limit` bytes. A missing, unreadable or larger one is bad input.
Result<std::string> read_file(const std::string& path, std::size_t limit);

/// The names in a folder, in no order; none when it is not there. What goes while it is read may be among
/// them.
std::vector<std::string> list_folder(const std::string& path);

/// Writes beside `path` and renames, so that a reader finds the old file or the new one, never half of it.
Status write_file(const std::string& path, std::string_view content);

}  // namespace agentnic
