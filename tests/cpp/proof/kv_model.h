// The block pool and the prefix index as plain lists: what each block holds, who uses it, and which
// free block goes next. Every operation walks everything; there are no hashes and no links.
#pragma once

#include <algorithm>
#include <vector>

#include "kv/block_pool.h"

namespace mmcore::proof {

class KvModel {
 public:
  static constexpr int kNothing = -1;

  explicit KvModel(int32_t num_blocks)
      : refs(static_cast<size_t>(num_blocks)), cached(static_cast<size_t>(num_blocks), kNothing) {
    for (BlockId b = 1; b < num_blocks; ++b) free.push_back(b);
  }

  /// The next free block; what it held is forgotten.
  BlockId allocate() {
    const BlockId block = free.front();
    free.erase(free.begin());
    evictions += cached[at(block)] != kNothing;
    cached[at(block)] = kNothing;
    refs[at(block)] = 1;
    return block;
  }
  void ref(BlockId block) {
    if (refs[at(block)]++ == 0) free.erase(std::ranges::find(free, block));
  }
  /// What still holds something is reused last, anything else first.
  void unref(BlockId block) {
    if (--refs[at(block)] > 0) return;
    free.insert(cached[at(block)] == kNothing ? free.begin() : free.end(), block);
  }
  /// The block that holds a content, or the null block.
  BlockId find(int content) const {
    const auto it = std::ranges::find(cached, content);
    return it == cached.end() ? kNullBlock : static_cast<BlockId>(it - cached.begin());
  }
  /// The blocks of the longest beginning of `contents` that is cached.
  std::vector<BlockId> match(const std::vector<int>& contents, int64_t max_blocks) const {
    std::vector<BlockId> hits;
    for (const int content : contents) {
      if (std::ssize(hits) == max_blocks || content == kNothing) break;
      const BlockId block = find(content);
      if (block == kNullBlock) break;
      hits.push_back(block);
    }
    return hits;
  }
  int64_t num_cached() const { return std::ssize(cached) - std::ranges::count(cached, kNothing); }
  static size_t at(BlockId block) { return static_cast<size_t>(block); }

  std::vector<int> refs;      // by block
  std::vector<int> cached;    // by block: number of its content
  std::vector<BlockId> free;  // the next to go first
  uint64_t evictions = 0;
};

}  // namespace mmcore::proof
