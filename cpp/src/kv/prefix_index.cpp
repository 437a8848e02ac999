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

// The null block's record, which is never registered, heads the first blocks.
void PrefixIndex::link_child(BlockId block) {
  Record& record = records_[static_cast<size_t>(block)];
  BlockId& head = records_[static_cast<size_t>(record.parent_block)].first_child;
  record.prev_sibling = kNullBlock;
  record.next_sibling = head;
  if (head != kNullBlock) records_[static_cast<size_t>(head)].prev_sibling = block;
  head = block;
}

void PrefixIndex::unlink_child(BlockId block) {
  Record& record = records_[static_cast<size_t>(block)];
  if (record.prev_sibling != kNullBlock)
    records_[static_cast<size_t>(record.prev_sibling)].next_sibling = record.next_sibling;
  else
    records_[static_cast<size_t>(record.parent_block)].first_child = record.next_sibling;
  if (record.next_sibling != kNullBlock)
    records_[static_cast<size_t>(record.next_sibling)].prev_sibling = record.prev_sibling;
  record.next_sibling = record.prev_sibling = record.parent_block = kNullBlock;
}

PrefixIndex::Partial PrefixIndex::find_partial(BlockId parent, std::span<const TokenId> tokens,
                                               std::span<const uint64_t> extra) const {
  Partial best;
  const NodeId parent_node = node(parent);  // kRootNode for the null block
  BlockId b = records_[static_cast<size_t>(parent)].first_child;
  for (int looked = 0; b != kNullBlock && looked < kMaxSiblings; ++looked) {
    const BlockKey stored = key(b);
    if (stored.parent == parent_node && std::ranges::equal(stored.extra, extra)) {
      const auto end = std::ranges::mismatch(stored.tokens, tokens).in1;
      const auto shared = static_cast<int32_t>(end - stored.tokens.begin());
      if (shared > best.tokens) best = {b, shared};
    }
    b = records_[static_cast<size_t>(b)].next_sibling;
  }
  return best;
}

NodeId PrefixIndex::insert(BlockId block, const BlockKey& key, BlockId parent, NodeId known) {
  check(!contains(block), "prefix index: insert of a registered block");
  check_eq(key.tokens.size(), static_cast<size_t>(block_size_), "prefix index: block not full");
  Record& record = records_[static_cast<size_t>(block)];
  record.hash = key.hash;
  record.parent = key.parent;
  record.node = known == kRootNode ? ++last_node_ : known;
  record.insertion = ++insertions_;
  record.pending = false;
  record.extra.assign(key.extra.begin(), key.extra.end());
  record.parent_block = parent;
  link_child(block);
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
  unlink_child(block);
  record.next = kNullBlock;
  record.node = kRootNode;
  record.extra.clear();
  --size_;
}

std::vector<std::string> PrefixIndex::violations(bool chained) const {
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
    const Record& record = records_[static_cast<size_t>(b)];
    const BlockId left = record.prev_sibling;
    const BlockId expected = left != kNullBlock
                                 ? records_[static_cast<size_t>(left)].next_sibling
                                 : records_[static_cast<size_t>(record.parent_block)].first_child;
    const bool has_parent = node(record.parent_block) == record.parent;  // else: kv.chain below
    if (has_parent && expected != b)
      out.push_back("kv.index: " + name + " is not among its parent's children");
    const BlockId found = find(key(b));
    if (found != b)
      out.push_back("kv.index: " + name + " is found as block " + std::to_string(found));
  }
  if (registered != size_)
    out.push_back("kv.index: " + std::to_string(registered) + " blocks registered, " +
                  std::to_string(size_) + " counted");
  for (BlockId b = 0; chained && b < static_cast<BlockId>(records_.size()); ++b) {
    const NodeId parent = records_[static_cast<size_t>(b)].parent;
    if (contains(b) && parent != kRootNode && !nodes.contains(parent))
      out.push_back("kv.chain: the parent of block " + std::to_string(b) + " is not cached");
  }
  return out;
}

}  // namespace mmcore
