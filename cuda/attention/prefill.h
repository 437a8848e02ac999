// Attention of long queries over the paged cache: tiles of query rows, one block a tile and head.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

#include "attention/prefill_params.h"
#include "mmcore/status.h"
#include "ops/attention/problem.h"

namespace mmcore::cuda {

/// Rows of query that one tile may cover.
inline constexpr int kPrefillTileRows = 128;

/// The tiles of one batch, made once for all layers. Tiles run in this order, so those with most
/// keys should come first; tiles of sequences that are done elsewhere are simply absent.
struct PrefillWork {
  const int32_t* tiles;  // device int32 [max_tiles, 2]: sequence, first query row within it
  const int32_t* count;  // device int32 [1]: how many there are; a value above max_tiles is cut
  int32_t max_tiles;     // of which the grid is made
  int64_t query_rows;    // of q, those of all sequences
  PrefillCuts cuts{};    // whole tiles, unless a plan says otherwise
};

/// Writes the rows of `out` that the tiles cover. Pointers in `problem` are device pointers:
/// q, out [T, Hq, D] and k, v [blocks, block size, Hkv, D] with strides, block_tables [N, W].
/// Entries of a table beyond a sequence's keys and rows of a block beyond them are never used.
/// Fast where q has a 16-bit dtype and the cache the same one or e4m3; any other pair of float
/// dtypes runs in float32 on a plain kernel. Nothing is checked here.
Status launch_prefill(const ops::AttentionProblem& problem, const PrefillWork& work,
                      cudaStream_t stream);

}  // namespace mmcore::cuda
