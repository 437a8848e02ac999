#include "kv/prefix_index.h"

#include <algorithm>
#include <bit>
#include <unordered_set>

#include "base/check.h"

namespace mmcore {

PrefixIndex::PrefixIndex(int32_t num_blocks, int32_t block_size)
    : block_size_(block_size),
      buckets_(std::bit_ceil(static_cast<size_t>(num_blocks)), kNullBlock),
      records_(static_cast<size_t>(num_blocks)),
      tokens_(static_cast<size_t>(num_blocks) * static_cast<size_t>(block_size)) {}

BlockKey PrefixIndex::key(BlockId block) const {
  const Record& record = records_[static_cast<size_t>(block)];
  const auto first = static_cast<size_t>(block) * static_cast<size_t>(block_size_);
  return {record.hash, record.parent,
          std::span(tokens_).subspan(first, static_cast<size_t>(block_size_)), record.extra};
}

BlockId PrefixIndex::find(const BlockKey& wanted) const {
  for (BlockId b = buckets_[bucket_of(wanted.hash)]; b != kNullBlock;
       b = records_[static_cast<size_t>(b)].next) {
    const BlockKey stored = key(b);
    if (stored.hash == wanted.hash && stored.parent == wanted.parent &&
        std::ranges::equal(stored.tokens, wanted.tokens) &&
        std::ranges::equal(stored.extra, wanted.extra))
      return b;
  }
  return kNullBlock;
}

NodeId PrefixIndex::insert(BlockId block, const BlockKey& key) {
  check(!contains(block), "prefix index: insert of a registered block");
  check_eq(key.tokens.size(), static_cast<size_t>(block_size_), "prefix index: block not full");
  Record& record = records_[static_cast<size_t>(block)];
  record.hash = key.hash;
  record.parent = key.parent;
  record.node = ++last_node_;
  record.extra.assign(key.extra.begin(), key.extra.end());
  std::ranges::copy(key.tokens, tokens_.begin() + int64_t{block} * block_size_);
  BlockId& head = buckets_[bucket_of(key.hash)];
  record.next = head;
  head = block;
  ++size_;
  return record.node;
}

void PrefixIndex::erase(BlockId block) {
  check(contains(block), "prefix index: erase of an unregistered block");
  Record& record = records_[static_cast<size_t>(block)];
  BlockId* link = &buckets_[bucket_of(record.hash)];
  while (*link != block) {
    check(*link != kNullBlock, "prefix index: registered block is not in its bucket");
    link = &records_[static_cast<size_t>(*link)].next;
  }
  *link = record.next;
  record.next = kNullBlock;
  record.node = kRootNode;
  record.extra.clear();
  --size_;
}

std::vector<std::string> PrefixIndex::violations() const {
  std::vector<std::string> out;
  std::unordered_set<NodeId> nodes;
  int64_t registered = 0;
  for (BlockId b = 0; b < static_cast<BlockId>(records_.size()); ++b) {
    if (!contains(b)) continue;
    ++registered;
    const std::string name = "block " + std::to_string(b);
    if (b == kNullBlock) out.push_back("kv.null_block: the null block is registered");
    if (!nodes.insert(node(b)).second)
      out.push_back("kv.index: " + name + " shares its node with another block");
    const BlockId found = find(key(b));
    if (found != b)
      out.push_back("kv.index: " + name + " is found as block " + std::to_string(found));
  }
  if (registered != size_)
    out.push_back("kv.index: " + std::to_string(registered) + " blocks registered, " +
                  std::to_string(size_) + " counted");
  for (BlockId b = 0; b < static_cast<BlockId>(records_.size()); ++b) {
    const NodeId parent = records_[static_cast<size_t>(b)].parent;
    if (contains(b) && parent != kRootNode && !nodes.contains(parent))
      out.push_back("kv.chain: the parent of block " + std::to_string(b) + " is not cached");
  }
  return out;
}

}  // namespace mmcore
