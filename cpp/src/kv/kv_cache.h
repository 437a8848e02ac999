// Block pool and prefix index together: allocation that evicts, hits, publishing, copy-on-write.
//
// The one place that changes block tables. Everything here is bookkeeping: the runner owns the KV
// memory itself.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "kv/block_key.h"
#include "kv/block_pool.h"
#include "kv/block_table.h"
#include "kv/host_tier.h"
#include "kv/prefix_index.h"
#include "mmcore/model_runner.h"

namespace mmcore {

struct KvCacheOptions {
  int32_t num_blocks = 0;  // the null block included
  int32_t block_size = 0;  // a power of two
  bool prefix_caching = true;
  int32_t num_host_blocks = 0;  // that keep what is taken from the pool; needs prefix_caching
  HashKey hash_key;
  int hash_bits = 64;
};

/// What a step does to the cache before it commits.
struct KvStep {
  std::vector<BlockId> pending;  // registered, but filled by the step only
  HostTransfers transfers;
};

class KvCache {
 public:
  explicit KvCache(const KvCacheOptions& options);

  int32_t block_size() const { return options_.block_size; }
  int64_t full_blocks(int64_t tokens) const { return tokens >> block_shift_; }
  int64_t blocks_for(int64_t tokens) const { return full_blocks(tokens + block_size() - 1); }
  const BlockPool& pool() const { return pool_; }
  const PrefixIndex& index() const { return index_; }
  const HostTier& host() const { return host_; }
  const BlockHasher& hasher() const { return hasher_; }
  /// Cached blocks that were taken for new use.
  uint64_t evictions() const { return evictions_; }

  /// Lists the cached blocks of the longest known prefix of `tokens`, at most `max_blocks`. Takes
  /// no references. O(hits).
  void match(KeyChain& chain, std::span<const TokenId> tokens, int64_t max_blocks,
             std::vector<BlockId>& hits) const;
  /// After match() has found `hits`: the host blocks that hold what follows them, so that both
  /// together are at most `max_blocks`. O(hits).
  void match_host(KeyChain& chain, std::span<const TokenId> tokens, int64_t max_blocks,
                  std::span<const BlockId> hits, std::vector<BlockId>& host_hits) const;
  /// After match() has found `hits`: a cached block that begins like what follows them, and for how
  /// many tokens of text. Fewer than a quarter of a block are none: they are computed as quickly as
  /// a block is copied.
  PrefixIndex::Partial match_partial(KeyChain& chain, std::span<const TokenId> tokens,
                                     std::span<const BlockId> hits) const;

  /// Starts an empty table with published blocks from match(), which it references.
  void adopt(BlockTable& table, std::span<const BlockId> hits);
  /// Appends blocks that are loaded with host blocks from match_host(): published ones, but for
  /// the last if it is `partly` used, which is private then.
  void append_loaded(BlockTable& table, std::span<const BlockId> host_hits, bool partly);
  /// Appends fresh blocks until the table has `size`; the pool must have enough.
  void grow(BlockTable& table, int64_t size);
  /// Appends a fresh block that begins as a copy of `source`. The source is referenced until the
  /// caller drops that with finish_copy, once the copy has run or never will.
  BlockCopy append_copy(BlockTable& table, BlockId source);
  /// Starts an empty table with the first `count` blocks of `source`, which are full.
  void share(const BlockTable& source, BlockTable& table, int64_t count);
  void finish_copy(const BlockCopy& copy) { pool_.unref(copy.src); }

  /// Registers the blocks that are full now that the first `computed` tokens are in the cache. A
  /// block whose content is cached already is exchanged for the cached one and freed; one whose
  /// content a step that runs is to fill waits for the next call.
  void publish(BlockTable& table, KeyChain& chain, std::span<const TokenId> tokens,
               int64_t computed);

  /// Registers blocks that the step being planned fills, so that others may adopt them whole in the
  /// same step. Stops at content that is cached already: publish() exchanges that later.
  void publish_ahead(BlockTable& table, KeyChain& chain, std::span<const TokenId> tokens,
                     int64_t computed);
  /// Takes back what publish_ahead() registered, down to `published` entries. Nobody else holds
  /// those blocks any more.
  void unpublish(BlockTable& table, int32_t published);
  /// Whether the block was registered after the first `insertions` registrations, and not loaded.
  bool newer_than(BlockId block, uint64_t insertions) const {
    return options_.prefix_caching && index_.insertion(block) > insertions;
  }

  /// Drops entries from the end until `size` are left; deepest first, so that they are evicted
  /// before their parents.
  void truncate(BlockTable& table, int64_t size);
  void release(BlockTable& table) { truncate(table, 0); }

  /// Takes out what the step being planned does, while it runs, and puts it back for one of the
  /// two below.
  void launch(KvStep& kept);
  void recall(KvStep& kept);
  /// The step has filled and transferred what it was to.
  void commit_step();
  /// The step has failed, or, unless it `ran`, was given up; no table holds a block any more that
  /// it was to load.
  void rollback_step(bool ran);

  /// Forgets every cached block; none of them may be referenced by a table.
  void clear();

  /// A table, and what it should hold, for violations().
  struct TableView {
    RequestId owner = 0;
    const BlockTable* table = nullptr;
    const KeyChain* chain = nullptr;
    std::span<const TokenId> tokens;
    int64_t computed = 0;
  };
  /// One line for each violated invariant of pool, index, these tables, and copies and transfers
  /// of steps that run, which must be all that exist. O(all state).
  std::vector<std::string> violations(std::span<const TableView> tables,
                                      std::span<const BlockCopy> copies = {},
                                      std::span<const HostCopy> transfers = {}) const;

 private:
  BlockId allocate();
  NodeId insert(BlockId block, const BlockKey& key, BlockId parent);
  void mark_pending(BlockId block);
  uint64_t next_version() { return ++last_version_; }

  KvCacheOptions options_;
  int block_shift_;  // log2 of the block size
  BlockPool pool_;
  PrefixIndex index_;
  HostTier host_;
  std::vector<BlockId> pending_;  // of the step being planned, or recalled
  BlockHasher hasher_;
  uint64_t evictions_ = 0;
  uint64_t last_version_ = 0;
};

}  // namespace mmcore
