#include "kv/kv_cache.h"

#include <algorithm>
#include <bit>
#include <iterator>

#include "base/check.h"

namespace mmcore {

KvCache::KvCache(const KvCacheOptions& options)
    : options_(options),
      block_shift_(std::countr_zero(static_cast<uint32_t>(options.block_size))),
      pool_(options.num_blocks),
      index_(options.prefix_caching ? options.num_blocks : 1, options.block_size),
      host_(options.prefix_caching ? options.num_host_blocks : 0, options.block_size),
      hasher_(options.hash_key, options.hash_bits) {}

BlockId KvCache::allocate() {
  const BlockId block = pool_.peek();
  if (pool_.hashed(block) && block != kNullBlock) {
    host_.save(block, index_.key(block), index_.node(block));
    index_.erase(block);
    pool_.set_hashed(block, false);
    ++evictions_;
  }
  return pool_.allocate();
}

void KvCache::match(KeyChain& chain, std::span<const TokenId> tokens, int64_t max_blocks,
                    std::vector<BlockId>& hits) const {
  hits.clear();
  if (!options_.prefix_caching) return;
  max_blocks = std::min({max_blocks, full_blocks(std::ssize(tokens)), chain.first_private_block()});
  NodeId parent = kRootNode;
  for (int64_t i = 0; i < max_blocks; ++i) {
    const BlockId block = index_.find(chain.key(hasher_, i, tokens, parent));
    if (block == kNullBlock) return;
    hits.push_back(block);
    parent = index_.node(block);
  }
}

void KvCache::match_host(KeyChain& chain, std::span<const TokenId> tokens, int64_t max_blocks,
                         std::span<const BlockId> hits, std::vector<BlockId>& host_hits) const {
  host_hits.clear();
  if (!host_.enabled()) return;
  max_blocks = std::min({max_blocks, full_blocks(std::ssize(tokens)), chain.first_private_block()});
  NodeId parent = hits.empty() ? kRootNode : index_.node(hits.back());
  for (int64_t i = std::ssize(hits); i < max_blocks; ++i) {
    const BlockId host = host_.find(chain.key(hasher_, i, tokens, parent));
    if (host == kNullBlock) return;
    host_hits.push_back(host);
    parent = host_.index().node(host);
  }
}

PrefixIndex::Partial KvCache::match_partial(KeyChain& chain, std::span<const TokenId> tokens,
                                            std::span<const BlockId> hits) const {
  const int64_t i = std::ssize(hits);
  const int64_t begin = i * block_size();
  if (!options_.prefix_caching || i >= chain.first_private_block()) return {};
  // Items are compared by whole blocks only.
  int64_t end = std::min<int64_t>(std::ssize(tokens), begin + block_size());
  const ItemRange items = chain.spans().overlapping(begin, end);
  if (items.first < items.last) end = std::max(begin, chain.spans().begin_of(items.first));
  const int64_t least = std::max(1, block_size() / 4);
  if (end - begin < least) return {};
  const PrefixIndex::Partial found = index_.find_partial(
      hits.empty() ? kNullBlock : hits.back(),
      tokens.subspan(static_cast<size_t>(begin), static_cast<size_t>(end - begin)),
      chain.text_extra(i));
  return found.tokens < least ? PrefixIndex::Partial{} : found;
}

void KvCache::adopt(BlockTable& table, std::span<const BlockId> hits) {
  check_eq(table.size(), 0, "kv cache: adopt into a table that is not empty");
  for (const BlockId block : hits) pool_.ref(block);
  table.blocks_.assign(hits.begin(), hits.end());
  table.published_ = table.size();
  table.node_ = hits.empty() ? kRootNode : index_.node(hits.back());
  table.version_ = next_version();
}

void KvCache::append_loaded(BlockTable& table, std::span<const BlockId> host_hits, bool partly) {
  for (const BlockId host : host_hits) host_.pin(host);  // before allocate, which might take one
  for (const BlockId host : host_hits) {
    const BlockId block = allocate();
    host_.load(host, block);
    if (!partly || host != host_hits.back()) {
      const BlockId parent = table.size() == 0 ? kNullBlock : table.blocks_.back();
      table.node_ = index_.insert(block, host_.index().key(host), parent, host_.index().node(host));
      index_.settle(block);  // loads come before everything else: it may be copied, too
      mark_pending(block);
      pool_.set_hashed(block, true);
      ++table.published_;
    }
    table.blocks_.push_back(block);
  }
  table.version_ = next_version();
}

void KvCache::grow(BlockTable& table, int64_t size) {
  if (table.version_ == 0) table.version_ = next_version();
  while (table.size() < size) table.blocks_.push_back(allocate());
}

BlockCopy KvCache::append_copy(BlockTable& table, BlockId source) {
  if (table.version_ == 0) table.version_ = next_version();
  pool_.ref(source);  // before allocate, which might evict it
  const BlockId fresh = allocate();
  table.blocks_.push_back(fresh);
  return {source, fresh};
}

void KvCache::share(const BlockTable& source, BlockTable& table, int64_t count) {
  check_eq(table.size(), 0, "kv cache: share into a table that is not empty");
  table.blocks_.assign(source.blocks_.begin(), source.blocks_.begin() + count);
  for (const BlockId block : table.blocks_) pool_.ref(block);
  table.published_ = static_cast<int32_t>(std::min<int64_t>(source.published_, count));
  table.node_ = table.published_ == 0 ? kRootNode : index_.node(table[table.published_ - 1]);
  table.version_ = next_version();
}

NodeId KvCache::insert(BlockId block, const BlockKey& key, BlockId parent) {
  const NodeId node = index_.insert(block, key, parent, host_.node_of(key));
  pool_.set_hashed(block, true);
  return node;
}

void KvCache::publish(BlockTable& table, KeyChain& chain, std::span<const TokenId> tokens,
                      int64_t computed) {
  if (!options_.prefix_caching) return;
  const int64_t full = std::min(full_blocks(computed), chain.first_private_block());
  for (int64_t i = table.published_; i < full; ++i) {
    BlockId& block = table.blocks_[static_cast<size_t>(i)];
    const BlockKey key = chain.key(hasher_, i, tokens, table.node_);
    const BlockId cached = index_.find(key);
    if (cached != kNullBlock && index_.pending(cached)) return;  // that step may fail
    if (cached != kNullBlock) {
      pool_.ref(cached);
      pool_.unref(block);
      block = cached;
      table.version_ = next_version();
      table.node_ = index_.node(cached);
    } else {
      table.node_ = insert(block, key, i == 0 ? kNullBlock : table[i - 1]);
    }
    ++table.published_;
  }
}

void KvCache::publish_ahead(BlockTable& table, KeyChain& chain, std::span<const TokenId> tokens,
                            int64_t computed) {
  if (!options_.prefix_caching) return;
  const int64_t full = std::min(full_blocks(computed), chain.first_private_block());
  for (int64_t i = table.published_; i < full; ++i) {
    const BlockKey key = chain.key(hasher_, i, tokens, table.node_);
    if (index_.find(key) != kNullBlock) return;
    table.node_ = insert(table[i], key, i == 0 ? kNullBlock : table[i - 1]);
    mark_pending(table[i]);
    ++table.published_;
  }
}

void KvCache::unpublish(BlockTable& table, int32_t published) {
  if (table.published_ <= published) return;
  for (int64_t i = table.published_ - 1; i >= published; --i) {
    check_eq(pool_.refs(table[i]), 1, "kv cache: unpublish of a block that others hold");
    index_.erase(table[i]);
    pool_.set_hashed(table[i], false);
  }
  table.published_ = published;
  table.node_ = published == 0 ? kRootNode : index_.node(table[published - 1]);
}

void KvCache::truncate(BlockTable& table, int64_t size) {
  if (table.size() <= size) return;
  while (table.size() > size) {
    pool_.unref(table.blocks_.back());
    table.blocks_.pop_back();
  }
  if (table.published_ > size) {
    table.published_ = static_cast<int32_t>(size);
    table.node_ = size == 0 ? kRootNode : index_.node(table.blocks_.back());
  }
  table.version_ = next_version();
}

void KvCache::mark_pending(BlockId block) {
  index_.set_pending(block, true);
  pending_.push_back(block);
}

void KvCache::launch(KvStep& kept) {
  pending_.swap(kept.pending);
  host_.launch(kept.transfers);
}

void KvCache::recall(KvStep& kept) {
  pending_.swap(kept.pending);
  host_.recall(kept.transfers);
}

void KvCache::commit_step() {
  for (const BlockId block : pending_) index_.set_pending(block, false);
  pending_.clear();
  host_.commit();
}

void KvCache::rollback_step(bool ran) {
  // What is still registered was filled by a step before.
  for (const BlockId block : pending_)
    if (index_.contains(block)) index_.set_pending(block, false);
  pending_.clear();
  for (const HostCopy& load : host_.loads()) {
    if (!index_.contains(load.block)) continue;  // a private one
    check_eq(pool_.refs(load.block), 0, "kv cache: a block that was not loaded is held");
    index_.erase(load.block);
    pool_.set_hashed(load.block, false);
  }
  host_.rollback(ran);
}

void KvCache::clear() {
  if (!options_.prefix_caching) return;
  host_.clear();
  for (BlockId b = 1; b < pool_.num_blocks(); ++b) {
    if (!index_.contains(b)) continue;
    check_eq(pool_.refs(b), 0, "kv cache: clear while a sequence uses a cached block");
    index_.erase(b);
    pool_.set_hashed(b, false);
  }
}

}  // namespace mmcore
