// KV blocks and encoder entries of sequences: what is free, reserve, keep, give back.
//
// Reservations of a step are recorded until commit() or rollback(). What preemption or eviction
// took away in the same step is not restored by rollback: the runner may have overwritten it.
#pragma once

#include <algorithm>
#include <cstdint>
#include <iterator>
#include <optional>
#include <span>
#include <utility>
#include <vector>

#include "kv/kv_cache.h"
#include "media/encoder_cache.h"
#include "sched/sequence.h"

namespace mmcore {

class Resources {
 public:
  Resources(const KvCacheOptions& kv, int64_t encoder_rows) : kv_(kv), encoder_(encoder_rows) {}

  const KvCache& kv() const { return kv_; }
  const EncoderCache& encoder() const { return encoder_; }

  enum class MediaLimit {
    kNone,      // the whole chunk can run
    kBudget,    // an item must wait for the next step's encoder budget
    kCapacity,  // an item must wait until other entries are unpinned
  };
  struct MediaReach {
    int64_t end = 0;          // the chunk may go this far
    int64_t encode_rows = 0;  // rows to encode for it
    MediaLimit limit = MediaLimit::kNone;
  };
  /// How far the chunk [begin, end) may go given the encoder rows left in the step. Changes
  /// nothing. With `closed`, no item may be pinned that is not yet.
  MediaReach media_reach(const Sequence& sequence, int64_t begin, int64_t end, int64_t rows_left,
                         bool closed) const;
  /// Pins the entries that the embedding rows of [begin, end) come from; media_reach allowed it.
  void pin_media(Sequence& sequence, int64_t begin, int64_t end);

  /// Blocks missing for the first `tokens` tokens.
  int64_t missing_blocks(const Sequence& sequence, int64_t tokens) const {
    return kv_.blocks_for(tokens) - sequence.table.size();
  }
  void grow(Sequence& sequence, int64_t tokens) {
    kv_.grow(sequence.table, kv_.blocks_for(tokens));
  }
  /// Looks up the sequence's longest cached prefix: how many tokens of it, at most `max_tokens`
  /// rounded up to blocks, have known blocks. Remembered for the two calls below.
  int64_t match(Sequence& sequence, int64_t max_tokens);
  /// Whether block i of the last match is one that the step being selected fills. Such a block can
  /// be adopted whole only: copies run before it is filled.
  bool hit_is_ahead(int64_t i) const {
    return i < std::ssize(hits_) && kv_.newer_than(hits_[static_cast<size_t>(i)], insertions_);
  }
  /// How many of the first `tokens` matched tokens come from the host tier.
  int64_t loaded_tokens(int64_t tokens) const {
    const int64_t on_device = std::ssize(hits_) * kv_.block_size();
    return host_hits_.empty() ? 0 : std::max<int64_t>(0, tokens - on_device);
  }
  /// Free blocks that adopting the first `tokens` matched tokens takes.
  int64_t adoption_cost(int64_t tokens) const;
  /// Likewise, from the table of another sequence of the request, which has the first `tokens`
  /// computed, and with that sequence as `sibling` of adopt().
  int64_t match_sibling(const Sequence& sibling, int64_t tokens);
  /// Starts the sequence's table with the first `tokens` matched tokens; a partly used last block
  /// is copied into a fresh one.
  void adopt(Sequence& sequence, int64_t tokens, const Sequence* sibling = nullptr);

  /// Begins a step: blocks that publish_ahead() registers from here on are its own.
  void begin_step() { insertions_ = kv_.index().insertions(); }
  /// Lets later sequences of the step adopt the blocks that fill up by `computed`.
  void publish_ahead(Sequence& sequence, int64_t computed) {
    kv_.publish_ahead(sequence.table, sequence.chain, sequence.tokens, computed);
  }
  void unpublish(Sequence& sequence, int32_t published) {
    kv_.unpublish(sequence.table, published);
  }

  /// What a step reserved, kept apart while it runs and the next one is selected.
  struct Reservations {
    std::vector<std::pair<Sequence*, int32_t>> pins;
    std::vector<BlockCopy> copies;
    KvStep kv;
    size_t evictions = 0;
  };
  /// Takes the step's reservations out; what it encodes counts as there for the steps behind it.
  void launch(Reservations& kept);
  /// Puts them back, for commit_step() or rollback_step(): the oldest step commits first, the
  /// newest one rolls back first.
  void recall(Reservations& kept);

  struct Encoded {
    int64_t encoded = 0;  // items that the step ran through the encoder
    int64_t reused = 0;   // items whose output was there
  };
  /// Ends the step: what it encoded is there, what it evicted is gone. Then commit each sequence.
  Encoded commit_step();
  /// Keeps what the step wrote: `computed` tokens of the sequence are in the cache now. Items whose
  /// rows are all among them are unpinned.
  void commit(Sequence& sequence, int64_t computed);
  /// Takes the step's pins and copies back; then each table is truncated by the caller.
  void rollback_step();
  /// Then, when all that the step adopted is released: what it loaded or saved is nowhere, unless
  /// it never `ran`, and its saves are still to be made.
  void rollback_blocks(bool ran) { kv_.rollback_step(ran); }
  void truncate(Sequence& sequence, int64_t blocks) { kv_.truncate(sequence.table, blocks); }

  /// Frees all that the sequence holds; it has pinned nothing in a step that is still open.
  void release(Sequence& sequence);
  /// Drops encoder entries that only this request could use; it holds nothing any more.
  void forget(RequestId id) { encoder_.forget_owner(id); }
  /// Forgets cached prefixes and unpinned encoder entries; no sequence holds a block.
  void clear_caches();

  const std::vector<BlockCopy>& copies() const { return copies_; }
  /// Encoder slots that the runner must drop, and that no step in flight names.
  std::span<const EncoderSlot> evictions() const {
    return std::span(encoder_.evicted()).subspan(launched_evictions_);
  }

 private:
  EncoderKey key_of(const Sequence& sequence, int32_t item) const;
  void unpin(Sequence& sequence, int32_t item);
  void finish_copies();

  KvCache kv_;
  EncoderCache encoder_;
  std::vector<BlockId> hits_;
  std::vector<BlockId> host_hits_;  // of the same match, behind them
  uint64_t insertions_ = 0;         // of the prefix index when the step began
  // The step's reservations.
  std::vector<std::pair<Sequence*, int32_t>> pins_;
  std::vector<BlockCopy> copies_;
  // Of the encoder's evictions, those named by steps in flight, and by the one that was recalled.
  size_t launched_evictions_ = 0;
  std::optional<size_t> recalled_evictions_;
};

}  // namespace mmcore
