// Which query rows and keys a block works on.
#pragma once

#include "attention/prefill.h"
#include "attention/prefill_params.h"
#include "device/reduce.cuh"

namespace mmcore::cuda {

/// Up to kPrefillTileRows queries of one sequence.
struct QueryTile {
  int32_t sequence;
  int32_t first;    // query within the sequence
  int32_t queries;  // of the whole sequence
  int32_t keys;     // of the whole sequence

  /// Of query 0; query i is at position() + i.
  __device__ __forceinline__ int32_t position() const { return keys - queries; }
  __device__ __forceinline__ int32_t rows() const { return min(kPrefillTileRows, queries - first); }
};

/// Tile `index` of the list, or of all sequences' tiles in order, those of one sequence last first
/// if causal, so that the long ones begin early. False past the last. Whole warps call it.
__device__ __forceinline__ bool find_tile(const PrefillParams& a, int32_t index, QueryTile& tile) {
  const ops::AttentionProblem& p = a.p;
  if (a.tiles != nullptr) {
    if (index >= a.max_tiles || index >= *a.count) return false;
    tile.sequence = a.tiles[2 * index];
    tile.first = a.tiles[2 * index + 1];
  } else {
    const int lane = threadIdx.x & 31;
    bool found = false;
    for (int32_t n0 = 0, before = 0; n0 < p.sequences && !found; n0 += 32) {
      const int32_t n = n0 + lane;
      const int32_t rows = n < p.sequences ? p.query_start[n + 1] - p.query_start[n] : 0;
      const int32_t tiles = (max(rows, 0) + kPrefillTileRows - 1) / kPrefillTileRows;
      int32_t sum = tiles;  // up to and including this lane's
#pragma unroll
      for (int step = 1; step < 32; step <<= 1) {
        const int32_t other = __shfl_up_sync(kFullWarp, sum, step);
        if (lane >= step) sum += other;
      }
      const unsigned past = __ballot_sync(kFullWarp, before + sum > index);
      if (past != 0) {
        const int owner = __ffs(static_cast<int>(past)) - 1;
        const int32_t count = __shfl_sync(kFullWarp, tiles, owner);
        const int32_t at = index - before - __shfl_sync(kFullWarp, sum - tiles, owner);
        tile.sequence = n0 + owner;
        tile.first = (p.causal ? count - 1 - at : at) * kPrefillTileRows;
        found = true;
      }
      before += __shfl_sync(kFullWarp, sum, 31);
    }
    if (!found) return false;
  }
  const int32_t n = tile.sequence;
  tile.queries = p.query_start[n + 1] - p.query_start[n];
  tile.keys = p.block_tables != nullptr ? p.seq_lens[n] : p.kv_start[n + 1] - p.kv_start[n];
  return true;
}

struct KeySpan {
  int32_t begin;
  int32_t end;
};

/// The keys that query i sees; never beyond the sequence's, also for a row past the last query.
__device__ __forceinline__ KeySpan visible(const ops::AttentionProblem& p, const QueryTile& tile,
                                           int32_t i) {
  const int32_t position = tile.position() + i;
  KeySpan span{0, p.causal ? min(position + 1, tile.keys) : tile.keys};
  if (p.window > 0 && position >= p.window) span.begin = position - p.window + 1;
  return span;
}

/// The keys that any of rows [first, last] sees.
__device__ __forceinline__ KeySpan visible(const ops::AttentionProblem& p, const QueryTile& tile,
                                           int32_t first, int32_t last) {
  return {visible(p, tile, first).begin, visible(p, tile, last).end};
}

}  // namespace mmcore::cuda
