// Scheduler: blocks set aside for sequences that must not be preempted any more, and who enters.
#include <algorithm>

#include "sched/admission.h"
#include "sched/scheduler.h"

namespace mmcore {

int64_t Scheduler::life_blocks(const Sequence& sequence) const {
  const int64_t tokens = int64_t{sequence.prompt_len} + sequence.max_tokens;
  return resources_.kv().blocks_for(std::min(tokens, length_limit(config_)));
}

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
