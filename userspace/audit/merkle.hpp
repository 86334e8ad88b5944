// SPDX-License-Identifier: Apache-2.0
#pragma once

/// The Merkle tree over the records of a log: RFC 6962 section 2.1 with SHA-256. Its leaves are records as
/// the kernel wrote them. Pure.

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <utility>
#include <vector>

#include "abi/audit.h"

namespace agentnic::audit {

using Hash = std::array<std::uint8_t, 32>;

/// SHA-256.
Hash sha256(std::span<const std::uint8_t> data);

/// Of a leaf: SHA-256 of a byte 0 and the record.
Hash leaf_hash(const anic_record& record);
/// Of two nodes: SHA-256 of a byte 1 and both.
Hash node_hash(const Hash& left, const Hash& right);

/// A tree that grows: what is needed to go on, at most one node a level.
class Frontier final {
 public:
  void add(const Hash& leaf) { add_subtree(leaf, 0); }
  /// A whole subtree of 2^level leaves, where as many are a whole number of such subtrees.
  void add_subtree(const Hash& root, unsigned level);
  [[nodiscard]] std::uint64_t size() const { return size_; }
  /// SHA-256 of nothing when there is no leaf.
  [[nodiscard]] Hash root() const;

 private:
  std::uint64_t size_ = 0;
  std::vector<std::pair<unsigned, Hash>> nodes_;  ///< level and root, the largest first
};

/// All nodes of a tree whose leaves are given, from which audit paths are read. A node without a sibling
/// stands on the next level, too.
class Tree final {
 public:
  explicit Tree(std::vector<Hash> leaves);
  /// There is a leaf.
  [[nodiscard]] const Hash& root() const { return levels_.back().front(); }
  /// Adds the audit path of a leaf (RFC 6962 section 2.1.1), the lowest node first.
  void add_path(std::uint64_t leaf, std::vector<Hash>& path) const;

 private:
  std::vector<std::vector<Hash>> levels_;
};

/// The root of a tree of `size` leaves in which leaf `index` has this hash and audit path; for a path that is
/// too short, too long, or of a leaf that the tree does not have, a hash that no root has: zeros.
/// RFC 9162 section 2.1.3.2.
Hash root_by_path(const Hash& leaf, std::uint64_t index, std::uint64_t size, std::span<const Hash> path);

}  // namespace agentnic::audit
