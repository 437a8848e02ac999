// Requests that do not run, by (rank, arrival). A preempted one returns to its old place.
#pragma once

#include <cstdint>
#include <map>

#include "sched/sequence.h"

namespace mmcore {

class WaitingQueue {
 public:
  bool empty() const { return sequences_.empty(); }
  int64_t size() const { return static_cast<int64_t>(sequences_.size()); }
  /// The one to run next; overtaken only as the policy may (invariant: sched.fcfs).
  Sequence* head() const { return sequences_.begin()->second; }
  /// Tokens of all that wait; a sequence's tokens do not change while it waits.
  int64_t tokens() const { return tokens_; }
  void insert(Sequence* sequence) {
    sequences_.emplace(sequence->order, sequence);
    tokens_ += sequence->size();
  }
  void erase(Sequence* sequence) {
    sequences_.erase(sequence->order);
    tokens_ -= sequence->size();
  }

  auto begin() const { return sequences_.begin(); }
  auto end() const { return sequences_.end(); }

 private:
  std::map<QueueOrder, Sequence*> sequences_;
  int64_t tokens_ = 0;
};

}  // namespace mmcore
