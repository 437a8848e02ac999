// Scheduler: blocks set aside for sequences that must not be preempted any more, and who enters.
#include <algorithm>

#include "sched/scheduler.h"

namespace mmcore {

// Free blocks that the sequence may take.
int64_t Scheduler::available_blocks(const Sequence& sequence) const {
  const int64_t open = resources_.kv().pool().num_free() - reserved_blocks_;
  return sequence.reserved ? open + life_blocks(sequence) - sequence.table.size() : open;
}

void Scheduler::reserve_life(Sequence& sequence) {
  sequence.reserved = true;
  reserved_blocks_ += life_blocks(sequence) - sequence.table.size();
}

void Scheduler::drop_reservation(Sequence& sequence) {
  if (!sequence.reserved) return;
  sequence.reserved = false;
  reserved_blocks_ -= life_blocks(sequence) - sequence.table.size();
}

void Scheduler::grow(Sequence& sequence, int64_t tokens) {
  const int32_t before = sequence.table.size();
  resources_.grow(sequence, tokens);
  if (sequence.reserved) reserved_blocks_ -= sequence.table.size() - before;
}

// A sequence is admitted when its tokens fit, or its whole life if it may not be preempted, beside
// what those that run are expected to need (docs: sched.headroom).
bool Scheduler::admission_fits(const Sequence& sequence, int64_t hit) {
  if (!headroom_.made()) headroom_.make(running_);
  const int64_t need =
      headroom_.blocks_to_enter(sequence, borrowed_blocks(hit), must_reserve(sequence));
  return need <= resources_.kv().pool().num_free() - reserved_blocks_;
}

// Of the last match's blocks, those that need no free one.
int64_t Scheduler::borrowed_blocks(int64_t hit) const {
  return resources_.kv().blocks_for(hit) - resources_.adoption_cost(hit);
}

// The queue's head, or the one that the policy picks out of the first ones of its rank.
Sequence* Scheduler::next_to_enter() {
  Sequence* head = waiting_.head();
  if (!may_pass()) return head;
  window_candidates_.clear();
  for (const auto& [order, sequence] : waiting_) {
    if (order.rank != head->order.rank ||
        static_cast<int32_t>(window_candidates_.size()) == window_)
      break;
    const int64_t cached =
        std::min(resources_.match(*sequence, sequence->size() - 1), int64_t{sequence->size()} - 1);
    window_candidates_.push_back({.request = order.id,
                                  .num_tokens = sequence->size(),
                                  .num_cached_tokens = static_cast<int32_t>(cached),
                                  .times_passed = sequence->times_passed});
    if (sequence->times_passed >= QueuePolicy::kMaxPassed) break;  // nobody behind it may enter
  }
  if (window_candidates_.size() < 2) return head;
  const size_t chosen = policy_->choose(window_candidates_);
  if (chosen >= window_candidates_.size()) return head;
  return std::next(waiting_.begin(), static_cast<ptrdiff_t>(chosen))->second;
}

void Scheduler::note_passed(const Sequence& entered) {
  for (const auto& [order, sequence] : waiting_) {
    if (entered.order < order) return;
    ++sequence->times_passed;
  }
}

}  // namespace mmcore
