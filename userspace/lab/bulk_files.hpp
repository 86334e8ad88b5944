// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string>
#include <utility>

#include "base/json.hpp"
#include "base/result.hpp"

namespace agentnic::lab {

/// A folder in memory with files of random content, a place to put them, and a secret; it goes with its
/// owner.
class BulkFiles final {
 public:
  /// So many files of so many bytes.
  static Result<BulkFiles> make(std::uint64_t bytes, std::uint64_t files);
  BulkFiles(BulkFiles&& other) noexcept : name_(std::exchange(other.name_, {})) {}
  BulkFiles& operator=(BulkFiles&&) = delete;
  BulkFiles(const BulkFiles&) = delete;
  BulkFiles& operator=(const BulkFiles&) = delete;
  ~BulkFiles();

  /// Takes away what was put there.
  [[nodiscard]] Status empty_to() const;
  [[nodiscard]] std::string folder() const { return name_ + "/from"; }
  [[nodiscard]] std::string to() const { return name_ + "/to"; }
  [[nodiscard]] std::string secret() const { return name_ + "/secret"; }

 private:
  explicit BulkFiles(std::string name) : name_(std::move(name)) {}
  std::string name_;
};

/// The last of the JSON lines that agentnic-bulk prints; discarded when it is none.
Json last_line(const std::string& said);

}  // namespace agentnic::lab
