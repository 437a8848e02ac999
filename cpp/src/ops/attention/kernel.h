// The border between planning attention and computing it: units of work, and one set of functions
// per instruction set.
#pragma once

#include <cstdint>

#include "ops/attention/problem.h"

namespace mmcore::ops {

/// Keys that are scored, weighted and summed at a time.
inline constexpr int kTileKeys = 64;
/// Query rows (a query token of one head) of one item, at most: their queries and sums stay in L2.
/// Packing keys and values costs about as much as 12 rows, so the more rows share it the better.
constexpr int max_rows(int head_dim) { return head_dim <= 128 ? 512 : 256; }
/// Rows that kernels may compute beyond an item's last.
inline constexpr int kRowPadding = 32;
/// Rows whose scores are held at a time, at most.
inline constexpr int kMaxGroupRows = 32;
/// Up to so many heads that share a key/value head read the cache directly for a single query;
/// more, or more queries, go through packed tiles.
inline constexpr int kMaxDirectHeads = 8;

/// Query tokens [query, query + queries) of a sequence, for heads [head, head + heads), against
/// keys [key_begin, key_end) as far as each query sees them. Row r of the item is token r / heads,
/// head r % heads. A direct item is one query, for all heads of one or more key/value heads; the
/// heads of another one share a single key/value head.
struct AttentionItem {
  int32_t sequence;
  int32_t query;
  int32_t queries;
  int32_t head;
  int32_t heads;
  int32_t key_begin;
  int32_t key_end;
  bool direct;
  // Offset of the item's partial result, or -1: the item has all keys and writes `out`. A partial
  // is [rows, D] sums of weighted values, [rows] maxima (base-2 scores), [rows] sums of weights.
  int64_t partial;
};

/// Floats of a partial.
constexpr int64_t partial_size(int64_t rows, int64_t head_dim) { return rows * (head_dim + 2); }

/// Bytes that run() needs, 64-byte aligned.
int64_t attention_scratch_bytes(int32_t head_dim);

struct AttentionKernels {
  void (*run)(const AttentionProblem& problem, const AttentionItem& item, void* scratch,
              float* partials);
  /// Writes `out` from `count` partials that lie one behind the other, the first at item.partial.
  void (*merge)(const AttentionProblem& problem, const AttentionItem& item, int32_t count,
                const float* partials);
};

extern const AttentionKernels kAttentionAvx2;
extern const AttentionKernels kAttentionAvx512;
extern const AttentionKernels kAttentionAvx512Bf16;
extern const AttentionKernels kAttentionAmxBf16;

}  // namespace mmcore::ops
