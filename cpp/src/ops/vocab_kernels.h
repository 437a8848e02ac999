// Passes over one row of logits, one function per instruction set: all that sampling does once per
// vocabulary entry.
#pragma once

#include <cstdint>

#include "ops/isa_table.h"

namespace mmcore::ops {

/// Entries that share one maximum and one sum; a row has vocab_blocks(n) of them.
inline constexpr int64_t kVocabBlock = 64;
constexpr int64_t vocab_blocks(int64_t n) { return (n + kVocabBlock - 1) / kVocabBlock; }

/// Copies a row as float32 and takes every block's maximum. False when it holds a NaN. `row` may be
/// `logits` itself.
template <class T>
using LoadRow = bool (*)(const T* logits, int64_t n, float* row, float* block_max);

struct VocabKernels {
  /// weights[i] = e^((row[i] - max) / temperature), exactly 1 where row[i] == max, which may be
  /// infinite; block_sum in float64. `weights` may be null.
  void (*weigh)(const float* row, int64_t n, float max, float inverse_temperature, float* weights,
                double* block_sum);
  /// Writes the indices of entries >= threshold, ascending; returns how many. `ids` holds
  /// n + kVocabBlock: what lies behind the indices may be overwritten.
  int64_t (*select)(const float* row, int64_t n, float threshold, int32_t* ids);
  /// Sum of the entries >= threshold, which is positive, in float64.
  double (*sum_from)(const float* weights, int64_t n, float threshold);
  /// How many entries are above `value`, or equal to it if `or_equal`.
  int64_t (*count_above)(const float* row, int64_t n, float value, bool or_equal);
};

namespace reference {
template <class T>
bool load_row(const T* logits, int64_t n, float* row, float* block_max);
extern const VocabKernels vocab_kernels;
}  // namespace reference

namespace avx2 {
template <class T>
bool load_row(const T* logits, int64_t n, float* row, float* block_max);
extern const VocabKernels vocab_kernels;
}  // namespace avx2

namespace avx512 {
template <class T>
bool load_row(const T* logits, int64_t n, float* row, float* block_max);
extern const VocabKernels vocab_kernels;
}  // namespace avx512

}  // namespace mmcore::ops
