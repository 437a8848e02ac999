// Finds full KV blocks by their content.
//
// A hash table chained through the blocks themselves: no allocation for text blocks after
// construction, O(1) expected. Each cached content has one block and one node number; node numbers
// are never used twice, so "same parent node" means "same content from the start of the sequence".
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "kv/block_key.h"
#include "kv/block_pool.h"
#include "mmcore/types.h"

namespace mmcore {

class PrefixIndex {
 public:
  PrefixIndex(int32_t num_blocks, int32_t block_size);

  /// The block with exactly this content, or kNullBlock. Compares hash, parent node, tokens and
  /// extra words (invariant: kv.exact).
  BlockId find(const BlockKey& key) const;
  /// Registers a block whose content no other block has; returns its new node.
  /// `parent` is the block of key.parent, the null block for a first block.
  NodeId insert(BlockId block, const BlockKey& key, BlockId parent = kNullBlock);
  void erase(BlockId block);

  struct Partial {
    BlockId block = kNullBlock;
    int32_t tokens = 0;  // that it shares, fewer than a block
  };
  /// Among the newest blocks whose parent is the registered block `parent` (the null block: first
  /// blocks), the one whose tokens begin like `tokens` for longest. Only blocks with exactly these
  /// extra words. O(1): looks at kMaxSiblings.
  Partial find_partial(BlockId parent, std::span<const TokenId> tokens,
                       std::span<const uint64_t> extra) const;

  bool contains(BlockId block) const { return node(block) != kRootNode; }
  /// Node of a registered block, kRootNode of any other.
  NodeId node(BlockId block) const { return records_[static_cast<size_t>(block)].node; }
  int64_t size() const { return size_; }
  /// The newest node; later ones are larger.
  NodeId last_node() const { return last_node_; }
  /// Everything stored about a registered block.
  BlockKey key(BlockId block) const;

  /// One line for each violated invariant of the table.
  std::vector<std::string> violations() const;

 private:
  struct Record {
    uint64_t hash = 0;
    NodeId parent = kRootNode;
    NodeId node = kRootNode;
    BlockId next = kNullBlock;          // in the same bucket
    BlockId parent_block = kNullBlock;  // valid while the parent is registered
    BlockId first_child = kNullBlock;   // the newest
    BlockId next_sibling = kNullBlock;
    BlockId prev_sibling = kNullBlock;
    std::vector<uint64_t> extra;
  };

  static constexpr int kMaxSiblings = 8;

  void link_child(BlockId block);
  void unlink_child(BlockId block);
  size_t bucket_of(uint64_t hash) const { return hash & (buckets_.size() - 1); }

  int32_t block_size_;
  std::vector<BlockId> buckets_;  // a power of two
  std::vector<Record> records_;   // by block
  std::vector<TokenId> tokens_;   // block_size_ a block
  NodeId last_node_ = kRootNode;
  int64_t size_ = 0;
};

}  // namespace mmcore
