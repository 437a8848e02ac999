#include "media/encoder_cache.h"

#include "base/check.h"

namespace mmcore {

EncoderSlot EncoderCache::find(const EncoderKey& key) const {
  const auto it = entries_.find(key);
  return it == entries_.end() ? -1 : it->second.slot;
}

EncoderSlot EncoderCache::pin(const EncoderKey& key) {
  auto it = entries_.find(key);
  if (it == entries_.end()) {
    check(can_pin(key.rows), "encoder cache: pinned rows exceed the capacity");
    while (rows_ + key.rows > capacity_rows_) erase(idle_.begin()->second);
    it = entries_.emplace(key, Entry{.slot = next_slot_++}).first;
    by_slot_.emplace(it->second.slot, it);
    rows_ += key.rows;
    pinned_rows_ += key.rows;
  } else if (it->second.pins == 0) {
    idle_.erase(it->second.idle_since);
    pinned_rows_ += key.rows;
  }
  ++it->second.pins;
  return it->second.slot;
}

EncoderCache::Entries::iterator EncoderCache::at(EncoderSlot slot) const {
  const auto it = by_slot_.find(slot);
  check(it != by_slot_.end(), "encoder cache: a slot in use was evicted (encoder.pin)");
  return it->second;
}

void EncoderCache::unpin(EncoderSlot slot) {
  const auto it = at(slot);
  Entry& entry = it->second;
  check(entry.pins > 0, "encoder cache: unpin of an entry without pins");
  if (--entry.pins > 0) return;
  pinned_rows_ -= it->first.rows;
  entry.idle_since = ++clock_;
  idle_.emplace(entry.idle_since, it);
  if (!entry.ready) erase(it);
}

void EncoderCache::forget_owner(RequestId owner) {
  auto it = entries_.lower_bound(EncoderKey{.owner = owner});
  while (it != entries_.end() && it->first.owner == owner) {
    check_eq(it->second.pins, 0, "encoder cache: a private entry outlives its request");
    erase(it++);
  }
}

void EncoderCache::clear_unpinned() {
  while (!idle_.empty()) erase(idle_.begin()->second);
}

void EncoderCache::erase(Entries::iterator it) {
  rows_ -= it->first.rows;
  evicted_.push_back(it->second.slot);
  idle_.erase(it->second.idle_since);
  by_slot_.erase(it->second.slot);
  entries_.erase(it);
}

std::vector<EncoderEntryState> EncoderCache::entries() const {
  std::vector<EncoderEntryState> states;
  for (const auto& [key, entry] : entries_)
    states.push_back({entry.slot, key.rows, entry.pins, entry.ready, key.owner});
  return states;
}

}  // namespace mmcore
