// How few tiles of prefills are cut between the blocks of a GPU.
//
// A step is a tile of query rows, a head and a tile of keys. A tile's steps for a head are an item.
// Where there are many items, blocks take whole ones in turn. Where the longest block would then
// work much longer than the others, all items' steps lie on a line, tile by tile, head by head:
//
//     tile 0, head 0  | head 1          | ... | tile 1, head 0 | ...
//     [s s s s s s s s][s s s s s s s s] ...   [s s s s s s s s] ...
//     |- worker 0 -|- worker 1 -|- worker 2 -|- ...          each `chunk` long
//
// and each worker, a block, takes an equal stretch of it. The last of an item's workers that
// arrives merges what all of them have, in their order.
//
// constexpr functions are called by kernels, too: what a worker does is said here and once.
#pragma once

#include <cstdint>
#include <vector>

namespace mmcore::ops {

/// Head dims beyond this one are never cut: their partial results would take too much memory.
inline constexpr int32_t kMostCutDim = 128;

/// Keys in a step.
constexpr int32_t prefill_step_keys(int32_t head_dim) { return head_dim > 128 ? 64 : 128; }

/// Where a worker's stretch begins: in this item, which begins at `line`.
struct PrefillWorker {
  int32_t item;
  int32_t line;
};

/// The steps of an item that are one worker's.
struct PrefillPart {
  int32_t begin;  // counted within the item
  int32_t end;
  int32_t first_worker;
  int32_t parts;  // 1: the worker has the whole item
};

/// Of an item of `length` steps that begins at `line` and reaches into the worker's stretch.
constexpr PrefillPart prefill_part(int32_t worker, int32_t chunk, int32_t line, int32_t length) {
  const int32_t begin = worker * chunk - line, end = begin + chunk, first = line / chunk;
  return {.begin = begin > 0 ? begin : 0,
          .end = end < length ? end : length,
          .first_worker = first,
          .parts = (line + length - 1) / chunk - first + 1};
}

/// A worker's place in the partial results: it cuts at most two items, one that has begun before it
/// and one that goes on behind it.
constexpr int32_t prefill_slot(int32_t worker, int32_t first_worker) {
  return 2 * worker + (worker == first_worker ? 1 : 0);
}

struct PrefillCut {
  int32_t chunk = 0;  // 0: items stay whole
  int32_t steps = 0;  // of all items
  std::vector<PrefillWorker> workers;
};

/// `steps`: of each tile, 1 or more.
PrefillCut cut_prefill(const std::vector<int32_t>& steps, int32_t heads, int32_t workers);

/// Floats of one slot: of each thread of two groups of 128 its part of 64 x head_dim sums, two
/// maxima and two sums of weights.
constexpr int64_t prefill_slot_floats(int32_t head_dim) { return 256 * (head_dim / 2 + 4); }

/// Of all slots; 0 for head dims that are never cut.
constexpr int64_t prefill_partial_bytes(int32_t head_dim, int32_t workers) {
  return head_dim > kMostCutDim ? 0 : 2 * int64_t{workers} * prefill_slot_floats(head_dim) * 4;
}

}  // namespace mmcore::ops
