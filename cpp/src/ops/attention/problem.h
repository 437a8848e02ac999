// One batch of attention as kernels see it, whichever op it comes from: pointers, strides in
// elements and sizes that have been checked.
#pragma once

#include <cstdint>

#include "mmcore/types.h"

namespace mmcore::ops {

/// The head dims that every backend has kernels for.
inline constexpr int kHeadDims[] = {32, 64, 72, 80, 96, 128, 256};

/// Keys or values. Key j of sequence n, head h:
///   paged       data + tables[n * table_stride + (j >> block_shift)] * block_stride
///                    + (j & (1 << block_shift) - 1) * row_stride + h * head_stride
///   contiguous  data + (kv_start[n] + j) * row_stride + h * head_stride
struct KvRows {
  const void* data;
  int64_t block_stride;
  int64_t row_stride;
  int64_t head_stride;
};

struct AttentionProblem {
  const void* q;
  void* out;
  int64_t q_row_stride, q_head_stride;
  int64_t out_row_stride, out_head_stride;
  KvRows k;
  KvRows v;
  DType dtype;     // of q and out
  DType kv_dtype;  // of k and v; float8_e4m3fn only where they are paged

  const int32_t* query_start;   // [N + 1]
  const int32_t* seq_lens;      // [N], paged
  const int32_t* kv_start;      // [N + 1], contiguous
  const int32_t* block_tables;  // null: contiguous
  int64_t table_stride;
  int32_t block_shift;  // log2 of the block size

  int32_t sequences;
  int32_t heads;
  int32_t kv_heads;
  int32_t head_dim;
  float scale;           // of q.k, the keys' own scale included
  float v_scale = 1.0f;  // of sums over values
  float soft_cap;
  int32_t window;
  bool causal;
};

// Always inlined, because kernels for wider instruction sets use them too (ops/simd/vec.h).

[[gnu::always_inline]] inline int32_t query_len(const AttentionProblem& p, int32_t n) {
  return p.query_start[n + 1] - p.query_start[n];
}

[[gnu::always_inline]] inline int32_t kv_len(const AttentionProblem& p, int32_t n) {
  return p.block_tables != nullptr ? p.seq_lens[n] : p.kv_start[n + 1] - p.kv_start[n];
}

/// The keys [begin, end) that one query sees; empty when end <= begin.
struct KeyRange {
  int32_t begin;
  int32_t end;
};

/// For query i of sequence n.
[[gnu::always_inline]] inline KeyRange visible_keys(const AttentionProblem& p, int32_t n,
                                                    int32_t i) {
  const int32_t keys = kv_len(p, n);
  const int32_t position = keys - query_len(p, n) + i;
  KeyRange r{0, p.causal ? position + 1 : keys};
  if (p.window > 0 && position >= p.window) r.begin = position - p.window + 1;
  if (r.end < r.begin) r.end = r.begin;
  return r;
}

/// Element offset of key j of sequence n, head h, from rows.data.
[[gnu::always_inline]] inline int64_t row_offset(const AttentionProblem& p, const KvRows& rows,
                                                 int32_t n, int32_t h, int32_t j) {
  if (p.block_tables == nullptr) {
    return (p.kv_start[n] + int64_t{j}) * rows.row_stride + h * rows.head_stride;
  }
  const int32_t block = p.block_tables[n * p.table_stride + (j >> p.block_shift)];
  return block * rows.block_stride + (j & ((1 << p.block_shift) - 1)) * rows.row_stride +
         h * rows.head_stride;
}

struct PagedAttentionArgs;
struct VarlenAttentionArgs;
/// Of arguments whose shapes have been checked.
AttentionProblem paged_problem(const PagedAttentionArgs& args);
AttentionProblem varlen_problem(const VarlenAttentionArgs& args);

/// Runs the best variant that cpu_isa() allows.
void run_attention(const AttentionProblem& problem);

/// The specification: double accumulation, no tiles.
void attention_reference(const AttentionProblem& problem);

}  // namespace mmcore::ops
