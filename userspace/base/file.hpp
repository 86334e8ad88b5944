// SPDX-License-Identifier: Apache-2.0
#pragma once

/// Files: read and written at once, or at a place.

#include <sys/types.h>

#include <cstddef>
#include <cstdint>
#include <span>
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

/// Keeps a secret, or what must outlive a power cut, in place of what was there: with this mode, and on the
/// disk when it returns.
Status keep_file(const std::string& path, std::string_view content, mode_t mode);
/// The same; fails when there is something already.
Status keep_new_file(const std::string& path, std::string_view content, mode_t mode);

/// read_file() of a secret. Refuses, as bad input, one that others than its owner may read or write.
Result<std::string> read_secret_file(const std::string& path, std::size_t limit);

/// Reads into `to` from a place in a file; how many bytes there were. An errno.
std::expected<std::size_t, int> read_at(int fd, std::span<std::byte> to, std::uint64_t offset) noexcept;
/// Writes all of it to a place in a file; an errno, or 0.
int write_at(int fd, std::span<const std::byte> from, std::uint64_t offset) noexcept;

}  // namespace agentnic
