// The tile shapes of the wgmma kernels, and how they cover a problem.
#pragma once

#include <cstdint>

#include "matrix/problem.h"

namespace mmcore::cuda {

/// `features` x `tokens` to a block. In turns: two warpgroups alternate with whole tiles, else they
/// share one, half of the features each. A cluster spans cluster_f tiles of features and cluster_t
/// of tokens.
struct WgmmaTile {
  int features, tokens;
  int cluster_f, cluster_t;
  bool turns;
};

inline constexpr WgmmaTile kTile256 = {128, 256, 2, 1, false};
inline constexpr WgmmaTile kTile192 = {128, 192, 2, 1, true};
inline constexpr WgmmaTile kTile176Wide = {256, 176, 2, 1, false};  // three cover 512 rows
inline constexpr WgmmaTile kTile144 = {128, 144, 2, 1, false};  // four cover a picture's 576 rows
inline constexpr WgmmaTile kTile128 = {128, 128, 2, 1, true};
inline constexpr WgmmaTile kTile128Pair = {128, 128, 1, 2, true};  // weights once for two
inline constexpr WgmmaTile kTile64 = {128, 64, 1, 1, true};

/// Clusters' tiles along features and tokens.
struct WgmmaTiles {
  int64_t f, t;
};

inline WgmmaTiles tiles_of(const WgmmaTile& tile, int64_t tokens, int64_t n) {
  const int64_t f = int64_t{tile.features} * tile.cluster_f,
                t = int64_t{tile.tokens} * tile.cluster_t;
  return {(n + f - 1) / f, (tokens + t - 1) / t};
}

/// Blocks to launch: as many as run side by side, or as there are tiles.
int wgmma_blocks(const WgmmaTile& tile, const MatrixProblem& p, const DeviceFacts& facts);

/// `blocks`: a multiple of the cluster's size. One source file each.
Status run_wgmma_256(const char* op, const MatrixProblem& p, int blocks, cudaStream_t stream);
Status run_wgmma_192(const char* op, const MatrixProblem& p, int blocks, cudaStream_t stream);
Status run_wgmma_176_wide(const char* op, const MatrixProblem& p, int blocks, cudaStream_t stream);
Status run_wgmma_144(const char* op, const MatrixProblem& p, int blocks, cudaStream_t stream);
Status run_wgmma_128(const char* op, const MatrixProblem& p, int blocks, cudaStream_t stream);
Status run_wgmma_128_pair(const char* op, const MatrixProblem& p, int blocks, cudaStream_t stream);
Status run_wgmma_64(const char* op, const MatrixProblem& p, int blocks, cudaStream_t stream);

}  // namespace mmcore::cuda
