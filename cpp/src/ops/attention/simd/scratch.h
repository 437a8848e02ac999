// One thread's working memory while it computes an item. D' is the head dim rounded up to 64.
#pragma once

#include "ops/attention/kernel.h"
#include "ops/simd/math.h"

namespace mmcore::ops {
namespace {

using simd::Vec;

inline int padded_dim(int head_dim) { return (head_dim + 63) / 64 * 64; }

struct Scratch {
  float* q;                // [rows, D']
  float* sums;             // [rows, D'] weighted values so far
  float* scores;           // [kMaxGroupRows, kTileKeys], then weights in their place
  float* keys;             // [kTileKeys / panel, D, panel] transposed (pack.h)
  float* values;           // [kTileKeys, D']
  float* lanes;            // [rows, kLanes] sums of weights, lane by lane
  float* top;              // [rows] greatest score so far
  float* rescale;          // [rows] what the sums have to be multiplied by for the latest tile
  const void** addresses;  // [4, kTileKeys] addresses of keys and values

  Scratch(void* memory, int head_dim) {
    const int64_t dim = padded_dim(head_dim);
    const int64_t rows = max_rows(head_dim) + kRowPadding;
    float* at = static_cast<float*>(memory);
    const auto take = [&at](int64_t floats) {
      float* p = at;
      at += (floats + 15) / 16 * 16;
      return p;
    };
    q = take(rows * dim);
    sums = take(rows * dim);
    scores = take(kMaxGroupRows * kTileKeys);
    keys = take(kTileKeys * dim);
    values = take(kTileKeys * dim);
    lanes = take(rows * Vec::kLanes);
    top = take(rows);
    rescale = take(rows);
    addresses = reinterpret_cast<const void**>(at);
  }
};

template <class KV>
void prefetch_row(const KV* row, int head_dim) {
  const char* p = reinterpret_cast<const char*>(row);
  const int bytes = head_dim * static_cast<int>(sizeof(KV));
  for (int b = 0; b < bytes; b += 64) _mm_prefetch(p + b, _MM_HINT_T0);
}

/// Addresses of keys [begin, begin + count) of a sequence and head.
template <class KV>
void row_addresses(const AttentionProblem& p, const KvRows& rows, int32_t n, int32_t head,
                   int32_t begin, int32_t count, const KV** out) {
  const KV* base = static_cast<const KV*>(rows.data) + head * rows.head_stride;
  if (p.block_tables == nullptr) {
    base += (p.kv_start[n] + int64_t{begin}) * rows.row_stride;
    for (int32_t j = 0; j < count; ++j) out[j] = base + j * rows.row_stride;
    return;
  }
  const int32_t* table = p.block_tables + n * p.table_stride;
  const int32_t block_size = 1 << p.block_shift;
  int32_t j = 0;
  while (j < count) {
    const int32_t offset = (begin + j) & (block_size - 1);
    const int32_t run = block_size - offset < count - j ? block_size - offset : count - j;
    const KV* row =
        base + table[(begin + j) >> p.block_shift] * rows.block_stride + offset * rows.row_stride;
    for (int32_t i = 0; i < run; ++i) out[j + i] = row + i * rows.row_stride;
    j += run;
  }
}

}  // namespace
}  // namespace mmcore::ops
