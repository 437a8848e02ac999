// Matrix products on Hopper's tensor cores: weights are the left operand (64 rows to a warpgroup's
// instruction), tokens the right one, so that any multiple of 8 tokens makes a tile.
//
// One block works on tiles of kFeatures x kTokens until none is left: a warp brings operands by
// the copy engine, two warpgroups multiply. Either both share a tile (half of the features each),
// or they take turns with whole tiles, so that one stores while the other multiplies. Blocks of a
// cluster bring each operand once for all that need it.
#pragma once

#include <cuda.h>

#include <cstdint>

#include "device/hopper.cuh"
#include "device/hopper_products.cuh"
#include "device/overlap.cuh"
#include "host/device.h"
#include "matrix/problem.h"
#include "matrix/tensor_map.h"
#include "matrix/wgmma_config.cuh"
#include "matrix/wgmma_store.cuh"

namespace mmcore::cuda {
namespace hopper {

/// Which tile of the problem a block works on.
struct TileAt {
  int f, t;  // first feature, first token

  template <class C>
  static __device__ __forceinline__ TileAt of(int tile, int in_f, int in_t, const WgmmaParams& p) {
    const int per_group = p.group * p.tiles_f;
    const int first = tile / per_group * p.group, rest = tile % per_group;
    const int size = min(p.group, p.tiles_t - first);
    return {(rest / size * C::kClusterF + in_f) * C::kFeatures,
            ((first + rest % size) * C::kClusterT + in_t) * C::kTokens};
  }
};

/// Where the stages and their barriers are.
template <class C>
struct Stages {
  uint32_t base;
  __device__ uint32_t weights(int stage) const { return base + stage * C::kStageBytes; }
  __device__ uint32_t tokens(int stage) const { return weights(stage) + C::kWeightBytes; }
  __device__ uint32_t full(int stage) const { return base + C::kBarriersAt + stage * 16; }
  __device__ uint32_t empty(int stage) const { return full(stage) + 8; }
  __device__ uint32_t out(int warpgroup) const {
    return base + C::kOutAt + warpgroup * C::kOutBytes;
  }
};

/// One thread: brings operands, stage after stage.
template <class C>
struct Producer {
  Stages<C> stages;
  const CUtensorMap& map_w;
  const CUtensorMap& map_x;
  const WgmmaParams& p;
  int in_f, in_t;
  uint16_t mask_w = 0, mask_x = 0;

  static constexpr int kShareW = C::kFeatures / C::kClusterT;
  static constexpr int kShareX = C::kTokens / C::kClusterF;

  __device__ __forceinline__ Producer(const Stages<C>& stages_, const CUtensorMap& map_w_,
                                      const CUtensorMap& map_x_, const WgmmaParams& p_, int rank)
      : stages(stages_),
        map_w(map_w_),
        map_x(map_x_),
        p(p_),
        in_f(rank % C::kClusterF),
        in_t(rank / C::kClusterF) {
    for (int i = 0; i < C::kClusterT; ++i) mask_w |= uint16_t(1u << (in_f + i * C::kClusterF));
    for (int i = 0; i < C::kClusterF; ++i) mask_x |= uint16_t(1u << (in_t * C::kClusterF + i));
  }

  __device__ __forceinline__ void weights(int stage, int step, const TileAt& at) const {
    const uint32_t to = stages.weights(stage) + in_t * kShareW * 128, full = stages.full(stage);
    if constexpr (C::kClusterT > 1) {
      copy_box_to(to, map_w, full, step * C::kK, at.f + in_t * kShareW, mask_w);
    } else {
      copy_box(to, map_w, full, step * C::kK, at.f);
    }
  }
  __device__ __forceinline__ void tokens(int stage, int step, const TileAt& at) const {
    const uint32_t to = stages.tokens(stage) + in_f * kShareX * 128, full = stages.full(stage);
    if constexpr (C::kClusterF > 1) {
      copy_box_to(to, map_x, full, step * C::kK, at.t + in_f * kShareX, mask_x);
    } else {
      copy_box(to, map_x, full, step * C::kK, at.t);
    }
  }

  __device__ __forceinline__ void run() const {
    Ring<C::kStages> ring;
    const int steps = (p.k + C::kK - 1) / C::kK;
    const int clusters = gridDim.x / C::kCluster, tiles = p.tiles_f * p.tiles_t;
    int tile = blockIdx.x / C::kCluster, done = 0;
    if (p.steady_weights && tile < tiles) {
      // All stages are empty. Weights before the kernel in front has ended, tokens behind it.
      const TileAt at = TileAt::of<C>(tile, in_f, in_t, p);
      done = min(steps, C::kStages);
      for (int i = 0; i < done; ++i) {
        barrier_expect(stages.full(i), C::kStageBytes);
        weights(i, i, at);
      }
      wait_for_predecessor();
      for (int i = 0; i < done; ++i) tokens(i, i, at);
      ring.skip(done);
    } else {
      wait_for_predecessor();
    }
    for (; tile < tiles; tile += clusters, done = 0) {
      const TileAt at = TileAt::of<C>(tile, in_f, in_t, p);
      for (int i = done; i < steps; ++i, ring.next()) {
        barrier_wait(stages.empty(ring.stage), ring.parity ^ 1);
        barrier_expect(stages.full(ring.stage), C::kStageBytes);
        weights(ring.stage, i, at);
        tokens(ring.stage, i, at);
      }
    }
  }
};

/// Tells every block that fills this one's stages that a stage may be overwritten; a warp.
template <class C>
__device__ __forceinline__ void release(uint32_t empty, int lane, int rank) {
  if constexpr (C::kCluster == 1) {
    if (lane == 0) barrier_arrive(empty);
  } else if (lane < C::kPeers) {
    const int in_f = rank % C::kClusterF, in_t = rank / C::kClusterF;
    const int other = lane - C::kClusterF;  // of those that share weights, this block left out
    const int peer = lane < C::kClusterF ? in_t * C::kClusterF + lane
                                         : (other + (other >= in_t)) * C::kClusterF + in_f;
    barrier_arrive_at(empty, static_cast<uint32_t>(peer));
  }
}

/// Two warpgroups take turns: one waits until the other passes the turn to it.
__device__ __forceinline__ void turn_wait(int warpgroup) { named_sync(warpgroup + 1, 256); }
__device__ __forceinline__ void turn_pass(int to_warpgroup) { named_arrive(to_warpgroup + 1, 256); }

/// Multiplies and stores; a warpgroup (0 or 1).
template <class C>
__device__ __forceinline__ void consume(const Stages<C>& stages, const WgmmaParams& p, int rank,
                                        int warpgroup) {
  constexpr bool kTurns = C::kTile.turns;
  const int in_f = rank % C::kClusterF, in_t = rank / C::kClusterF;
  const int thread = threadIdx.x & 127, lane = thread & 31;
  const int first_feature = kTurns ? 0 : warpgroup * C::kAtoms * 64;
  const int steps = (p.k + C::kK - 1) / C::kK;
  const int clusters = gridDim.x / C::kCluster, tiles = p.tiles_f * p.tiles_t;
  const int stride = kTurns ? 2 * clusters : clusters;
  int tile = blockIdx.x / C::kCluster;
  Ring<C::kStages> ring;
  if (kTurns && warpgroup == 1) {
    tile += clusters;
    ring.skip(steps);
  }
  wait_for_predecessor();
  float acc[C::kAtoms][C::kTokens / 2];
  for (bool first = warpgroup == 0; tile < tiles; tile += stride, first = false) {
    const TileAt at = TileAt::of<C>(tile, in_f, in_t, p);
    const int feature = at.f + first_feature;
    const TileNotes<C> notes(p, feature, at.t, thread);
    // In turns: stages are waited for only after the other warpgroup has waited for all of its own.
    // A parity tells a stage's filling from the one before, not from the one before that.
    if (kTurns && !first) turn_wait(warpgroup);
    int previous = 0;
    for (int i = 0; i < steps; ++i) {
      barrier_wait(stages.full(ring.stage), ring.parity);
      const Operand w(stages.weights(ring.stage) + first_feature * 128);
      const Operand x(stages.tokens(ring.stage));
#pragma unroll
      for (int a = 0; a < C::kAtoms; ++a) hold(acc[a]);
      begin_products();
#pragma unroll
      for (int step = 0; step < C::kK / 16; ++step) {  // 32 bytes each
#pragma unroll
        for (int a = 0; a < C::kAtoms; ++a) {
          multiply_shared<typename C::T>(acc[a], w.at(step * 32 + a * 64 * 128), x.at(step * 32),
                                         i + step > 0);
        }
      }
      commit_products();
      await_products<1>();
#pragma unroll
      for (int a = 0; a < C::kAtoms; ++a) hold(acc[a]);
      if (i > 0) release<C>(stages.empty(previous), lane, rank);
      previous = ring.stage;
      ring.next();
    }
    if (kTurns && tile + clusters < tiles) turn_pass(1 - warpgroup);
    await_products<0>();
#pragma unroll
    for (int a = 0; a < C::kAtoms; ++a) hold(acc[a]);
    release<C>(stages.empty(previous), lane, rank);
    if (kTurns) ring.skip(steps);
    store_tile<C>(acc, notes, feature, thread, stages.out(warpgroup), 3 + warpgroup, p);
  }
}

}  // namespace hopper

// map_w, map_x: [n, k] and [tokens, k] in boxes of 64 elements of k, rows that a block brings.
template <class C>
__global__ void __launch_bounds__(C::kThreads, 1)
    wgmma_kernel(const __grid_constant__ CUtensorMap map_w,
                 const __grid_constant__ CUtensorMap map_x, const __grid_constant__ WgmmaParams p) {
#if defined(MMCORE_HOPPER)
  using namespace hopper;
  extern __shared__ uint8_t shared[];
  const Stages<C> stages{(shared_address(shared) + 1023) & ~1023u};
  const int rank = C::kCluster == 1 ? 0 : static_cast<int>(block_in_cluster());
  if (threadIdx.x == 0) {
    prefetch_map(map_w);
    prefetch_map(map_x);
    constexpr uint32_t kWarps = C::kTile.turns ? 4 : 8;
    for (int i = 0; i < C::kStages; ++i) {
      barrier_init(stages.full(i), 1);
      barrier_init(stages.empty(i), kWarps * C::kPeers);
    }
    barrier_init_fence();
  }
  if constexpr (C::kCluster > 1) {
    __syncthreads();
    cluster_sync();
  } else {
    __syncthreads();
  }
  if (threadIdx.x < 128) {
    give_registers<40>();
    if (threadIdx.x == 0) Producer<C>(stages, map_w, map_x, p, rank).run();
    __syncwarp();
  } else {
    take_registers<232>();
    consume<C>(stages, p, rank, static_cast<int>(threadIdx.x) / 128 - 1);
  }
  // Others still arrive at this block's barriers.
  if constexpr (C::kCluster > 1) cluster_sync();
#else
  __trap();
#endif
}

/// Launches one tile shape; p.dtype is that of C.
template <class C>
Status launch_wgmma(const char* op, const MatrixProblem& p, int blocks, cudaStream_t stream) {
  CUtensorMap map_w, map_x;
  MMCORE_RETURN_IF_ERROR(
      row_map(op, p.dtype, p.w, p.n, p.k, p.w_stride, C::kFeatures / C::kClusterT, C::kK, map_w));
  MMCORE_RETURN_IF_ERROR(row_map(op, p.dtype, p.x, p.tokens, p.k, p.x_stride,
                                 C::kTokens / C::kClusterF, C::kK, map_x));
  MMCORE_RETURN_IF_ERROR(allow_shared(op, wgmma_kernel<C>, C::kSharedBytes));
  constexpr int kGroupTokens = 2048;  // with 16 tiles of features: little is read twice from memory
  const WgmmaTiles tiles = tiles_of(C::kTile, p.tokens, p.n);
  const WgmmaParams params{.bias = p.bias,
                           .target = {p.out, p.out_stride, p.rows, p.out_rows},
                           .tokens = static_cast<int>(p.tokens),
                           .n = static_cast<int>(p.n),
                           .k = static_cast<int>(p.k),
                           .tiles_f = static_cast<int>(tiles.f),
                           .tiles_t = static_cast<int>(tiles.t),
                           .group = kGroupTokens / (C::kTokens * C::kClusterT) > 0
                                        ? kGroupTokens / (C::kTokens * C::kClusterT)
                                        : 1,
                           .act = form_of(p.act),
                           .steady_weights = p.steady_weights};
  cudaLaunchAttribute attributes[2] = {};
  attributes[0].id = cudaLaunchAttributeClusterDimension;
  attributes[0].val.clusterDim = {C::kCluster, 1, 1};
  attributes[1].id = cudaLaunchAttributeProgrammaticStreamSerialization;
  attributes[1].val.programmaticStreamSerializationAllowed = 1;
  cudaLaunchConfig_t launch{};
  launch.gridDim = dim3(static_cast<unsigned>(blocks));
  launch.blockDim = dim3(C::kThreads);
  launch.dynamicSmemBytes = C::kSharedBytes;
  launch.stream = stream;
  launch.attrs = attributes;
  launch.numAttrs = 2;
  return cuda_status(op, cudaLaunchKernelEx(&launch, wgmma_kernel<C>, map_w, map_x, params));
}

template <WgmmaTile kTile>
Status launch_wgmma_tile(const char* op, const MatrixProblem& p, int blocks, cudaStream_t stream) {
  return p.dtype == DType::kBFloat16
             ? launch_wgmma<WgmmaConfig<__nv_bfloat16, kTile>>(op, p, blocks, stream)
             : launch_wgmma<WgmmaConfig<__half, kTile>>(op, p, blocks, stream);
}

}  // namespace mmcore::cuda
