// How a batch of attention is cut into items.
//
// What is cut where depends on the shapes of each sequence alone, neither on threads nor on the
// rest of the batch: results are the same bits with any number of threads and any neighbours.
#pragma once

#include <cstdint>
#include <vector>

#include "ops/attention/kernel.h"

namespace mmcore::ops {

class AttentionPlan {
 public:
  struct Merge {
    size_t item;  // the first of `count` that follow each other
    int32_t count;
  };

  /// Plans sequences from `first` on, as many as fit the bound on partial results (at least one),
  /// and returns the first that is left. O(items).
  int32_t fill(const AttentionProblem& problem, int32_t first);

  /// Groups the items, in order, into at most `parts` tasks of about equal cost, fewer if there is
  /// little to do: task t is items [task_starts()[t], task_starts()[t + 1]).
  void make_tasks(int64_t parts);

  const std::vector<AttentionItem>& items() const { return items_; }
  const std::vector<Merge>& merges() const { return merges_; }
  const std::vector<size_t>& task_starts() const { return task_starts_; }
  int64_t partial_floats() const { return partial_floats_; }

 private:
  void add_direct(const AttentionProblem& problem, int32_t n);
  void add_tiles(const AttentionProblem& problem, int32_t n);
  void add_split(const AttentionProblem& problem, AttentionItem item, int64_t whole_items);
  void add(const AttentionProblem& problem, const AttentionItem& item);

  std::vector<AttentionItem> items_;
  std::vector<int64_t> cost_;  // up to and including each item, in multiply-adds
  std::vector<Merge> merges_;
  std::vector<size_t> task_starts_;
  int64_t partial_floats_ = 0;
};

}  // namespace mmcore::ops
