// SPDX-License-Identifier: Apache-2.0
#include "audit/merkle.hpp"

#include <nettle/sha2.h>

#include <algorithm>
#include <cstring>

namespace agentnic::audit {
namespace {

static_assert(SHA256_DIGEST_SIZE == sizeof(Hash));

/// Of a byte and what follows it.
template <std::size_t Size>
Hash marked_hash(std::uint8_t mark, const std::array<const void*, 2>& parts) {
  std::array<std::uint8_t, 1 + Size> bytes;
  bytes[0] = mark;
  std::memcpy(&bytes[1], parts[0], parts[1] == nullptr ? Size : Size / 2);
  if (parts[1] != nullptr) std::memcpy(&bytes[1 + Size / 2], parts[1], Size / 2);
  return sha256(bytes);
}

}  // namespace

Hash sha256(std::span<const std::uint8_t> data) {
  sha256_ctx context;
  sha256_init(&context);
  sha256_update(&context, data.size(), data.data());
  Hash hash;
  sha256_digest(&context, hash.size(), hash.data());
  return hash;
}

Hash leaf_hash(const anic_record& record) { return marked_hash<sizeof(anic_record)>(0, {&record, nullptr}); }

Hash node_hash(const Hash& left, const Hash& right) {
  return marked_hash<2 * sizeof(Hash)>(1, {left.data(), right.data()});
}

void Frontier::add_subtree(const Hash& root, unsigned level) {
  size_ += std::uint64_t{1} << level;
  Hash node = root;
  for (; !nodes_.empty() && nodes_.back().first == level; ++level) {
    node = node_hash(nodes_.back().second, node);
    nodes_.pop_back();
  }
  nodes_.emplace_back(level, node);
}

Hash Frontier::root() const {
  if (nodes_.empty()) return sha256({});
  Hash node = nodes_.back().second;
  for (auto left = nodes_.rbegin() + 1; left != nodes_.rend(); ++left) node = node_hash(left->second, node);
  return node;
}

Tree::Tree(std::vector<Hash> leaves) {
  levels_.push_back(std::move(leaves));
  while (levels_.back().size() > 1) {
    const std::vector<Hash>& below = levels_.back();
    std::vector<Hash> level;
    level.reserve((below.size() + 1) / 2);
    for (std::size_t i = 0; i + 1 < below.size(); i += 2) level.push_back(node_hash(below[i], below[i + 1]));
    if (below.size() % 2 != 0) level.push_back(below.back());
    levels_.push_back(std::move(level));
  }
}

void Tree::add_path(std::uint64_t leaf, std::vector<Hash>& path) const {
  for (const std::vector<Hash>& level : levels_) {
    const std::uint64_t sibling = leaf ^ 1U;
    if (sibling < level.size()) path.push_back(level[sibling]);
    leaf /= 2;
  }
}

Hash root_by_path(const Hash& leaf, std::uint64_t index, std::uint64_t size, std::span<const Hash> path) {
  if (index >= size) return {};
  std::uint64_t last = size - 1;
  Hash node = leaf;
  for (const Hash& sibling : path) {
    if (last == 0) return {};
    if (index % 2 != 0 || index == last) {
      node = node_hash(sibling, node);
      for (; index % 2 == 0 && index != 0; index /= 2) last /= 2;
    } else {
      node = node_hash(node, sibling);
    }
    index /= 2;
    last /= 2;
  }
  return last == 0 ? node : Hash{};
}

}  // namespace agentnic::audit
