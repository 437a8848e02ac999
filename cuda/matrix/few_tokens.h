// How a product of few tokens is divided over a Hopper GPU.
#pragma once

#include <cstdint>

#include "matrix/problem.h"

namespace mmcore::cuda {

/// Clusters of `split` blocks take an equal share of the features each; its blocks share the sum.
struct FewTokensPlan {
  int tokens;       // of a tile: 8, 16, 32 or 64
  int split;        // 1, 2, 4 or 8
  int clusters;     // at most one for each share
  int box;          // features that are brought at once, and that shares are multiples of
  int64_t boxes;    // of all features
  int most;         // boxes of a tile
  int stages;       // steps of 64 along k that are under way
  int early;        // of them before the kernel in front has ended
  int stage_bytes;  // weights, then tokens
  int tail_bytes;   // behind the stages: what the last one's products read and do not use
  int inbox_bytes;  // sums from the cluster's other blocks
  int shared_bytes;
};

inline constexpr int kFewTokens = 64;
inline constexpr int kFewTokensBlock = 128;  // features of a tile

/// `split` blocks to a cluster and up to `room` bytes of shared memory to a block.
FewTokensPlan plan_few_tokens(const MatrixProblem& p, const DeviceFacts& facts, int split,
                              int room);
/// What suits the shape. Clusters of two at most: an H100 has room for 66 of them, but for less
/// than 32 of four, so that what was to be one round takes two.
FewTokensPlan plan_few_tokens(const MatrixProblem& p, const DeviceFacts& facts);

/// Whether this is the fastest way: for weights of some size. Needs what fits_wgmma does.
bool prefers_few_tokens(const MatrixProblem& p, const DeviceFacts& facts);

Status run_few_tokens(const char* op, const MatrixProblem& p, const FewTokensPlan& plan,
                      cudaStream_t stream);

}  // namespace mmcore::cuda
