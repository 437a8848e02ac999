// The way of a step's arrays to where the model computes: written side by side, then, for a GPU,
// one copy from pinned memory to a buffer that stays where it is, so that graphs may read from it.
//
//   token ids | positions | slots | query start | lengths | sample rows | sampling | attention
//   plans | media | prompt rows | feature rows | block copies | block tables
//
// For a given number of rows and sequences all but the second line have fixed places.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "mmcore/gpu.h"
#include "mmcore/model_runner.h"
#include "mmcore/ops.h"
#include "mmcore/status.h"
#include "native/model_config.h"
#include "native/owned_tensor.h"
#include "native/place.h"

namespace mmcore::native {

/// Rows of the encoder store in a step, besides the plan.
struct StepMedia {
  std::vector<int64_t> sources;  // [T] the row that overwrites a token's embedding, or -1
  std::vector<int64_t>
      feature_rows;  // for each row that the encoder gives, where it is kept, or -1
};

/// A step's arrays where the model reads them. Absent where there is nothing.
struct StepTensors {
  TensorView token_ids;     // int32 [T]
  TensorView positions;     // int64 [T]
  TensorView slots;         // int64 [T]
  TensorView query_start;   // int32 [N + 1]
  TensorView seq_lens;      // int32 [N]
  TensorView block_tables;  // int32 [N, W]
  TensorView sample_rows;   // int32 [S]
  TensorView sources;       // int64 [T]
  TensorView feature_rows;  // int64
  TensorView prompt_rows;   // int32
  TensorView block_copies;  // int64 [n, 2]
  // What sample_tensors takes, for all S rows.
  TensorView temperature, top_p, min_p, top_k, seed, counter;
  std::vector<TensorView> plans;  // of attention, one a window; on a GPU
  int64_t max_query_len = 0;
};

struct StepLimits {
  int64_t tokens = 0;
  int64_t sequences = 0;
  int64_t blocks = 0;  // of a sequence
};

class StepArrays {
 public:
  /// `windows`: of the model's layers, each once.
  StepArrays(const Place& place, const TextConfig& text, std::vector<int32_t> windows,
             const StepLimits& limits);

  /// Brings a plan's arrays, and `media`, to where the model computes; valid until the next call.
  Status read(const StepPlan& plan, const StepMedia& media, StepTensors& step);
  /// Likewise, for a plan in which every sequence has one row and is sampled, as a batch of `rows`
  /// rows with all tensors at fixed places. Rows beyond the plan's belong to no sequence and are
  /// written to no slot.
  Status read_decode(const StepPlan& plan, int64_t rows, StepTensors& step);

  /// Changes when tensors at fixed places have moved.
  const void* base() const { return target_.view().data; }
  /// What the attention of any step in the limits is divided by and writes partial results to.
  int64_t attention_workspace_bytes() const;
  /// False where no kernel of a GPU computes this model's attention.
  bool attention_supported() const;

 private:
  struct Region {
    int64_t at = 0;
    int64_t count = 0;
  };
  struct Places;
  struct Counts;
  Places arrange(const Counts& counts) const;
  ops::AttentionPlanShape shape(size_t window, const Counts& counts) const;
  Status fill(const StepPlan& plan, const StepMedia& media, const Counts& counts,
              const Places& places, StepTensors& step);
  Status plan_attention(const StepPlan& plan, const Counts& counts, const Places& places,
                        StepTensors& step);
  void reserve(int64_t bytes);
  template <class T>
  T* write_at(const Region& region) const;
  template <class T>
  TensorView view(const Region& region, DType dtype) const;

  Place place_;
  TextConfig text_;
  std::vector<int32_t> windows_;
  int64_t table_width_ = 0;
  int32_t multiprocessors_ = 0;
  OwnedTensor target_;
  gpu::Memory pinned_;
  gpu::Event sent_;
  OwnedTensor decode_tables_;  // int32 [most sequences, table width], for read_decode()
};

}  // namespace mmcore::native
