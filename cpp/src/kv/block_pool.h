// The KV cache's blocks: who is used, how often, and which free block is taken next.
//
//   free list   head [ never hashed, or hash dropped | hashed, least recently used ... ] tail
//                     taken first                      still found by the prefix index
//
// Flat vectors, all operations O(1). Block 0 is the null block: never free, never allocated.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "mmcore/types.h"

namespace mmcore {

inline constexpr BlockId kNullBlock = 0;

class BlockPool {
 public:
  /// `num_blocks` includes the null block.
  explicit BlockPool(int32_t num_blocks);

  /// Takes the block at the head of the free list, with one reference; num_free() > 0. When the
  /// block is hashed its cached content is lost: the caller removes it from the prefix index first
  /// (peek) and clears the mark.
  BlockId allocate();
  /// The block that allocate() will return.
  BlockId peek() const { return links_[kNullBlock].next; }

  /// Adds a reference; a free block leaves the free list.
  void ref(BlockId block);
  /// Drops a reference. A block without references is free: a hashed one goes to the tail of the
  /// free list, any other to the head.
  void unref(BlockId block);
  /// Marks whether the prefix index holds the block. Clearing the mark of a free block moves it to
  /// the head of the free list.
  void set_hashed(BlockId block, bool hashed);

  int32_t refs(BlockId block) const { return blocks_[static_cast<size_t>(block)].refs; }
  bool hashed(BlockId block) const { return blocks_[static_cast<size_t>(block)].hashed; }
  int32_t num_blocks() const { return static_cast<int32_t>(blocks_.size()); }
  int32_t num_usable() const { return num_blocks() - 1; }
  int32_t num_free() const { return num_free_; }
  int32_t num_used() const { return num_usable() - num_free_; }
  /// Free blocks that the prefix index still finds.
  int32_t num_free_hashed() const { return num_free_hashed_; }
  /// Counts unrefs that made a block free: a caller that lacked blocks need not look again before
  /// it moves.
  uint64_t frees() const { return frees_; }

  /// The free list from head to tail; stops after num_blocks entries if it is broken.
  std::vector<BlockId> free_list() const;
  /// One line for each violated invariant of the list and the counters.
  std::vector<std::string> violations() const;

 private:
  struct Block {
    int32_t refs = 0;
    bool hashed = false;
  };
  struct Link {  // circular, through the null block
    BlockId prev = kNullBlock;
    BlockId next = kNullBlock;
  };

  void link_after(BlockId position, BlockId block);
  void unlink(BlockId block);
  void push_free(BlockId block);

  std::vector<Block> blocks_;
  std::vector<Link> links_;
  int32_t num_free_ = 0;
  int32_t num_free_hashed_ = 0;
  uint64_t frees_ = 0;
};

}  // namespace mmcore
