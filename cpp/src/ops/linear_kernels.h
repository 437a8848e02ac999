// What the driver of a linear layer (linear.cpp) needs of one instruction set and dtype.
//
// Many tokens ("blocks"): tokens are the lanes. x is packed once for everybody into panels of up to
// two vectors of tokens, [k][tokens]; a register tile is a group of weight rows times a panel, and
// each weight is broadcast from where it lies, so weights need no transposition:
//
//   panel [k][2 x lanes]          tile [group][2 x lanes] += weight[row][k] * panel[k][...]
//
// Few tokens ("rows"): k is the lanes. The weights stream through once, each vector of them meets
// every token, and the lanes are added up at the end.
//
// Packed data are 32-bit units: a float32, or two neighbours along k where the machine multiplies
// pairs of bfloat16. Every element of the result adds its products in an order that depends on k
// alone.
#pragma once

#include <cstdint>

#include "ops/linear.h"
#include "tensor/half.h"

namespace mmcore::ops {

struct LinearKernels {
  int64_t panel_tokens;  // tokens of a full panel
  int64_t strip;         // weight rows come in multiples of it where that is possible
  int64_t row_tokens;    // up to so many tokens go by rows; 0: none

  /// Units of k in packed data.
  int64_t (*units)(int64_t k);
  /// Packs `count` <= panel_tokens tokens from `first` on: units x panel_tokens floats.
  void (*pack_panel)(const LinearProblem& p, int64_t first, int64_t count, float* panel);
  /// Weight rows [begin, end) times `count` packed tokens from `first` on.
  void (*block)(const LinearProblem& p, const float* panels, int64_t first, int64_t count,
                int64_t begin, int64_t end, float* scratch);
  /// Floats of scratch that block() needs for so many weight rows and tokens.
  int64_t (*block_scratch)(int64_t rows, int64_t tokens);

  /// Packs all tokens by rows: tokens x row_units(k) floats.
  int64_t (*row_units)(int64_t k);
  void (*pack_rows)(const LinearProblem& p, float* packed);
  /// Weight rows [begin, end) times all tokens.
  void (*rows)(const LinearProblem& p, const float* packed, int64_t begin, int64_t end);
};

namespace avx2 {
template <class T>
const LinearKernels& linear_kernels();
}  // namespace avx2
namespace avx512 {
template <class T>
const LinearKernels& linear_kernels();
}  // namespace avx512
namespace avx512bf16 {
const LinearKernels& linear_kernels();  // of bf16
}  // namespace avx512bf16
namespace amxbf16 {
const LinearKernels& linear_kernels();  // of bf16
}  // namespace amxbf16

}  // namespace mmcore::ops
