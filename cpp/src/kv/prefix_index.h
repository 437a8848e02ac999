// Finds full KV blocks by their content.
//
// A hash table chained through the blocks themselves: no allocation for text blocks after
// construction, O(1) expected. Each cached content has one block and one node number; no number is
// ever given to other content, so "same parent node" means "same content from the start of the
// sequence".
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
  /// Registers a block whose content no other block has; returns its node: `known` if the other
  /// tier has given one to this content, else a new one.
  /// `parent` is the block of key.parent, the null block for a first block.
  NodeId insert(BlockId block, const BlockKey& key, BlockId parent = kNullBlock,
                NodeId known = kRootNode);
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
  /// How often a block was registered so far.
  uint64_t insertions() const { return insertions_; }
  /// The number of the registration of a registered block, from 1 on; 0 once it has settled.
  uint64_t insertion(BlockId block) const { return records_[static_cast<size_t>(block)].insertion; }
  /// Makes a registered block count as one that was there before.
  void settle(BlockId block) { records_[static_cast<size_t>(block)].insertion = 0; }
  /// Whether a step that has not committed yet is to fill a registered block.
  bool pending(BlockId block) const { return records_[static_cast<size_t>(block)].pending; }
  void set_pending(BlockId block, bool pending) {
    records_[static_cast<size_t>(block)].pending = pending;
  }
  /// Everything stored about a registered block.
  BlockKey key(BlockId block) const;

  /// One line for each violated invariant of the table. `chained`: every parent is registered too.
  std::vector<std::string> violations(bool chained = true) const;

 private:
  struct Record {
    uint64_t hash = 0;
    NodeId parent = kRootNode;
    NodeId node = kRootNode;
    uint64_t insertion = 0;
    bool pending = false;
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
  uint64_t insertions_ = 0;
  int64_t size_ = 0;
};

}  // namespace mmcore
