#include "sched/resources.h"

#include <algorithm>

namespace mmcore {

EncoderKey Resources::key_of(const Sequence& sequence, int32_t item) const {
  const SpanMap& spans = sequence.spans();
  EncoderKey key{.id = spans.item(item).id,
                 .rows = spans.rows(item),
                 .lora_id = sequence.chain.lora_id(),
                 .salt = sequence.chain.salt()};
  if (key.id.empty()) {
    key.owner = sequence.request();
    key.item = item;
  }
  return key;
}

Resources::MediaReach Resources::media_reach(const Sequence& sequence, int64_t begin, int64_t end,
                                             int64_t rows_left, bool closed) const {
  const SpanMap& spans = sequence.spans();
  MediaReach reach{.end = end};
  int64_t pin_rows = 0;
  const ItemRange items = spans.overlapping(begin, end);
  for (int32_t i = items.first; i < items.last; ++i) {
    const bool text_only = spans.rows_before(i, begin) == spans.rows_before(i, end);
    if (text_only || sequence.slots[static_cast<size_t>(i)] >= 0) continue;
    const int64_t rows = spans.rows(i);
    const EncoderSlot slot = encoder_.find(key_of(sequence, i));
    const int64_t to_encode = slot < 0 ? rows : 0;
    const int64_t to_pin = slot < 0 || !encoder_.pinned(slot) ? rows : 0;
    if (closed || !encoder_.can_pin(pin_rows + to_pin))
      reach.limit = MediaLimit::kCapacity;
    else if (reach.encode_rows + to_encode > rows_left)
      reach.limit = MediaLimit::kBudget;
    if (reach.limit != MediaLimit::kNone) {
      reach.end = std::max(begin, spans.begin_of(i));
      return reach;
    }
    reach.encode_rows += to_encode;
    pin_rows += to_pin;
  }
  return reach;
}

void Resources::pin_media(Sequence& sequence, int64_t begin, int64_t end) {
  const SpanMap& spans = sequence.spans();
  const ItemRange items = spans.overlapping(begin, end);
  // Entries that exist are pinned before any is made: making one may evict what is unpinned.
  for (const bool make : {false, true}) {
    for (int32_t i = items.first; i < items.last; ++i) {
      EncoderSlot& slot = sequence.slots[static_cast<size_t>(i)];
      if (slot >= 0 || spans.rows_before(i, begin) == spans.rows_before(i, end)) continue;
      const EncoderKey key = key_of(sequence, i);
      const EncoderSlot found = encoder_.find(key);
      if (found < 0 && !make) continue;
      slot = encoder_.pin(key);
      pins_.emplace_back(&sequence, i);
    }
  }
}

void Resources::unpin(Sequence& sequence, int32_t item) {
  EncoderSlot& slot = sequence.slots[static_cast<size_t>(item)];
  if (slot < 0) return;
  encoder_.unpin(slot);
  slot = -1;
}

int64_t Resources::match(Sequence& sequence, int64_t max_tokens) {
  const int64_t max_blocks = kv_.blocks_for(max_tokens);
  kv_.match(sequence.chain, sequence.tokens, max_blocks, hits_);
  kv_.match_host(sequence.chain, sequence.tokens, max_blocks, hits_, host_hits_);
  const int64_t whole = (std::ssize(hits_) + std::ssize(host_hits_)) * kv_.block_size();
  if (whole >= max_tokens || !host_hits_.empty()) return whole;
  const auto partial = kv_.match_partial(sequence.chain, sequence.tokens, hits_);
  if (partial.tokens > 0) hits_.push_back(partial.block);
  return whole + partial.tokens;
}

int64_t Resources::adoption_cost(int64_t tokens) const {
  const int64_t touched = kv_.blocks_for(tokens);
  const int64_t on_device = std::min(touched, std::ssize(hits_));
  int64_t cost = touched - on_device;                         // are loaded into fresh blocks
  if (cost == 0 && tokens % kv_.block_size() != 0) cost = 1;  // the copy of the last block
  for (const BlockId block : std::span(hits_).first(static_cast<size_t>(on_device)))
    cost += kv_.pool().refs(block) == 0;
  return cost;
}

int64_t Resources::match_sibling(const Sequence& sibling, int64_t tokens) {
  const std::span<const BlockId> blocks = sibling.table.blocks();
  hits_.assign(blocks.begin(), blocks.begin() + kv_.blocks_for(tokens));
  host_hits_.clear();
  return tokens;
}

void Resources::adopt(Sequence& sequence, int64_t tokens, const Sequence* sibling) {
  const bool partly = tokens % kv_.block_size() != 0;
  const auto on_device = static_cast<int64_t>(hits_.size());
  const int64_t loaded = std::max<int64_t>(0, kv_.blocks_for(tokens) - on_device);
  const auto whole = static_cast<size_t>(std::min(tokens / kv_.block_size(), on_device));
  if (sibling != nullptr)
    kv_.share(sibling->table, sequence.table, static_cast<int64_t>(whole));
  else
    kv_.adopt(sequence.table, std::span(hits_).first(whole));
  if (loaded > 0)
    kv_.append_loaded(sequence.table, std::span(host_hits_).first(static_cast<size_t>(loaded)),
                      partly);
  else if (partly)
    copies_.push_back(kv_.append_copy(sequence.table, hits_[whole]));
}

void Resources::commit(Sequence& sequence, int64_t computed) {
  sequence.computed = std::max(sequence.computed, static_cast<int32_t>(computed));
  if (kv_.full_blocks(computed) > sequence.table.published())
    kv_.publish(sequence.table, sequence.chain, sequence.tokens, computed);
  while (sequence.first_live_item < sequence.num_items &&
         sequence.spans().end_of(sequence.first_live_item) <= computed)
    unpin(sequence, sequence.first_live_item++);
}

void Resources::finish_copies() {
  for (const BlockCopy& copy : copies_) kv_.finish_copy(copy);
  copies_.clear();
}

void Resources::launch(Reservations& kept) {
  for (const auto& [sequence, item] : pins_)
    encoder_.mark_launched(sequence->slots[static_cast<size_t>(item)]);
  pins_.swap(kept.pins);
  copies_.swap(kept.copies);
  kv_.launch(kept.kv);
  kept.evictions = encoder_.evicted().size() - launched_evictions_;
  launched_evictions_ += kept.evictions;
}

void Resources::recall(Reservations& kept) {
  pins_.swap(kept.pins);
  copies_.swap(kept.copies);
  kv_.recall(kept.kv);
  recalled_evictions_ = kept.evictions;
}

Resources::Encoded Resources::commit_step() {
  Encoded count;
  for (const auto& [sequence, item] : pins_) {
    const EncoderSlot slot = sequence->slots[static_cast<size_t>(item)];
    ++(encoder_.ready(slot) ? count.reused : count.encoded);
    encoder_.mark_ready(slot);
  }
  pins_.clear();
  finish_copies();
  kv_.commit_step();
  if (recalled_evictions_) {
    encoder_.evictions_done(*recalled_evictions_);
    launched_evictions_ -= *recalled_evictions_;
    recalled_evictions_.reset();
  } else {
    encoder_.evictions_done();
  }
  return count;
}

void Resources::rollback_step() {
  for (const auto& [sequence, item] : pins_) unpin(*sequence, item);
  pins_.clear();
  finish_copies();
  launched_evictions_ -= recalled_evictions_.value_or(0);
  recalled_evictions_.reset();
}

void Resources::release(Sequence& sequence) {
  for (int32_t i = 0; i < sequence.num_items; ++i) unpin(sequence, i);
  kv_.release(sequence.table);
  sequence.computed = 0;
  sequence.first_live_item = 0;
}

void Resources::clear_caches() {
  kv_.clear();
  encoder_.clear_unpinned();
}

}  // namespace mmcore
