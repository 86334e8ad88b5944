// SPDX-License-Identifier: Apache-2.0
#include <catch2/catch_test_macros.hpp>

#include <string>
#include <vector>

#include "audit/merkle.hpp"

using namespace agentnic;
using audit::Hash;

namespace {

std::string hex(const Hash& hash) {
  std::string text;
  for (const auto byte : hash) {
    constexpr char kDigits[] = "0123456789abcdef";
    text += kDigits[byte >> 4];
    text += kDigits[byte & 15];
  }
  return text;
}

/// The leaf hashes of the inputs by which Certificate Transparency's implementations are tested.
std::vector<Hash> reference_leaves() {
  const std::vector<std::vector<std::uint8_t>> inputs = {
      {},
      {0x00},
      {0x10},
      {0x20, 0x21},
      {0x30, 0x31},
      {0x40, 0x41, 0x42, 0x43},
      {0x50, 0x51, 0x52, 0x53, 0x54, 0x55, 0x56, 0x57},
      {0x60, 0x61, 0x62, 0x63, 0x64, 0x65, 0x66, 0x67, 0x68, 0x69, 0x6a, 0x6b, 0x6c, 0x6d, 0x6e, 0x6f}};
  std::vector<Hash> leaves;
  for (std::vector<std::uint8_t> bytes : inputs) {
    bytes.insert(bytes.begin(), 0);
    leaves.push_back(audit::sha256(bytes));
  }
  return leaves;
}

/// RFC 6962 section 2.1, word for word.
Hash naive_root(std::span<const Hash> leaves) {
  if (leaves.size() == 1) return leaves[0];
  std::size_t half = 1;
  while (half * 2 < leaves.size()) half *= 2;
  return audit::node_hash(naive_root(leaves.first(half)), naive_root(leaves.subspan(half)));
}

/// ... and section 2.1.1.
void naive_path(std::size_t leaf, std::span<const Hash> leaves, std::vector<Hash>& path) {
  if (leaves.size() == 1) return;
  std::size_t half = 1;
  while (half * 2 < leaves.size()) half *= 2;
  if (leaf < half) {
    naive_path(leaf, leaves.first(half), path);
    path.push_back(naive_root(leaves.subspan(half)));
  } else {
    naive_path(leaf - half, leaves.subspan(half), path);
    path.push_back(naive_root(leaves.first(half)));
  }
}

std::vector<Hash> some_leaves(std::size_t count) {
  std::vector<Hash> leaves(count);
  for (std::size_t i = 0; i < count; ++i) leaves[i][0] = static_cast<std::uint8_t>(i + 1);
  return leaves;
}

}  // namespace

TEST_CASE("merkle: roots are those of Certificate Transparency's test data") {
  const std::vector<std::string> roots = {"6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
                                          "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
                                          "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
                                          "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
                                          "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
                                          "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
                                          "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
                                          "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328"};
  audit::Frontier frontier;
  CHECK(hex(frontier.root()) == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
  const auto leaves = reference_leaves();
  for (std::size_t i = 0; i < leaves.size(); ++i) {
    frontier.add(leaves[i]);
    CHECK(hex(frontier.root()) == roots[i]);
    CHECK(hex(audit::Tree({leaves.begin(), leaves.begin() + static_cast<std::ptrdiff_t>(i) + 1}).root()) ==
          roots[i]);
  }
}

TEST_CASE("merkle: paths of trees of all small sizes are those of RFC 6962, and lead to the root") {
  for (std::size_t size = 1; size <= 70; ++size) {
    const auto leaves = some_leaves(size);
    const audit::Tree tree(leaves);
    REQUIRE(tree.root() == naive_root(leaves));
    for (std::size_t leaf = 0; leaf < size; ++leaf) {
      std::vector<Hash> path;
      std::vector<Hash> expected;
      tree.add_path(leaf, path);
      naive_path(leaf, leaves, expected);
      REQUIRE(path == expected);
      REQUIRE(audit::root_by_path(leaves[leaf], leaf, size, path) == tree.root());
    }
  }
}

TEST_CASE("merkle: a path leads nowhere for another leaf, place or size, and when it is cut or longer") {
  const std::size_t size = 23;
  const auto leaves = some_leaves(size);
  const audit::Tree tree(leaves);
  for (std::size_t leaf = 0; leaf < size; ++leaf) {
    std::vector<Hash> path;
    tree.add_path(leaf, path);
    for (std::size_t other = 0; other < size + 3; ++other) {
      if (other == leaf) continue;
      CHECK(audit::root_by_path(leaves[leaf], other, size, path) != tree.root());
      if (other < size) CHECK(audit::root_by_path(leaves[other], leaf, size, path) != tree.root());
    }
    CHECK(audit::root_by_path(leaves[leaf], leaf, size, std::span(path).first(path.size() - 1)) == Hash{});
    path.push_back(leaves[0]);
    CHECK(audit::root_by_path(leaves[leaf], leaf, size, path) == Hash{});
  }
  CHECK(audit::root_by_path(leaves[0], 0, 0, {}) == Hash{});
}

TEST_CASE("merkle: whole subtrees stand for their leaves") {
  const auto leaves = some_leaves(40);
  audit::Frontier one_by_one;
  for (const Hash& leaf : leaves) one_by_one.add(leaf);
  audit::Frontier by_subtrees;
  for (std::size_t first = 0; first < 32; first += 16)
    by_subtrees.add_subtree(naive_root(std::span(leaves).subspan(first, 16)), 4);
  for (std::size_t i = 32; i < 40; ++i) by_subtrees.add(leaves[i]);
  CHECK(by_subtrees.size() == 40);
  CHECK(by_subtrees.root() == one_by_one.root());
}
