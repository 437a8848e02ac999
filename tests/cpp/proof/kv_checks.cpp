// KvMachine::check: what must hold after every operation, by the invariant's number.
#include <algorithm>
#include <string>

#include "proof/kv_machine.h"

namespace mmcore::proof {
namespace {

// The validators that the engine carries are slower than the checks here; they take their turn.
constexpr int64_t kOwnValidatorsEvery = 64;
constexpr int32_t kLookedAt = 8;  // blocks behind a hit, for a partial one (docs: kv.partial)

std::string block_name(BlockId block) { return "block " + std::to_string(block); }

}  // namespace

void KvMachine::check() {
  check_pool();
  for (const auto& sequence : sequences_) check_sequence(*sequence);
  check_host();
  check_salts();
  if (operations_ % kOwnValidatorsEvery == 0) check_own_validators();
}

void KvMachine::check_pool() {
  const BlockPool& pool = cache_.pool();
  counted_.assign(model_.refs.size(), 0);
  for (const auto& sequence : sequences_)
    for (const BlockId block : sequence->table.blocks())
      if (block > kNullBlock && block <= flavour_.usable_blocks) ++counted_[KvModel::at(block)];
  for (const BlockCopy& copy : pending_) ++counted_[KvModel::at(copy.src)];
  int64_t used = 0;
  for (BlockId b = 1; b <= flavour_.usable_blocks; ++b) {
    if (pool.refs(b) != counted_[KvModel::at(b)])
      return fail("I2", block_name(b) + " has " + std::to_string(pool.refs(b)) +
                            " references, tables and copies name it " +
                            std::to_string(counted_[KvModel::at(b)]) + " times");
    used += pool.refs(b) > 0;
    const bool cached = model_.cached[KvModel::at(b)] != KvModel::kNothing;
    if (pool.hashed(b) != cached ||
        (flavour_.prefix_caching && cache_.index().contains(b) != cached))
      return fail("I7", block_name(b) + (cached ? " should be cached" : " should not be cached"));
  }
  if (used + pool.num_free() != flavour_.usable_blocks)
    return fail("I1", std::to_string(used) + " used and " + std::to_string(pool.num_free()) +
                          " free blocks of " + std::to_string(flavour_.usable_blocks));
  if (pool.refs(kNullBlock) != 1 || pool.hashed(kNullBlock))
    return fail("I4", "the null block was touched");
  if (flavour_.prefix_caching && cache_.index().size() != model_.num_cached())
    return fail("I7", std::to_string(cache_.index().size()) + " blocks in the index, " +
                          std::to_string(model_.num_cached()) + " cached");
  const std::vector<BlockId> free = pool.free_list();
  if (std::ssize(free) != pool.num_free())
    return fail("I3", std::to_string(free.size()) + " blocks in the free list, " +
                          std::to_string(pool.num_free()) + " counted");
  for (const BlockId block : free)
    if (pool.refs(block) != 0) return fail("I3", block_name(block) + " is free and used");
  if (free != model_.free) return fail("I16", "the free list is in another order");
  if (cache_.evictions() != model_.evictions)
    return fail("I16", std::to_string(cache_.evictions()) + " evictions, not " +
                           std::to_string(model_.evictions));
}

void KvMachine::check_sequence(const Sequence& sequence) {
  const BlockTable& table = sequence.table;
  if (table.size() != cache_.blocks_for(sequence.computed))
    return fail("I11", "a table has " + std::to_string(table.size()) + " blocks for " +
                           std::to_string(sequence.computed) + " tokens");
  if (!std::ranges::equal(table.blocks(), sequence.blocks))
    return fail("I11", "a table names other blocks than it should");
  if (table.published() != sequence.published)
    return fail("I7", std::to_string(table.published()) + " blocks of a table are published, not " +
                          std::to_string(sequence.published));
  const Document& document = documents_[sequence.document];
  for (int64_t i = 0; i < sequence.published; ++i)
    if (model_.cached[KvModel::at(table[i])] != document.block[static_cast<size_t>(i)])
      return fail("I6", block_name(table[i]) + " is published with other content");
  int64_t position = 0;
  for (const BlockId block : table.blocks()) {
    for (int64_t i = 0; i < flavour_.block_size && position < sequence.computed; ++i, ++position)
      if (memory_[slot(block, i)] != document.prefix[static_cast<size_t>(position)])
        return fail("I6", block_name(block) + " holds something else at position " +
                              std::to_string(position));
  }
}

// What the index of the host tier says that a block holds is in its memory: prefixes by number, so
// that equal numbers at the end of a block mean the same content from the start on.
void KvMachine::check_host() {
  if (flavour_.host_blocks == 0) return;
  for (int i = 0; i < documents_.size(); ++i) {
    Document& document = documents_[i];
    cache_.match(document.chain, document.tokens, 1000, hits_);
    cache_.match_host(document.chain, document.tokens, 1000, hits_, host_hits_);
    int64_t position = std::ssize(hits_) * flavour_.block_size;
    for (const BlockId host : host_hits_)
      for (int64_t k = 0; k < flavour_.block_size; ++k, ++position)
        if (host_memory_[static_cast<size_t>((host - 1) * flavour_.block_size + k)] !=
            document.prefix[static_cast<size_t>(position)])
          return fail("I6", "host block " + std::to_string(host - 1) +
                                " holds something else at position " + std::to_string(position));
  }
}

void KvMachine::check_salts() {
  counted_.assign(model_.refs.size(), -1);
  for (const auto& sequence : sequences_) {
    for (const BlockId block : sequence->table.blocks()) {
      int& user = counted_[KvModel::at(block)];
      if (user < 0) user = sequence->document;
      const Document& first = documents_[user];
      const Document& second = documents_[sequence->document];
      if (first.salt != second.salt || first.lora_id != second.lora_id)
        return fail("I10", block_name(block) + " is shared across salts or adapters");
    }
  }
}

// Behind the hits: how many tokens of a cached block are the document's, up to its next item. 0 for
// content that lies elsewhere, and for blocks with items, which are used whole or not at all.
int64_t KvMachine::shared_beginning(const Document& document, int content) const {
  const auto i = hits_.size();
  const auto begin = static_cast<int64_t>(i) * flavour_.block_size;
  for (int other = 0; other < documents_.size(); ++other) {
    const Document& source = documents_[other];
    if (i >= source.block.size() || source.block[i] != content) continue;
    const ItemRange items = source.chain.spans().overlapping(begin, begin + flavour_.block_size);
    if (items.first < items.last) return 0;
    int64_t same = 0;
    while (same < flavour_.block_size && begin + same < std::ssize(document.prefix) &&
           source.prefix[static_cast<size_t>(begin + same)] ==
               document.prefix[static_cast<size_t>(begin + same)])
      ++same;
    return same;
  }
  return 0;
}

// What is found holds what it should, is worth a copy, and is the longest; with more candidates
// than are looked at it need not be.
void KvMachine::check_partial(const Document& document, const PrefixIndex::Partial& found) {
  const auto begin = std::ssize(hits_) * flavour_.block_size;
  const int64_t least = std::max(1, flavour_.block_size / 4);
  int64_t best = 0;
  const bool is_private = std::ssize(hits_) >= document.chain.first_private_block();
  if (flavour_.prefix_caching && !is_private)
    for (const int content : model_.cached)
      if (content != KvModel::kNothing) best = std::max(best, shared_beginning(document, content));
  if (best < least) best = 0;
  const bool all_looked_at = flavour_.usable_blocks <= kLookedAt;
  if (found.tokens > best || (all_looked_at && found.tokens != best))
    return fail(
        "I8", std::to_string(found.tokens) + " tokens of a block hit, of " + std::to_string(best));
  for (int64_t p = 0; p < found.tokens; ++p)
    if (memory_[slot(found.block, p)] != document.prefix[static_cast<size_t>(begin + p)])
      return fail("I8", block_name(found.block) + " is hit in part but holds other content");
}

// Two blocks have one key exactly if they and all before them hold the same. Once a document: the
// keys do not change. Here the hash has all of its bits, whatever the flavour.
void KvMachine::check_keys(int document) {
  keys_checked_.resize(static_cast<size_t>(documents_.size()));
  if (keys_checked_[static_cast<size_t>(document)]) return;
  keys_checked_[static_cast<size_t>(document)] = true;
  const BlockHasher hasher(HashKey::from_seed(1), 64);
  const auto hashes = [&](const Document& d) {
    KeyChain chain(flavour_.block_size, d.chain.spans(), d.chain.salt(), d.chain.lora_id());
    std::vector<uint64_t> all;
    for (int64_t i = 0; i < std::ssize(d.block); ++i)
      all.push_back(chain.key(hasher, i, d.tokens, kRootNode).hash);
    return all;
  };
  const Document& first = documents_[document];
  const std::vector<uint64_t> keys = hashes(first);
  for (int other = 0; other < documents_.size(); ++other) {
    const Document& second = documents_[other];
    const std::vector<uint64_t> others = hashes(second);
    for (size_t i = 0; i < std::min(keys.size(), others.size()); ++i) {
      if (first.block[i] == kPrivate || second.block[i] == kPrivate) break;
      if ((keys[i] == others[i]) != (first.block[i] == second.block[i]))
        return fail("I9", "block " + std::to_string(i) + " of documents " +
                              std::to_string(document) + " and " + std::to_string(other) +
                              (keys[i] == others[i] ? " differ and have one key"
                                                    : " are equal and have two keys"));
    }
  }
}

void KvMachine::check_own_validators() {
  if (violation_.found() || !pending_.empty()) return;  // they know no copies under way
  std::vector<KvCache::TableView> views;
  for (const auto& sequence : sequences_) {
    const Document& document = documents_[sequence->document];
    views.push_back({1, &sequence->table, &document.chain, document.tokens, sequence->computed});
  }
  for (const std::string& line : cache_.violations(views)) return fail("validators", line);
}

}  // namespace mmcore::proof
