// SPDX-License-Identifier: Apache-2.0
#pragma once

/// How differences of tables become lines. Only difference.cpp and difference_guardian.cpp need this.

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <cstdint>
#include <iterator>
#include <map>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "policy/compile.hpp"
#include "policy/difference.hpp"
#include "policy/units.hpp"

namespace agentnic::policy {

using Lines = std::vector<std::string>;

/// The lines of one kind, and how many of each sort they are.
class Group {
 public:
  /// `kind` is its plural; `changed` is the word for what is neither added nor removed.
  explicit Group(std::string_view kind, std::string_view changed = "changed")
      : kind_(kind), changed_(changed) {}

  void added(const std::string& what) { count(added_, what + ": added"); }
  void removed(const std::string& what) { count(removed_, what + ": removed"); }
  void changed(const std::string& what, const std::string& how) { count(changes_, what + ": " + how); }

  void append_to(Lines& lines) const {
    if (lines_.size() <= kMaxLinesAKind) {
      lines.insert(lines.end(), lines_.begin(), lines_.end());
      return;
    }
    Lines parts;
    if (added_ != 0) parts.push_back(fmt::format("{} added", added_));
    if (removed_ != 0) parts.push_back(fmt::format("{} removed", removed_));
    if (changes_ != 0) parts.push_back(fmt::format("{} {}", changes_, changed_));
    lines.push_back(fmt::format("{}: {}", kind_, fmt::join(parts, ", ")));
  }

 private:
  /// Lines beyond those that will be shown are only counted.
  void count(std::size_t& counter, std::string line) {
    ++counter;
    if (lines_.size() <= kMaxLinesAKind) lines_.push_back(std::move(line));
  }

  std::string_view kind_;
  std::string_view changed_;
  Lines lines_;
  std::size_t added_ = 0;
  std::size_t removed_ = 0;
  std::size_t changes_ = 0;
};

/// What differs in one row: "port 9001 -> 9002, class rpc -> bulk".
class Fields {
 public:
  void compare(std::string_view name, std::string_view before, std::string_view after) {
    if (before != after) parts_.push_back(fmt::format("{} {} -> {}", name, before, after));
  }
  void compare(std::string_view name, std::uint64_t before, std::uint64_t after) {
    if (before != after) parts_.push_back(fmt::format("{} {} -> {}", name, before, after));
  }
  [[nodiscard]] bool empty() const { return parts_.empty(); }
  [[nodiscard]] std::string text() const { return fmt::format("{}", fmt::join(parts_, ", ")); }

 private:
  Lines parts_;
};

/// Calls `visit` with every key that one of two sorted maps has, in order, and its values or nullptr.
template <typename Map, typename Visit>
void merge(const Map& before, const Map& after, Visit visit) {
  auto old = before.begin();
  auto now = after.begin();
  while (old != before.end() || now != after.end()) {
    const bool has_old = old != before.end() && (now == after.end() || !(now->first < old->first));
    const bool has_now = now != after.end() && (old == before.end() || !(old->first < now->first));
    const auto& key = has_old ? old->first : now->first;
    visit(key, has_old ? &old->second : nullptr, has_now ? &now->second : nullptr);
    if (has_old) ++old;
    if (has_now) ++now;
  }
}

/// Rows of tenants, services or agents, by name.
template <typename Rows>
std::map<std::string, std::size_t> ids_of(const Rows& rows) {
  std::map<std::string, std::size_t> ids;
  for (std::size_t id = 1; id < std::size(rows); ++id) {
    if (rows[id].name[0] != '\0') ids.emplace(name_in(rows[id].name), id);
  }
  return ids;
}

/// 0 is what nobody has stated.
inline std::string rate_or_none(std::uint64_t bps) { return bps == 0 ? "none" : rate_text(bps); }
inline std::string duration_or_none(std::uint64_t ns) { return ns == 0 ? "none" : duration_text(ns); }

/// What differs in the guardian's envelope, and in its agents.
void compare_guarding(const Tables& before, const Tables& after, Lines& lines);

}  // namespace agentnic::policy
