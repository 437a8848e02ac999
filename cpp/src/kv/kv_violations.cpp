// KvCache::violations: the invariants that tie pool, index and tables together.
#include <algorithm>
#include <string>
#include <unordered_map>

#include "kv/kv_cache.h"

namespace mmcore {
namespace {

std::string at(const KvCache::TableView& view, int64_t i) {
  return "request " + std::to_string(view.owner) + " entry " + std::to_string(i);
}

// Published entries recompute to the stored key, and their nodes form a chain.
void check_published(const KvCache& cache, const KvCache::TableView& view,
                     std::vector<std::string>& out) {
  KeyChain chain = *view.chain;
  NodeId parent = kRootNode;
  for (int64_t i = 0; i < view.table->published(); ++i) {
    const BlockId block = (*view.table)[i];
    if (!cache.index().contains(block)) {
      out.push_back("kv.published: " + at(view, i) + " is not in the prefix index");
      return;
    }
    const BlockKey key = chain.key(cache.hasher(), i, view.tokens, parent);
    if (cache.index().find(key) != block)
      out.push_back("kv.exact: " + at(view, i) + " does not hold what its key says");
    parent = cache.index().node(block);
  }
  if (parent != view.table->node())
    out.push_back("kv.chain: " + at(view, view.table->published()) + " has the wrong parent node");
}

// A content that both tiers hold has one node, and a node one content.
void check_tiers(const KvCache& cache, std::vector<std::string>& out) {
  const PrefixIndex& host = cache.host().index();
  std::unordered_map<NodeId, BlockId> by_node;
  for (BlockId b = 1; b < cache.pool().num_blocks(); ++b)
    if (cache.index().contains(b)) by_node.emplace(cache.index().node(b), b);
  for (BlockId h = 1; h < cache.host().pool().num_blocks(); ++h) {
    if (!host.contains(h)) continue;
    const auto twin = by_node.find(host.node(h));
    const BlockId same_node = twin == by_node.end() ? kNullBlock : twin->second;
    if (cache.index().find(host.key(h)) != same_node)
      out.push_back("kv.host_node: host block " + std::to_string(h - 1) +
                    " and the device disagree about node " + std::to_string(host.node(h)));
  }
}

}  // namespace

std::vector<std::string> KvCache::violations(std::span<const TableView> tables,
                                             std::span<const BlockCopy> copies,
                                             std::span<const HostCopy> transfers) const {
  std::vector<std::string> out = pool_.violations();
  std::vector<std::string> more = index_.violations();
  out.insert(out.end(), more.begin(), more.end());
  if (host_.enabled()) {
    more = host_.violations(transfers);
    out.insert(out.end(), more.begin(), more.end());
    check_tiers(*this, out);
  }

  std::vector<int32_t> read(static_cast<size_t>(pool_.num_blocks()));  // by pending copies
  for (const BlockCopy& copy : copies) ++read[static_cast<size_t>(copy.src)];
  std::vector<int32_t> refs = read;
  std::unordered_map<BlockId, const KeyChain*> user;
  for (const TableView& view : tables) {
    const BlockTable& table = *view.table;
    if (table.size() != blocks_for(view.computed))
      out.push_back("kv.table: " + at(view, table.size()) + " ends the table, but " +
                    std::to_string(view.computed) + " tokens are computed");
    bool in_range = true;
    for (int64_t i = 0; i < table.size(); ++i) {
      const BlockId block = table[i];
      if (block <= kNullBlock || block >= pool_.num_blocks()) {
        out.push_back("kv.table: " + at(view, i) + " is block " + std::to_string(block));
        in_range = false;
        continue;
      }
      ++refs[static_cast<size_t>(block)];
      const auto [it, first] = user.emplace(block, view.chain);
      if (!first && (it->second->salt() != view.chain->salt() ||
                     it->second->lora_id() != view.chain->lora_id()))
        out.push_back("kv.salt: " + at(view, i) + " is shared across salts or adapters");
    }
    if (!in_range) continue;
    const int64_t written = view.computed / block_size();
    const BlockId open = written < table.size() ? table[written] : kNullBlock;
    // A copy that a step in flight reads it for runs before whatever writes it next.
    if (open != kNullBlock &&
        (pool_.refs(open) - read[static_cast<size_t>(open)] != 1 || pool_.hashed(open)))
      out.push_back("kv.write: " + at(view, written) + " will be written but is shared or cached");
    check_published(*this, view, out);
  }
  for (BlockId b = 1; b < pool_.num_blocks(); ++b) {
    if (refs[static_cast<size_t>(b)] != pool_.refs(b))
      out.push_back("kv.refcount: block " + std::to_string(b) + " has " +
                    std::to_string(pool_.refs(b)) + " references, tables name it " +
                    std::to_string(refs[static_cast<size_t>(b)]) + " times");
    const bool indexed = options_.prefix_caching && index_.contains(b);
    if (pool_.hashed(b) != indexed)
      out.push_back("kv.index: block " + std::to_string(b) + " and the index disagree");
  }
  return out;
}

}  // namespace mmcore
