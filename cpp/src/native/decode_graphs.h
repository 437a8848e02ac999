// Steps in which every sequence has one row, from CUDA graphs.
//
// Launching a decoder's kernels one by one may take the host longer than a GPU needs for a small
// batch. A graph launches them at once, but for a fixed number of rows: there is one for each of a
// few batch sizes, and a smaller batch leaves rows over that belong to no sequence.
#pragma once

#include <cstdint>
#include <functional>
#include <map>

#include "mmcore/gpu.h"
#include "mmcore/model_runner.h"
#include "mmcore/status.h"
#include "native/place.h"

namespace mmcore::native {

class DecodeGraphs {
 public:
  DecodeGraphs(const Place& place, int64_t max_sequences)
      : place_(place), max_sequences_(max_sequences) {}

  /// The rows to run a plan with, or 0 where it is no step for a graph.
  int64_t rows_for(const StepPlan& plan) const;

  /// Runs `work`, which puts a step of `rows` rows into the stream: the first time as it is, so
  /// that whatever is done once is done, then from a graph. `base` says where its tensors are: when
  /// they have moved, all graphs are made anew.
  Status run(int64_t rows, const void* base, const std::function<Status()>& work);

 private:
  struct Entry {
    bool usable = true;
    bool captured = false;
    gpu::Graph graph;
  };
  Place place_;
  int64_t max_sequences_;
  const void* base_ = nullptr;
  std::map<int64_t, Entry> entries_;
};

}  // namespace mmcore::native
