// Writes a selected step into the flat arrays of a StepPlan.
//
// Arrays keep their memory from step to step. Rows of the block table and of the sampling
// parameters keep their content too: a row whose sequence is the same gets what is new, nothing
// else.
#pragma once

#include <cstdint>
#include <vector>

#include "mmcore/model_runner.h"
#include "sched/resources.h"
#include "sched/scheduler.h"

namespace mmcore {

class StepBuilder {
 public:
  /// With `overlapping`, plans outlive the next selection: they point to no tokens that it may
  /// move.
  explicit StepBuilder(int32_t block_size, bool overlapping = false)
      : block_size_(block_size), overlapping_(overlapping) {}

  /// Fills `plan`, always the same object, from the entries and what was reserved for them.
  void build(uint64_t step, std::vector<ScheduledEntry>& entries, const Resources& resources,
             StepPlan& plan);

 private:
  struct TableRow {  // what a row of plan.block_tables holds
    uint64_t version = 0;
    int32_t filled = 0;
  };

  void build_tokens(const ScheduledEntry& entry, size_t row, StepPlan& plan) const;
  void build_sampling(Sequence& sequence, StepPlan& plan);
  void build_tables(const std::vector<ScheduledEntry>& entries, StepPlan& plan);
  static void build_prompt_logprobs(ScheduledEntry& entry, int32_t first_row, StepPlan& plan);
  static void build_media(const ScheduledEntry& entry, int32_t first_row,
                          const Resources& resources, StepPlan& plan);

  int32_t block_size_;
  bool overlapping_;
  std::vector<TableRow> table_rows_;
  std::vector<RequestId> sampling_owners_;  // of the rows of plan.sampling
};

}  // namespace mmcore
