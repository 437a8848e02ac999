// The KV blocks of one sequence, in order of position.
//
//   position   0 .. size-1 | size .. | ... | tail
//   blocks     published, maybe shared     | private, being filled
//
// Each entry holds one reference in the block pool. Blocks below `published()` are in the prefix
// index or were found there; they are full and never written again (invariant: kv.immutable).
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "kv/block_key.h"
#include "mmcore/types.h"

namespace mmcore {

class KvCache;

class BlockTable {
 public:
  std::span<const BlockId> blocks() const { return blocks_; }
  int32_t size() const { return static_cast<int32_t>(blocks_.size()); }
  BlockId operator[](int64_t i) const { return blocks_[static_cast<size_t>(i)]; }
  int32_t published() const { return published_; }
  /// Node of the last published block: the parent of the next one.
  NodeId node() const { return node_; }
  /// Changes whenever an entry changes or goes, and is never the same for two tables; appending
  /// does not count. Lets a reader copy only what is new.
  uint64_t version() const { return version_; }

 private:
  friend class KvCache;

  std::vector<BlockId> blocks_;
  int32_t published_ = 0;
  NodeId node_ = kRootNode;
  uint64_t version_ = 0;
};

}  // namespace mmcore
