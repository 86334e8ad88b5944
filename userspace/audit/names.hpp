// SPDX-License-Identifier: Apache-2.0
#pragma once

/// What ids of a log are called: JSON lines in its file `names`, each from a record on. For people: nobody
/// signs it; what a tenant is called stands in the records, too. Pure.

#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "audit/sentence.hpp"
#include "base/result.hpp"

namespace agentnic::audit {

struct NameBook {
  std::uint64_t first = 0;  ///< index of the record from which on it holds
  std::map<std::uint32_t, std::string> tenants;
  std::map<std::uint32_t, std::string> services;
  std::map<std::uint32_t, std::string> agents;

  [[nodiscard]] bool same_names(const NameBook& other) const {
    return tenants == other.tenants && services == other.services && agents == other.agents;
  }
};

/// One line, with its end.
std::string name_book_line(const NameBook& book);

/// All lines; a last one without an end is left out. Bad input names the line.
Result<std::vector<NameBook>> parse_name_books(std::string_view text);

/// Those of a log; none, if it has no file of them. Bad input names the line.
Result<std::vector<NameBook>> read_name_books(const std::string& dir);

/// As records need them. `books`: as parsed; the one that holds for a record, or an empty one.
const NameBook& book_of(const std::vector<NameBook>& books, std::uint64_t index);
Names names_of(const NameBook& book, std::int64_t wall_ahead_ns);

}  // namespace agentnic::audit
