// One linear layer after the checks: what `linear` and `vision_projector` run.
#pragma once

#include <cstdint>
#include <vector>

#include "mmcore/ops.h"
#include "mmcore/status.h"
#include "mmcore/types.h"

namespace mmcore::ops {

/// out[out_rows[i]] = act(x[x_rows[i]] w^T + bias) for i < tokens. Strides count elements.
struct LinearProblem {
  DType dtype;
  const void* x;
  int64_t x_stride;
  const int64_t* x_rows;  // or null: row i
  const void* w;          // [n, k]
  int64_t w_stride;
  const void* bias;  // [n] or null
  void* out;
  int64_t out_stride;
  const int64_t* out_rows;  // or null: row i
  int64_t tokens;
  int64_t n;
  int64_t k;
  Activation act;
};

/// Runs on the pool. A row's bits depend on its own values, on the instruction set, and on which of
/// two regimes the number of tokens falls into; never on the number of threads.
void run_linear(const LinearProblem& p);

/// The rows of a scatter that are kept: i-th kept row comes from x row from[i] and goes to to[i].
struct KeptRows {
  std::vector<int64_t> from;
  std::vector<int64_t> to;
};

/// Reads an index tensor int64 [tokens]; entries outside [0, limit) that are not negative are
/// kInvalidArgument, named as `op`: `name`[i].
Status kept_rows(const char* op, const char* name, const TensorView& rows, int64_t limit,
                 KeptRows& kept);

namespace reference {
/// Columns [begin, end) of n.
template <class T>
void linear(const LinearProblem& p, int64_t begin, int64_t end);
}  // namespace reference

}  // namespace mmcore::ops
