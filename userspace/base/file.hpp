// SPDX-License-Identifier: Apache-2.0
#pragma once

/// Whole files, read and written at once.

#include <cstddef>
#include <string>
#include <string_view>

#include "base/result.hpp"

namespace agentnic {

/// The content of a regular file of at most `limit` bytes. A missing, unreadable or larger one is bad input.
Result<std::string> read_file(const std::string& path, std::size_t limit);

/// Writes beside `path` and renames, so that a reader finds the old file or the new one, never half of it.
Status write_file(const std::string& path, std::string_view content);

}  // namespace agentnic
