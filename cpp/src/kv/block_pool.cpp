#include "kv/block_pool.h"

#include <string>

#include "base/check.h"

namespace mmcore {

BlockPool::BlockPool(int32_t num_blocks)
    : blocks_(static_cast<size_t>(num_blocks)), links_(static_cast<size_t>(num_blocks)) {
  blocks_[kNullBlock].refs = 1;
  for (BlockId b = num_blocks - 1; b >= 1; --b) link_after(kNullBlock, b);
  num_free_ = num_blocks - 1;
}

void BlockPool::link_after(BlockId position, BlockId block) {
  Link& before = links_[static_cast<size_t>(position)];
  links_[static_cast<size_t>(block)] = {position, before.next};
  links_[static_cast<size_t>(before.next)].prev = block;
  before.next = block;
}

void BlockPool::unlink(BlockId block) {
  const Link link = links_[static_cast<size_t>(block)];
  links_[static_cast<size_t>(link.prev)].next = link.next;
  links_[static_cast<size_t>(link.next)].prev = link.prev;
}

void BlockPool::push_free(BlockId block) {
  const bool keep = blocks_[static_cast<size_t>(block)].hashed;
  link_after(keep ? links_[kNullBlock].prev : kNullBlock, block);
}

BlockId BlockPool::allocate() {
  const BlockId block = peek();
  check(block != kNullBlock, "block pool: allocate without a free block");
  check(!hashed(block), "block pool: allocate of a block that the prefix index still holds");
  unlink(block);
  --num_free_;
  blocks_[static_cast<size_t>(block)].refs = 1;
  return block;
}

void BlockPool::ref(BlockId block) {
  check(block > kNullBlock && block < num_blocks(), "block pool: ref of no block");
  Block& state = blocks_[static_cast<size_t>(block)];
  if (state.refs++ > 0) return;
  unlink(block);
  --num_free_;
  num_free_hashed_ -= state.hashed;
}

void BlockPool::unref(BlockId block) {
  check(block > kNullBlock && block < num_blocks(), "block pool: unref of no block");
  Block& state = blocks_[static_cast<size_t>(block)];
  check(state.refs > 0, "block pool: unref of a free block");
  if (--state.refs > 0) return;
  push_free(block);
  ++num_free_;
  ++frees_;
  num_free_hashed_ += state.hashed;
}

void BlockPool::set_hashed(BlockId block, bool hashed) {
  check(block > kNullBlock && block < num_blocks(), "block pool: hash of no block");
  Block& state = blocks_[static_cast<size_t>(block)];
  if (state.hashed == hashed) return;
  state.hashed = hashed;
  if (state.refs > 0) return;
  num_free_hashed_ += hashed ? 1 : -1;
  unlink(block);
  push_free(block);
}

std::vector<BlockId> BlockPool::free_list() const {
  std::vector<BlockId> list;
  for (BlockId b = peek(); b != kNullBlock && list.size() < blocks_.size();
       b = links_[static_cast<size_t>(b)].next)
    list.push_back(b);
  return list;
}

std::vector<std::string> BlockPool::violations() const {
  std::vector<std::string> out;
  const auto name = [](BlockId b) { return "block " + std::to_string(b); };
  std::vector<int32_t> seen(blocks_.size());
  int32_t walked = 0;
  int32_t walked_hashed = 0;
  bool past_unhashed = false;
  for (const BlockId b : free_list()) {
    const auto i = static_cast<size_t>(b);
    if (seen[i]++ > 0) out.push_back("kv.free_list: " + name(b) + " is listed twice");
    if (blocks_[i].refs != 0)
      out.push_back("kv.free_list: " + name(b) + " is listed with references");
    if (links_[static_cast<size_t>(links_[i].next)].prev != b)
      out.push_back("kv.free_list: links around " + name(b) + " disagree");
    if (past_unhashed && !blocks_[i].hashed)
      out.push_back("kv.free_list: " + name(b) + " has no hash but lies behind a hashed one");
    past_unhashed = past_unhashed || blocks_[i].hashed;
    ++walked;
    walked_hashed += blocks_[i].hashed;
  }
  int32_t used = 0;
  for (BlockId b = 1; b < num_blocks(); ++b) {
    const auto i = static_cast<size_t>(b);
    if (blocks_[i].refs < 0) out.push_back("kv.refcount: " + name(b) + " is negative");
    if (blocks_[i].refs == 0 && seen[i] == 0)
      out.push_back("kv.conservation: " + name(b) + " leaked");
    used += blocks_[i].refs > 0;
  }
  if (walked != num_free_)
    out.push_back("kv.free_list: " + std::to_string(walked) + " blocks walked, " +
                  std::to_string(num_free_) + " counted");
  if (walked_hashed != num_free_hashed_)
    out.push_back("kv.free_list: " + std::to_string(walked_hashed) + " hashed blocks walked, " +
                  std::to_string(num_free_hashed_) + " counted");
  if (walked + used != num_usable())
    out.push_back("kv.conservation: free " + std::to_string(walked) + " + used " +
                  std::to_string(used) + " != " + std::to_string(num_usable()));
  if (blocks_[kNullBlock].refs != 1 || blocks_[kNullBlock].hashed)
    out.push_back("kv.null_block: the null block was touched");
  return out;
}

}  // namespace mmcore
