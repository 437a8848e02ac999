// The second tier of the KV cache: blocks in host memory, which keep what the device gives up.
//
//   a cached block is taken for new content    device block --save--> host block
//   admission finds content in the tier        device block <--load-- host block, which stays
//
// A pool and an index like the device's: the free list is the order of last use, and a reference is
// a pin. The host blocks of a step's transfers are pinned until it is committed or rolled back, so
// that none is filled twice in a step, nor taken while it is read.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "kv/block_key.h"
#include "kv/block_pool.h"
#include "kv/prefix_index.h"
#include "mmcore/model_runner.h"

namespace mmcore {

/// Copies that a step is to make.
struct HostTransfers {
  std::vector<HostCopy> saves;
  std::vector<HostCopy> loads;
};

class HostTier {
 public:
  /// `num_blocks` may be 0: then nothing is ever kept. Blocks are numbered from 1 in here, from 0
  /// in the transfers.
  HostTier(int32_t num_blocks, int32_t block_size)
      : pool_(num_blocks + 1), index_(num_blocks + 1, block_size) {}

  bool enabled() const { return pool_.num_usable() > 0; }
  const BlockPool& pool() const { return pool_; }
  const PrefixIndex& index() const { return index_; }

  /// The block with exactly this content, or kNullBlock.
  BlockId find(const BlockKey& key) const { return enabled() ? index_.find(key) : kNullBlock; }
  /// The node of this content, or kRootNode if the tier does not hold it.
  NodeId node_of(const BlockKey& key) const { return index_.node(find(key)); }

  /// Keeps the content of a device block that is about to be taken. What the tier holds already is
  /// only marked as used. Where all blocks are pinned it takes the place of the step's oldest save,
  /// or is lost if all are being loaded.
  void save(BlockId block, const BlockKey& key, NodeId node);
  /// Pins a block that is going to be loaded, before anything else is saved.
  void pin(BlockId host) { pool_.ref(host); }
  /// Plans the copy of a pinned block into a device block.
  void load(BlockId host, BlockId block) { step_.loads.push_back({block, host - 1}); }

  const std::vector<HostCopy>& saves() const { return step_.saves; }
  const std::vector<HostCopy>& loads() const { return step_.loads; }
  /// Takes the transfers of a step out while it runs, and puts them back for commit() or
  /// rollback().
  void launch(HostTransfers& kept) { std::swap(step_, kept); }
  void recall(HostTransfers& kept);
  /// The transfers were made.
  void commit();
  /// Some of the transfers may have been made: what was to be saved is dropped. If the step never
  /// `ran`, saves are still to be made, and belong to the next one.
  void rollback(bool ran);
  /// Forgets everything; no load is planned, no step runs.
  void clear();

  /// Content that was dropped to make room.
  uint64_t evictions() const { return evictions_; }
  /// One line for each violated invariant of the tier itself, with the transfers of steps that run.
  std::vector<std::string> violations(std::span<const HostCopy> launched = {}) const;

 private:
  void drop_oldest_save();
  void unpin_loads();
  void forget(BlockId host);

  BlockPool pool_;
  PrefixIndex index_;
  HostTransfers step_;                  // being planned, or recalled
  std::vector<HostCopy> unmade_saves_;  // of a selection that never ran, while a step is recalled
  uint64_t evictions_ = 0;
};

}  // namespace mmcore
