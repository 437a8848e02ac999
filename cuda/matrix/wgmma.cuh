// Matrix products on Hopper's tensor cores: weights are the left operand (64 rows to a warpgroup's
// instruction), tokens the right one, so that any multiple of 8 tokens makes a tile.
//
// One block works on tiles of 128 features x kTokens until none is left: a warp brings operands by
// the copy engine, two warpgroups multiply. Either both share a tile (64 features each), or they
// take turns with whole tiles, so that one stores while the other multiplies. Blocks of a cluster
// bring each operand once for all that need it.
#pragma once

#include <cuda.h>

#include <cstdint>
#include <cute/arch/mma_sm90_gmma.hpp>
#include <utility>

#include "device/convert.cuh"
#include "device/vec.cuh"
#include "host/device.h"
#include "matrix/epilogue.cuh"
#include "matrix/hopper.cuh"
#include "matrix/problem.h"
#include "matrix/tensor_map.h"
#include "matrix/wgmma_tiles.h"

namespace mmcore::cuda {

/// wgmma over 64 features, N tokens and 16 of k; specialised for each N in use.
template <class T, int N>
struct WgmmaOp;

#define MMCORE_WGMMA_OP(N)                                                                     \
  template <>                                                                                  \
  struct WgmmaOp<__nv_bfloat16, N> {                                                           \
    using type = cute::SM90::GMMA::MMA_64x##N##x16_F32BF16BF16_SS<cute::SM90::GMMA::Major::K,  \
                                                                  cute::SM90::GMMA::Major::K>; \
  };                                                                                           \
  template <>                                                                                  \
  struct WgmmaOp<__half, N> {                                                                  \
    using type = cute::SM90::GMMA::MMA_64x##N##x16_F32F16F16_SS<cute::SM90::GMMA::Major::K,    \
                                                                cute::SM90::GMMA::Major::K>;   \
  };

struct WgmmaParams {
  const void* bias;
  RowTarget target;
  int tokens, n, k;
  int tiles_f, tiles_t;  // of a whole cluster
  int group;             // of tiles_t that go together through all features
  ActivationForm act;
};

template <class T_, WgmmaTile kTile_>
struct WgmmaConfig {
  using T = T_;
  static constexpr WgmmaTile kTile = kTile_;
  static constexpr int kFeatures = 128, kTokens = kTile.tokens, kK = 64;  // 64: 128 bytes of a row
  static constexpr int kClusterF = kTile.cluster_f, kClusterT = kTile.cluster_t;
  static constexpr int kCluster = kClusterF * kClusterT;
  static constexpr int kPeers = kClusterF + kClusterT - 1;  // blocks that share an operand
  static constexpr int kAtoms = kTile.turns ? 2 : 1;        // of 64 features in a warpgroup
  static constexpr int kWeightBytes = kFeatures * kK * 2, kTokenBytes = kTokens * kK * 2;
  static constexpr int kStageBytes = kWeightBytes + kTokenBytes;
  static constexpr int kStages =
      (227 * 1024 - 2048) / kStageBytes < 8 ? (227 * 1024 - 2048) / kStageBytes : 8;
  static constexpr int kSharedBytes = 1024 + kStages * (kStageBytes + 16);
  static constexpr int kThreads = 384;
  static_assert(kTokens / kClusterF % 8 == 0 && kTokenBytes % 1024 == 0);
};

#if defined(__CUDA_ARCH_FEAT_SM90_ALL)

namespace hopper {

/// Position in the ring of stages.
template <int kStages>
struct Ring {
  int stage = 0;
  uint32_t parity = 0;
  __device__ __forceinline__ void next() {
    if (++stage == kStages) {
      stage = 0;
      parity ^= 1;
    }
  }
  __device__ __forceinline__ void skip(int steps) {
    const int to = stage + steps;
    parity ^= static_cast<uint32_t>(to / kStages) & 1;
    stage = to % kStages;
  }
};

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

/// Lane q of four has words w[0..3]; afterwards it has word w[q] of lanes 0 to 3.
__device__ __forceinline__ uint4 transpose4x4(const uint32_t (&w)[4], int q) {
  const bool odd = q & 1, upper = q & 2;
  const uint32_t r01 = __shfl_xor_sync(0xffffffffu, odd ? w[0] : w[1], 1);
  const uint32_t r23 = __shfl_xor_sync(0xffffffffu, odd ? w[2] : w[3], 1);
  const uint32_t a0 = odd ? r01 : w[0], a1 = odd ? w[1] : r01;
  const uint32_t b0 = odd ? r23 : w[2], b1 = odd ? w[3] : r23;
  const uint32_t r0 = __shfl_xor_sync(0xffffffffu, upper ? a0 : b0, 2);
  const uint32_t r1 = __shfl_xor_sync(0xffffffffu, upper ? a1 : b1, 2);
  return upper ? make_uint4(r0, r1, b0, b1) : make_uint4(a0, a1, r0, r1);
}

template <class T>
__device__ __forceinline__ uint32_t pack(float low, float high) {
  const Vec<T, 2> pair{{from_float<T>(low), from_float<T>(high)}};
  uint32_t bits;
  __builtin_memcpy(&bits, &pair, sizeof(bits));
  return bits;
}

template <int kCount>
__device__ __forceinline__ void keep_in_place(float (&acc)[kCount]) {
#pragma unroll
  for (int i = 0; i < kCount; ++i) asm volatile("" : "+f"(acc[i])::"memory");
}

template <class Op, int kCount, size_t... kI>
__device__ __forceinline__ void multiply(uint64_t a, uint64_t b, float (&acc)[kCount], bool add,
                                         std::index_sequence<kI...>) {
  Op::fma(a, b, acc[kI]...,
          add ? cute::SM90::GMMA::ScaleOut::One : cute::SM90::GMMA::ScaleOut::Zero);
}

/// Where the stages and their barriers are.
template <class C>
struct Stages {
  uint32_t base;
  __device__ uint32_t weights(int stage) const { return base + stage * C::kStageBytes; }
  __device__ uint32_t tokens(int stage) const { return weights(stage) + C::kWeightBytes; }
  __device__ uint32_t full(int stage) const {
    return base + C::kStages * C::kStageBytes + stage * 16;
  }
  __device__ uint32_t empty(int stage) const { return full(stage) + 8; }
};

/// Brings operands, stage after stage; one thread.
template <class C>
__device__ __forceinline__ void produce(const Stages<C>& stages, const CUtensorMap* map_w,
                                        const CUtensorMap* map_x, const WgmmaParams& p, int rank) {
  const int in_f = rank % C::kClusterF, in_t = rank / C::kClusterF;
  constexpr int kShareW = C::kFeatures / C::kClusterT, kShareX = C::kTokens / C::kClusterF;
  uint16_t mask_w = 0, mask_x = 0;
  for (int i = 0; i < C::kClusterT; ++i) mask_w |= uint16_t(1u << (in_f + i * C::kClusterF));
  for (int i = 0; i < C::kClusterF; ++i) mask_x |= uint16_t(1u << (in_t * C::kClusterF + i));
  Ring<C::kStages> ring;
  const int steps = (p.k + C::kK - 1) / C::kK;
  const int clusters = gridDim.x / C::kCluster, tiles = p.tiles_f * p.tiles_t;
  for (int tile = blockIdx.x / C::kCluster; tile < tiles; tile += clusters) {
    const TileAt at = TileAt::of<C>(tile, in_f, in_t, p);
    for (int i = 0; i < steps; ++i, ring.next()) {
      const uint32_t full = stages.full(ring.stage);
      barrier_wait(stages.empty(ring.stage), ring.parity ^ 1);
      barrier_expect(full, C::kStageBytes);
      const uint32_t w = stages.weights(ring.stage) + in_t * kShareW * 128;
      const uint32_t x = stages.tokens(ring.stage) + in_f * kShareX * 128;
      if constexpr (C::kClusterT > 1) {
        copy_box_to(w, map_w, full, i * C::kK, at.f + in_t * kShareW, mask_w);
      } else {
        copy_box(w, map_w, full, i * C::kK, at.f);
      }
      if constexpr (C::kClusterF > 1) {
        copy_box_to(x, map_x, full, i * C::kK, at.t + in_f * kShareX, mask_x);
      } else {
        copy_box(x, map_x, full, i * C::kK, at.t);
      }
    }
  }
}

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

/// acc [kAtoms][tokens / 8][4] of 64 features a piece: bias, activation, and rows of `out`.
template <class C>
__device__ __forceinline__ void store_tile(float (&acc)[C::kAtoms][C::kTokens / 2], int f, int t,
                                           const WgmmaParams& p) {
  using T = typename C::T;
  const int lane = threadIdx.x & 31, q = lane & 3, g = lane >> 2;
#pragma unroll
  for (int a = 0; a < C::kAtoms; ++a) {
    if (p.bias != nullptr) {
      float bias[2];
#pragma unroll
      for (int i = 0; i < 2; ++i) {
        const int at = f + a * 64 + g + i * 8;
        bias[i] = at < p.n ? to_float(static_cast<const T*>(p.bias)[at]) : 0.0f;
      }
#pragma unroll
      for (int i = 0; i < C::kTokens / 2; ++i) acc[a][i] += bias[(i >> 1) & 1];
    }
    activate<false>(acc[a], p.act);
  }
#pragma unroll
  for (int j = 0; j < C::kTokens / 16; ++j) {
    // 16 tokens x 16 features: this lane stores 8 features of one token.
    const int token = t + j * 16 + (q >> 1) * 8 + g;
    T* row = token < p.tokens ? p.target.row<T>(token) : nullptr;
#pragma unroll
    for (int a = 0; a < C::kAtoms; ++a) {
      uint32_t words[4];
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        words[i] = transpose8x8(pack<T>(acc[a][j * 8 + 2 * i], acc[a][j * 8 + 2 * i + 1]));
      }
      const uint4 packed = transpose4x4(words, q);
      const int feature = f + a * 64 + (q & 1) * 8;
      if (row != nullptr && feature < p.n) store(row + feature, packed);
    }
  }
}

/// Two warpgroups take turns: one waits until the other passes the turn to it.
__device__ __forceinline__ void turn_wait(int warpgroup) {
  asm volatile("bar.sync %0, 256;" ::"r"(warpgroup + 1) : "memory");
}
__device__ __forceinline__ void turn_pass(int to_warpgroup) {
  asm volatile("bar.arrive %0, 256;" ::"r"(to_warpgroup + 1) : "memory");
}

/// Multiplies and stores; a warpgroup (0 or 1).
template <class C>
__device__ __forceinline__ void consume(const Stages<C>& stages, const WgmmaParams& p, int rank,
                                        int warpgroup) {
  using Op = typename WgmmaOp<typename C::T, C::kTokens>::type;
  constexpr auto kAll = std::make_index_sequence<C::kTokens / 2>();
  constexpr bool kTurns = C::kTile.turns;
  const int in_f = rank % C::kClusterF, in_t = rank / C::kClusterF;
  const int lane = threadIdx.x & 31, warp = threadIdx.x >> 5 & 3;
  const uint32_t first_row = kTurns ? 0 : warpgroup * 64 * 128;  // bytes into the weights
  const int steps = (p.k + C::kK - 1) / C::kK;
  const int clusters = gridDim.x / C::kCluster, tiles = p.tiles_f * p.tiles_t;
  const int stride = kTurns ? 2 * clusters : clusters;
  int tile = blockIdx.x / C::kCluster;
  Ring<C::kStages> ring;
  if (kTurns && warpgroup == 1) {
    tile += clusters;
    ring.skip(steps);
  }
  float acc[C::kAtoms][C::kTokens / 2];
  for (bool first = warpgroup == 0; tile < tiles; tile += stride, first = false) {
    // In turns: stages are waited for only after the other warpgroup has waited for all of its own.
    // A parity tells a stage's filling from the one before, not from the one before that.
    if (kTurns && !first) turn_wait(warpgroup);
    int previous = 0;
    for (int i = 0; i < steps; ++i) {
      barrier_wait(stages.full(ring.stage), ring.parity);
      const uint64_t w = operand(stages.weights(ring.stage) + first_row);
      const uint64_t x = operand(stages.tokens(ring.stage));
#pragma unroll
      for (int a = 0; a < C::kAtoms; ++a) keep_in_place(acc[a]);
      cute::warpgroup_arrive();
#pragma unroll
      for (int step = 0; step < C::kK / 16; ++step) {  // 32 bytes each
#pragma unroll
        for (int a = 0; a < C::kAtoms; ++a) {
          multiply<Op>(w + step * 2 + a * (64 * 128 >> 4), x + step * 2, acc[a], i + step > 0,
                       kAll);
        }
      }
      cute::warpgroup_commit_batch();
      cute::warpgroup_wait<1>();
#pragma unroll
      for (int a = 0; a < C::kAtoms; ++a) keep_in_place(acc[a]);
      if (i > 0) release<C>(stages.empty(previous), lane, rank);
      previous = ring.stage;
      ring.next();
    }
    if (kTurns && tile + clusters < tiles) turn_pass(1 - warpgroup);
    cute::warpgroup_wait<0>();
#pragma unroll
    for (int a = 0; a < C::kAtoms; ++a) keep_in_place(acc[a]);
    release<C>(stages.empty(previous), lane, rank);
    if (kTurns) ring.skip(steps);
    const TileAt at = TileAt::of<C>(tile, in_f, in_t, p);
    store_tile<C>(acc, at.f + (kTurns ? 0 : warpgroup * 64) + warp * 16, at.t, p);
  }
}

}  // namespace hopper

#endif

// map_w, map_x: [n, k] and [tokens, k] in boxes of 64 elements of k, rows that a block brings.
template <class C>
__global__ void __launch_bounds__(C::kThreads, 1)
    wgmma_kernel(const __grid_constant__ CUtensorMap map_w,
                 const __grid_constant__ CUtensorMap map_x, const __grid_constant__ WgmmaParams p) {
#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
  using namespace hopper;
  extern __shared__ uint8_t shared[];
  const Stages<C> stages{(shared_address(shared) + 1023) & ~1023u};
  const int rank = C::kCluster == 1 ? 0 : static_cast<int>(block_in_cluster());
  if (threadIdx.x == 0) {
    prefetch_map(&map_w);
    prefetch_map(&map_x);
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
    if (threadIdx.x == 0) produce<C>(stages, &map_w, &map_x, p, rank);
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
                           .act = form_of(p.act)};
  cudaLaunchAttribute cluster{};
  cluster.id = cudaLaunchAttributeClusterDimension;
  cluster.val.clusterDim = {C::kCluster, 1, 1};
  cudaLaunchConfig_t launch{};
  launch.gridDim = dim3(static_cast<unsigned>(blocks));
  launch.blockDim = dim3(C::kThreads);
  launch.dynamicSmemBytes = C::kSharedBytes;
  launch.stream = stream;
  launch.attrs = &cluster;
  launch.numAttrs = 1;
  return cuda_status(op, cudaLaunchKernelEx(&launch, wgmma_kernel<C>, map_w, map_x, params));
}

template <WgmmaTile kTile>
Status launch_wgmma_tile(const char* op, const MatrixProblem& p, int blocks, cudaStream_t stream) {
  return p.dtype == DType::kBFloat16
             ? launch_wgmma<WgmmaConfig<__nv_bfloat16, kTile>>(op, p, blocks, stream)
             : launch_wgmma<WgmmaConfig<__half, kTile>>(op, p, blocks, stream);
}

}  // namespace mmcore::cuda
