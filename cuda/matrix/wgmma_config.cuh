// What one tile shape of the wgmma kernels needs, and what a launch is given.
#pragma once

#include <cstdint>

#include "matrix/epilogue.cuh"
#include "matrix/wgmma_tiles.h"

namespace mmcore::cuda {

struct WgmmaParams {
  const void* bias;
  RowTarget target;
  int tokens, n, k;
  int tiles_f, tiles_t;  // of a whole cluster
  int group;             // of tiles_t that go together through all features
  ActivationForm act;
  bool steady_weights;  // the kernel in front does not write them
};

template <class T_, WgmmaTile kTile_>
struct WgmmaConfig {
  using T = T_;
  static constexpr WgmmaTile kTile = kTile_;
  static constexpr int kFeatures = kTile.features, kTokens = kTile.tokens;
  static constexpr int kK = 64;  // 128 bytes of a row
  static constexpr int kClusterF = kTile.cluster_f, kClusterT = kTile.cluster_t;
  static constexpr int kCluster = kClusterF * kClusterT;
  static constexpr int kPeers = kClusterF + kClusterT - 1;  // blocks that share an operand
  static constexpr int kAtoms = kFeatures / (kTile.turns ? 64 : 128);  // of a warpgroup
  static constexpr int kWeightBytes = kFeatures * kK * 2, kTokenBytes = kTokens * kK * 2;
  static constexpr int kStageBytes = kWeightBytes + kTokenBytes;

  // A warpgroup's results on their way out: some tokens at a time, rows a piece apart from a
  // multiple of 128 bytes, so that eight of them lie in different banks; then where rows go.
  static constexpr int kSlice = kTokens % 32 == 0 ? 32 : kTokens % 48 == 0 ? 48 : 16;
  static constexpr int kSliceStride = kAtoms * 128 + 16;
  static constexpr int kSliceBytes = kSlice * kSliceStride;
  static constexpr int kOutBytes = kSliceBytes + kTokens * 8;

  static constexpr int kRoom = (227 * 1024 - 1024 - 2 * kOutBytes) / (kStageBytes + 16);
  static constexpr int kStages = kRoom < 8 ? kRoom : 8;
  static constexpr int kBarriersAt = kStages * kStageBytes;
  static constexpr int kOutAt = kBarriersAt + kStages * 16;
  static constexpr int kSharedBytes = 1024 + kOutAt + 2 * kOutBytes;
  static constexpr int kThreads = 384;
  static_assert(kTokens / kClusterF % 8 == 0 && kFeatures / kClusterT % 8 == 0);
  static_assert(kTokenBytes % 1024 == 0 && kTokens % kSlice == 0 && kStages >= 2);
};

}  // namespace mmcore::cuda
