#include "kv/host_tier.h"

#include <algorithm>
#include <string>

#include "base/check.h"

namespace mmcore {

void HostTier::save(BlockId block, const BlockKey& key, NodeId node) {
  if (!enabled()) return;
  if (const BlockId known = index_.find(key); known != kNullBlock) {
    check_eq(index_.node(known), node, "host tier: one content has two nodes");
    pool_.ref(known);
    pool_.unref(known);  // now the most recently used
    return;
  }
  if (pool_.peek() == kNullBlock) drop_oldest_save();
  const BlockId host = pool_.peek();
  if (host == kNullBlock) return;
  if (pool_.hashed(host)) {
    forget(host);
    ++evictions_;
  }
  pool_.allocate();
  index_.insert(host, key, kNullBlock, node);
  pool_.set_hashed(host, true);
  step_.saves.push_back({block, host - 1});
}

// Beginnings of prefixes are evicted last and are worth most: in a tier that is smaller than what a
// step evicts, they take the place of the ends.
void HostTier::drop_oldest_save() {
  const auto only_saved = [&](const HostCopy& c) { return pool_.refs(c.host_block + 1) == 1; };
  const auto oldest = std::ranges::find_if(step_.saves, only_saved);
  if (oldest == step_.saves.end()) return;
  const BlockId host = oldest->host_block + 1;
  step_.saves.erase(oldest);
  forget(host);
  pool_.unref(host);
  ++evictions_;
}

void HostTier::forget(BlockId host) {
  index_.erase(host);
  pool_.set_hashed(host, false);
}

// The deepest first, so that a prefix loses its end before its beginning.
void HostTier::unpin_loads() {
  for (auto it = step_.loads.rbegin(); it != step_.loads.rend(); ++it)
    pool_.unref(it->host_block + 1);
  step_.loads.clear();
}

void HostTier::recall(HostTransfers& kept) {
  unmade_saves_.swap(step_.saves);
  std::swap(step_, kept);
}

void HostTier::commit() {
  for (const HostCopy& copy : step_.saves) pool_.unref(copy.host_block + 1);
  step_.saves.clear();
  unpin_loads();
  step_.saves.swap(unmade_saves_);
}

void HostTier::rollback(bool ran) {
  unpin_loads();
  if (!ran) return;
  for (const HostCopy& copy : step_.saves) {
    forget(copy.host_block + 1);
    pool_.unref(copy.host_block + 1);
  }
  step_.saves.clear();
  step_.saves.swap(unmade_saves_);
}

void HostTier::clear() {
  check(step_.loads.empty(), "host tier: clear while a load is planned");
  rollback(/*ran=*/true);
  for (BlockId host = 1; host < pool_.num_blocks(); ++host)
    if (index_.contains(host)) forget(host);
}

std::vector<std::string> HostTier::violations(std::span<const HostCopy> launched) const {
  std::vector<std::string> out;
  for (const auto& lines : {pool_.violations(), index_.violations(false)})
    for (const std::string& line : lines) out.push_back("kv.host: in the host tier, " + line);
  std::vector<int32_t> pins(static_cast<size_t>(pool_.num_blocks()));
  for (const auto transfers :
       {std::span<const HostCopy>(step_.saves), std::span<const HostCopy>(step_.loads), launched})
    for (const HostCopy& copy : transfers) ++pins[static_cast<size_t>(copy.host_block) + 1];
  for (BlockId host = 1; host < pool_.num_blocks(); ++host) {
    const std::string name = "host block " + std::to_string(host - 1);
    if (pool_.refs(host) != pins[static_cast<size_t>(host)])
      out.push_back("kv.host_pin: " + name + " has " + std::to_string(pool_.refs(host)) +
                    " pins, transfers name it " + std::to_string(pins[static_cast<size_t>(host)]) +
                    " times");
    if (pool_.hashed(host) != index_.contains(host))
      out.push_back("kv.host: " + name + " and the index disagree");
    if (pool_.refs(host) > 0 && !index_.contains(host))
      out.push_back("kv.host: " + name + " is pinned and holds nothing");
  }
  return out;
}

}  // namespace mmcore
