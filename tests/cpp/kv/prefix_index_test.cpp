#include "kv/prefix_index.h"

#include <gtest/gtest.h>

#include "mmcore/status.h"

namespace mmcore {
namespace {

const std::vector<TokenId> kTokens = {1, 2};
const std::vector<TokenId> kOther = {1, 3};
const std::vector<uint64_t> kExtra = {7};

void expect_sound(const PrefixIndex& index) {
  for (const std::string& violation : index.violations()) ADD_FAILURE() << violation;
}

TEST(PrefixIndex, a_hit_compares_everything_and_not_only_the_hash) {
  PrefixIndex index(8, 2);
  const NodeId node = index.insert(3, {.hash = 5, .parent = 0, .tokens = kTokens, .extra = kExtra});
  EXPECT_EQ(index.find({.hash = 5, .parent = 0, .tokens = kTokens, .extra = kExtra}), 3);
  EXPECT_EQ(index.find({.hash = 5, .parent = 0, .tokens = kOther, .extra = kExtra}), kNullBlock);
  EXPECT_EQ(index.find({.hash = 5, .parent = 0, .tokens = kTokens}), kNullBlock);
  EXPECT_EQ(index.find({.hash = 5, .parent = node, .tokens = kTokens, .extra = kExtra}),
            kNullBlock);
  EXPECT_EQ(index.find({.hash = 6, .parent = 0, .tokens = kTokens, .extra = kExtra}), kNullBlock);
}

TEST(PrefixIndex, blocks_with_one_hash_live_side_by_side) {
  PrefixIndex index(8, 2);
  index.insert(1, {.hash = 5, .parent = 0, .tokens = kTokens});
  index.insert(2, {.hash = 5, .parent = 0, .tokens = kOther});
  index.insert(3, {.hash = 5, .parent = 0, .tokens = kOther, .extra = kExtra});
  expect_sound(index);
  index.erase(2);
  EXPECT_EQ(index.find({.hash = 5, .parent = 0, .tokens = kTokens}), 1);
  EXPECT_EQ(index.find({.hash = 5, .parent = 0, .tokens = kOther}), kNullBlock);
  EXPECT_EQ(index.find({.hash = 5, .parent = 0, .tokens = kOther, .extra = kExtra}), 3);
  EXPECT_EQ(index.size(), 2);
  expect_sound(index);
}

TEST(PrefixIndex, a_node_number_is_never_used_twice) {
  PrefixIndex index(8, 2);
  const BlockKey key{.hash = 5, .parent = 0, .tokens = kTokens};
  const NodeId first = index.insert(1, key);
  index.erase(1);
  EXPECT_EQ(index.node(1), kRootNode);
  const NodeId second = index.insert(1, key);
  EXPECT_NE(first, second);
  // So a child of the old content is not taken for a child of the new one.
  index.insert(2, {.hash = 9, .parent = second, .tokens = kOther}, 1);
  EXPECT_EQ(index.find({.hash = 9, .parent = first, .tokens = kOther}), kNullBlock);
}

TEST(PrefixIndex, finds_the_child_that_begins_like_the_tokens_for_longest) {
  PrefixIndex index(20, 4);
  const auto add = [&](BlockId block, NodeId parent, BlockId parent_block,
                       const std::vector<TokenId>& tokens, std::span<const uint64_t> extra = {}) {
    return index.insert(
        block,
        {.hash = static_cast<uint64_t>(block), .parent = parent, .tokens = tokens, .extra = extra},
        parent_block);
  };
  const NodeId root = add(1, kRootNode, kNullBlock, {1, 2, 3, 4});
  add(2, root, 1, {5, 6, 7, 8});
  add(3, root, 1, {5, 6, 9, 9});
  const std::vector<uint64_t> image = {42};
  add(4, root, 1, {5, 6, 7, 9}, image);
  const auto find = [&](BlockId parent, const std::vector<TokenId>& tokens) {
    const auto found = index.find_partial(parent, tokens, {});
    return std::pair(found.block, found.tokens);
  };
  EXPECT_EQ(find(1, {5, 6, 7, 9}), std::pair(2, 3)) << "the fourth holds an image";
  EXPECT_EQ(find(1, {5, 6, 9}), std::pair(3, 3));
  EXPECT_EQ(find(1, {4}), std::pair(0, 0));
  EXPECT_EQ(find(0, {1, 2}), std::pair(1, 2));
  EXPECT_EQ(find(0, {5, 6}), std::pair(0, 0)) << "not a first block";
  index.erase(2);
  EXPECT_EQ(find(1, {5, 6, 7, 9}), std::pair(3, 2));
  for (BlockId b = 5; b < 13; ++b) add(b, root, 1, {b, 0, 0, 0});
  EXPECT_EQ(find(1, {5, 6, 9}), std::pair(5, 1)) << "only the newest are looked at";
  EXPECT_EQ(index.violations(), std::vector<std::string>());
}

TEST(PrefixIndex, reports_a_cached_block_whose_parent_is_gone) {
  PrefixIndex index(8, 2);
  const NodeId parent = index.insert(1, {.hash = 5, .parent = 0, .tokens = kTokens});
  index.insert(2, {.hash = 6, .parent = parent, .tokens = kTokens}, 1);
  expect_sound(index);
  index.erase(1);
  ASSERT_EQ(index.violations().size(), 1u);
  EXPECT_NE(index.violations()[0].find("kv.chain"), std::string::npos);
}

TEST(PrefixIndex, reports_two_blocks_with_one_content) {
  PrefixIndex index(8, 2);
  const BlockKey key{.hash = 5, .parent = 0, .tokens = kTokens};
  index.insert(1, key);
  index.insert(2, key);
  ASSERT_EQ(index.violations().size(), 1u);
  EXPECT_NE(index.violations()[0].find("kv.index"), std::string::npos);
}

TEST(PrefixIndex, refuses_misuse) {
  PrefixIndex index(8, 2);
  const BlockKey key{.hash = 5, .parent = 0, .tokens = kTokens};
  EXPECT_THROW(index.erase(1), InternalError);
  index.insert(1, key);
  EXPECT_THROW(index.insert(1, key), InternalError);
  EXPECT_THROW(index.insert(2, {.hash = 5, .parent = 0, .tokens = std::span(kTokens).first(1)}),
               InternalError);
}

}  // namespace
}  // namespace mmcore
