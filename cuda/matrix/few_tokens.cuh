// Few tokens on Hopper's tensor cores: the limit is the memory's bandwidth, so every multiprocessor
// reads the same number of bytes of the weights, and always has many of them under way.
//
// One block to a multiprocessor: a warp brings weights and tokens by the copy engine, two
// warpgroups multiply, 64 features each. A cluster works on a share of the features, in tiles of up
// to 128; each of its blocks sums a part of k, and sends what it has of a feature to the block that
// stores it. There parts are added in the order of k.
#pragma once

#include <cuda.h>

#include <cstdint>

#include "device/convert.cuh"
#include "device/hopper.cuh"
#include "device/hopper_products.cuh"
#include "device/overlap.cuh"
#include "device/vec.cuh"
#include "matrix/epilogue.cuh"
#include "matrix/few_tokens.h"
#include "matrix/mma.cuh"

namespace mmcore::cuda {

struct FewTokensParams {
  const void* bias;
  RowTarget target;
  int tokens, n;
  int steps;  // of 64 along k
  int split;
  int box, boxes, most;
  int stages, early, stage_bytes, tail_bytes, inbox_bytes;
  ActivationForm act;
  bool steady_weights;  // the kernel in front does not write them
};

namespace hopper {

inline constexpr int kFewWarps = 8;  // that multiply, 16 features of a tile each

/// What a block works on: boxes of features in tiles, and a part of the steps along k.
struct FewTokensShare {
  int first, each, more, tiles;  // boxes; `more` tiles have one more than `each`
  int step, steps;

  __device__ __forceinline__ explicit FewTokensShare(const FewTokensParams& p, int rank) {
    const int clusters = gridDim.x / p.split, cluster = blockIdx.x / p.split;
    const int least = p.boxes / clusters, rest = p.boxes % clusters;
    const int count = least + (cluster < rest);
    first = cluster * least + min(cluster, rest);
    tiles = (count + p.most - 1) / p.most;
    each = count / max(tiles, 1);
    more = count - each * tiles;
    step = part(p, rank);
    steps = part(p, rank + 1) - step;
  }
  __device__ __forceinline__ int begin(int tile) const {
    return first + tile * each + min(tile, more);
  }
  __device__ __forceinline__ int boxes(int tile) const { return each + (tile < more); }

 private:
  static __device__ __forceinline__ int part(const FewTokensParams& p, int rank) {
    return static_cast<int>(int64_t{p.steps} * rank / p.split);
  }
};

/// Where a block's stages, barriers and inbox are.
struct FewTokensMemory {
  uint32_t base, barriers, pairs, inbox;
  int stage_bytes;

  __device__ __forceinline__ FewTokensMemory(uint32_t shared, const FewTokensParams& p)
      : base((shared + 1023) & ~1023u), stage_bytes(p.stage_bytes) {
    inbox = base + p.stages * p.stage_bytes + p.tail_bytes;
    pairs = inbox + p.inbox_bytes;
    barriers = pairs + kFewWarps * 16;
  }
  __device__ __forceinline__ uint32_t stage(int i) const { return base + i * stage_bytes; }
  __device__ __forceinline__ uint32_t full(int i) const { return barriers + i * 16; }
  __device__ __forceinline__ uint32_t empty(int i) const { return full(i) + 8; }
  /// A warp's inbox has all that was sent; what it has sent before has been read.
  __device__ __forceinline__ uint32_t received(int warp) const { return pairs + warp * 16; }
  __device__ __forceinline__ uint32_t room(int warp) const { return received(warp) + 8; }
};

struct FewTokensRing {
  int stages, stage = 0;
  uint32_t parity = 0;
  __device__ __forceinline__ void next() {
    if (++stage == stages) {
      stage = 0;
      parity ^= 1;
    }
  }
};

/// Brings operands, stage after stage: one thread.
template <int kTokens>
struct FewTokensSource {
  const FewTokensMemory& memory;
  const FewTokensShare& share;
  const CUtensorMap& map_w;
  const CUtensorMap& map_x;
  const FewTokensParams& p;
  FewTokensRing ring{p.stages};
  int done = 0;  // steps of the first tile

  /// Asks for what stages have room for; returns once the kernel in front has ended.
  __device__ __forceinline__ void begin() {
    if (p.steady_weights && share.tiles > 0) {
      // Weights before the kernel in front has ended, tokens behind it. The other stages keep the
      // memory busy until tokens are there.
      done = min(share.steps, p.early);
      for (int i = 0; i < done; ++i) weights(i, 0, i);
      wait_for_predecessor();
      for (int i = 0; i < done; ++i, ring.next()) tokens(i, i);
    } else {
      wait_for_predecessor();
    }
  }
  __device__ __forceinline__ void go_on() {
    for (int tile = 0; tile < share.tiles; ++tile, done = 0) {
      for (int i = done; i < share.steps; ++i, ring.next()) {
        barrier_wait(memory.empty(ring.stage), ring.parity ^ 1);
        weights(ring.stage, tile, i);
        tokens(ring.stage, i);
      }
    }
  }

 private:
  __device__ __forceinline__ void weights(int stage, int tile, int step) const {
    const int first = share.begin(tile), boxes = share.boxes(tile);
    barrier_expect(memory.full(stage), (boxes * p.box + kTokens) * 128);
    for (int i = 0; i < boxes; ++i) {
      copy_box(memory.stage(stage) + i * p.box * 128, map_w, memory.full(stage),
               (share.step + step) * 64, (first + i) * p.box);
    }
  }
  __device__ __forceinline__ void tokens(int stage, int step) const {
    copy_box(memory.stage(stage) + p.stage_bytes - kTokens * 128, map_x, memory.full(stage),
             (share.step + step) * 64, 0);
  }
};

/// A warp's sums of 16 features, from feature f on: bias, activation, rows of the result.
template <class T, int kTokens>
__device__ __forceinline__ void store_few_tokens(float (&acc)[kTokens / 2], int f, int lane,
                                                 const FewTokensParams& p) {
  const int own = f + (lane >> 2);
  if (p.bias != nullptr) {
    const T* bias = static_cast<const T*>(p.bias);
    const float low = own < p.n ? to_float(bias[own]) : 0.0f;
    const float high = own + 8 < p.n ? to_float(bias[own + 8]) : 0.0f;
#pragma unroll
    for (int i = 0; i < kTokens / 2; ++i) acc[i] += (i & 2) == 0 ? low : high;
  }
  activate<false>(acc, p.act);
#pragma unroll
  for (int t = 0; t < kTokens; t += 8) {
    const int token = t + (lane >> 2);
    T* row = token < p.tokens ? p.target.row<T>(token) : nullptr;
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      // A lane has two tokens of a feature, and stores two features of a token.
      const Vec<T, 2> pair{
          {from_float<T>(acc[t / 2 + half * 2]), from_float<T>(acc[t / 2 + half * 2 + 1])}};
      uint32_t bits;
      __builtin_memcpy(&bits, &pair, sizeof(bits));
      bits = transpose_matrix(bits);
      const int feature = f + half * 8 + (lane & 3) * 2;
      if (row != nullptr && feature < p.n) {  // n is even
        *reinterpret_cast<uint32_t*>(row + feature) = bits;
      }
    }
  }
}

/// The warps of a number in a cluster's blocks exchange what they have of the same 16 features.
template <int kTokens>
struct FewTokensExchange {
  static constexpr int kPieces = kTokens / 8;  // of four sums a lane

  const FewTokensMemory& memory;
  int split, rank, warp, lane;
  int owner;  // the block that stores them
  uint32_t exchanged = 0;

  __device__ __forceinline__ FewTokensExchange(const FewTokensMemory& memory_, int split_,
                                               int rank_, int warp_, int lane_)
      : memory(memory_), split(split_), rank(rank_), warp(warp_), lane(lane_) {
    owner = warp * split / kFewWarps;
  }

  /// Where the sums of block `from` are in the owner's inbox.
  __device__ __forceinline__ uint32_t slot(int from) const {
    const int owned = kFewWarps / split;
    const int at = (from - (from > owner)) * owned + warp % owned;
    return memory.inbox + (at * kPieces * 32 + lane) * 16;
  }

  /// True where this warp now has the sums of all blocks.
  __device__ __forceinline__ bool complete(float (&acc)[kTokens / 2]) {
    if (split == 1) return true;
    const uint32_t parity = exchanged & 1;
    ++exchanged;
    if (rank != owner) {
      if (exchanged > 1) barrier_wait(memory.room(warp), parity ^ 1);
#pragma unroll
      for (int i = 0; i < kPieces; ++i) {
        const float four[4] = {acc[i * 4], acc[i * 4 + 1], acc[i * 4 + 2], acc[i * 4 + 3]};
        send_to(slot(rank) + i * 512, memory.received(warp), static_cast<uint32_t>(owner), four);
      }
      return false;
    }
    if (lane == 0) barrier_expect(memory.received(warp), (split - 1) * kPieces * 512);
    __syncwarp();
    barrier_wait(memory.received(warp), parity);
    float sum[kTokens / 2] = {};
    for (int from = 0; from < split; ++from) {
      if (from == owner) {
#pragma unroll
        for (int i = 0; i < kTokens / 2; ++i) sum[i] += acc[i];
        continue;
      }
#pragma unroll
      for (int i = 0; i < kPieces; ++i) {
        float four[4];
        asm volatile("ld.shared.v4.f32 {%0, %1, %2, %3}, [%4];"
                     : "=f"(four[0]), "=f"(four[1]), "=f"(four[2]), "=f"(four[3])
                     : "r"(slot(from) + i * 512)
                     : "memory");
#pragma unroll
        for (int j = 0; j < 4; ++j) sum[i * 4 + j] += four[j];
      }
    }
#pragma unroll
    for (int i = 0; i < kTokens / 2; ++i) acc[i] = sum[i];
    hold(acc);
    __syncwarp();
    if (lane < split && lane != owner) {
      barrier_arrive_at(memory.room(warp), static_cast<uint32_t>(lane));
    }
    return true;
  }
};

/// Multiplies and stores: a warp of two warpgroups.
template <class T, int kTokens>
__device__ __forceinline__ void multiply_few_tokens(const FewTokensMemory& memory,
                                                    const FewTokensShare& share, int rank, int warp,
                                                    int lane, const FewTokensParams& p) {
  const int half = warp / 4;
  FewTokensRing ring{p.stages};
  FewTokensExchange<kTokens> exchange(memory, p.split, rank, warp, lane);
  for (int tile = 0; tile < share.tiles; ++tile) {
    const int features = share.boxes(tile) * p.box;
    const bool some = half * 64 < features;  // of the warpgroup's are in the tile
    float acc[kTokens / 2] = {};
    int previous = -1;
    for (int i = 0; i < share.steps; ++i) {
      barrier_wait(memory.full(ring.stage), ring.parity);
      if (some) {
        const Operand w(memory.stage(ring.stage) + half * 64 * 128);
        const Operand x(memory.stage(ring.stage) + p.stage_bytes - kTokens * 128);
        hold(acc);
        begin_products();
#pragma unroll
        for (int step = 0; step < 4; ++step) {
          multiply_shared<T>(acc, w.at(step * 32), x.at(step * 32), true);
        }
        commit_products();
        await_products<1>();
        hold(acc);
      }
      if (previous >= 0 && lane == 0) barrier_arrive(memory.empty(previous));
      previous = ring.stage;
      ring.next();
    }
    await_products<0>();
    hold(acc);
    if (previous >= 0 && lane == 0) barrier_arrive(memory.empty(previous));
    if (warp * 16 < features && exchange.complete(acc)) {
      store_few_tokens<T, kTokens>(acc, share.begin(tile) * p.box + warp * 16, lane, p);
    }
  }
}

}  // namespace hopper

// map_w, map_x: [n, k] and [tokens, k] in boxes of 64 elements of k and p.box or kTokens rows.
template <class T, int kTokens>
__global__ void __launch_bounds__(288, 1)
    few_tokens_kernel(const __grid_constant__ CUtensorMap map_w,
                      const __grid_constant__ CUtensorMap map_x,
                      const __grid_constant__ FewTokensParams p) {
#if defined(MMCORE_HOPPER)
  using namespace hopper;
  extern __shared__ uint8_t shared[];
  const FewTokensMemory memory(shared_address(shared), p);
  const int rank = p.split == 1 ? 0 : static_cast<int>(block_in_cluster());
  const int warp = static_cast<int>(threadIdx.x) / 32, lane = static_cast<int>(threadIdx.x) & 31;
  if (threadIdx.x == 0) {
    prefetch_map(map_w);
    prefetch_map(map_x);
    for (int i = 0; i < p.stages; ++i) {
      barrier_init(memory.full(i), 1);
      barrier_init(memory.empty(i), kFewWarps);
    }
    for (int i = 0; i < kFewWarps; ++i) {
      barrier_init(memory.received(i), 1);
      barrier_init(memory.room(i), 1);
    }
    barrier_init_fence();
  }
  __syncthreads();
  if (p.split > 1) cluster_arrive();
  const FewTokensShare share(p, rank);
  if (warp == kFewWarps) {
    FewTokensSource<kTokens> source{memory, share, map_w, map_x, p};
    if (lane == 0) source.begin();
    __syncwarp();
    // It sends nothing, but racecheck lets no thread pass before all of the block have come here.
    if (p.split > 1) cluster_wait();
    if (lane == 0) source.go_on();
    __syncwarp();
  } else {
    wait_for_predecessor();
    if (p.split > 1) cluster_wait();  // before anything is sent, barriers are there
    multiply_few_tokens<T, kTokens>(memory, share, rank, warp, lane, p);
  }
  if (p.split > 1) {  // others still send to this block
    __syncwarp();
    cluster_sync();
  }
#else
  __trap();
#endif
}

}  // namespace mmcore::cuda
