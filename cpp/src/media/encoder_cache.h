// Which encoder outputs the runner holds, and which of them may be dropped.
//
// The cache keeps the books only: rows are counted here and stored by the runner under a slot. An
// entry is pinned while a running sequence still has rows of it to put into its KV cache; unpinned
// entries stay, least recently used first to go. Slot numbers are never used twice (invariant:
// encoder.slot), so a late eviction cannot hit a newer entry.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

#include "mmcore/types.h"

namespace mmcore {

/// Identity of an encoder output, compared field by field. An item with an empty content id is
/// private to its request and named by `owner` and `item`; a shared entry has owner 0.
struct EncoderKey {
  RequestId owner = 0;
  int32_t item = 0;
  ContentId id{};
  int64_t rows = 0;
  uint64_t lora_id = 0;
  std::string salt{};
  friend auto operator<=>(const EncoderKey&, const EncoderKey&) = default;
};

/// Read-only copy of one entry, for validators.
struct EncoderEntryState {
  EncoderSlot slot = -1;
  int64_t rows = 0;
  int32_t pins = 0;
  bool ready = false;
  RequestId owner = 0;
};

class EncoderCache {
 public:
  explicit EncoderCache(int64_t capacity_rows) : capacity_rows_(capacity_rows) {}

  /// Slot of the entry, or -1.
  EncoderSlot find(const EncoderKey& key) const;
  bool pinned(EncoderSlot slot) const { return entry(slot).pins > 0; }
  bool ready(EncoderSlot slot) const { return entry(slot).ready; }
  /// Whether it will be there for the next step: it is, or a step that runs encodes it.
  bool expected(EncoderSlot slot) const { return entry(slot).ready || entry(slot).launched; }

  /// Whether `rows` more can be pinned, evicting whatever is not.
  bool can_pin(int64_t rows) const { return pinned_rows_ + rows <= capacity_rows_; }

  /// Pins the entry `key` names, making it if it is absent. Evicts least recently used entries if
  /// room is needed; can_pin must hold for rows that are not pinned yet.
  EncoderSlot pin(const EncoderKey& key);
  /// Takes one pin back. An entry that was never encoded goes with its last pin.
  void unpin(EncoderSlot slot);
  /// Tells that the runner has encoded the entry.
  void mark_ready(EncoderSlot slot) { entry(slot).ready = true; }
  /// Tells that a step that encodes the entry has been launched.
  void mark_launched(EncoderSlot slot) { entry(slot).launched = true; }
  /// Drops the private entries of a request; all of its pins are gone.
  void forget_owner(RequestId owner);
  /// Drops every unpinned entry.
  void clear_unpinned();

  /// Slots that the runner must drop with the next step that commits. A slot may be unknown to it.
  const std::vector<EncoderSlot>& evicted() const { return evicted_; }
  void evictions_done() { evicted_.clear(); }
  /// Likewise, of the first `count`.
  void evictions_done(size_t count) {
    evicted_.erase(evicted_.begin(), evicted_.begin() + static_cast<ptrdiff_t>(count));
  }

  int64_t capacity_rows() const { return capacity_rows_; }
  int64_t rows() const { return rows_; }
  int64_t pinned_rows() const { return pinned_rows_; }
  int64_t size() const { return static_cast<int64_t>(entries_.size()); }
  int64_t num_pinned() const { return size() - static_cast<int64_t>(idle_.size()); }
  std::vector<EncoderEntryState> entries() const;

 private:
  struct Entry {
    EncoderSlot slot = -1;
    int32_t pins = 0;
    bool ready = false;
    bool launched = false;
    uint64_t idle_since = 0;  // key in idle_ while pins == 0
  };
  using Entries = std::map<EncoderKey, Entry>;

  Entries::iterator at(EncoderSlot slot) const;
  Entry& entry(EncoderSlot slot) { return at(slot)->second; }
  const Entry& entry(EncoderSlot slot) const { return at(slot)->second; }
  void erase(Entries::iterator it);

  int64_t capacity_rows_;
  Entries entries_;
  std::unordered_map<EncoderSlot, Entries::iterator> by_slot_;
  std::map<uint64_t, Entries::iterator> idle_;  // unpinned entries, least recently used first
  std::vector<EncoderSlot> evicted_;
  int64_t rows_ = 0;
  int64_t pinned_rows_ = 0;
  EncoderSlot next_slot_ = 0;
  uint64_t clock_ = 0;
};

}  // namespace mmcore
