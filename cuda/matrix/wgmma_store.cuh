// From a warpgroup's sums to rows of the result: bias, activation, and through shared memory, so
// that whole pieces of a row are written at once wherever the row goes.
#pragma once

#include <cstdint>

#include "device/convert.cuh"
#include "device/hopper.cuh"
#include "device/vec.cuh"
#include "matrix/epilogue.cuh"
#include "matrix/wgmma_config.cuh"

namespace mmcore::cuda::hopper {

template <class T>
__device__ __forceinline__ uint32_t pack(float low, float high) {
  const Vec<T, 2> pair{{from_float<T>(low), from_float<T>(high)}};
  uint32_t bits;
  __builtin_memcpy(&bits, &pair, sizeof(bits));
  return bits;
}

/// What a thread looks up before the products of a tile, for the time after them.
template <class C>
struct TileNotes {
  static constexpr int kRows = (C::kTokens + 127) / 128;
  using T = typename C::T;

  T* rows[kRows];  // of tokens thread, thread + 128
  float bias[C::kAtoms][2];

  /// `f`: the warpgroup's first feature.
  __device__ __forceinline__ TileNotes(const WgmmaParams& p, int f, int t, int thread) {
#pragma unroll
    for (int i = 0; i < kRows; ++i) {
      const int token = thread + i * 128;
      const bool there = token < C::kTokens && t + token < p.tokens;
      rows[i] = there ? p.target.row<T>(t + token) : nullptr;
    }
    const int own = f + (thread >> 5) * 16 + ((thread & 31) >> 2);
#pragma unroll
    for (int i = 0; i < C::kAtoms * 2; ++i) {
      const int at = own + (i >> 1) * 64 + (i & 1) * 8;
      const bool there = p.bias != nullptr && at < p.n;
      bias[i >> 1][i & 1] = there ? to_float(static_cast<const T*>(p.bias)[at]) : 0.0f;
    }
  }
};

/// Puts where rows go to the warpgroup's own kOutBytes of shared memory, for store_atoms. All have
/// read what was there when they come to its barrier.
template <class C>
__device__ __forceinline__ void put_rows(const TileNotes<C>& notes, int thread, uint32_t out,
                                         int barrier) {
  named_sync(barrier, 128);
#pragma unroll
  for (int i = 0; i < TileNotes<C>::kRows; ++i) {
    if (thread + i * 128 < C::kTokens) {
      asm volatile("st.shared.u64 [%0], %1;" ::"r"(out + C::kRowsAt + (thread + i * 128) * 8),
                   "l"(reinterpret_cast<uint64_t>(notes.rows[i]))
                   : "memory");
    }
  }
  named_sync(barrier, 128);
}

/// acc [kCount][tokens / 8][4] of 64 features a piece, from feature f on. `out` as put_rows had it;
/// `barrier` the warpgroup's named barrier.
template <class C, int kCount>
__device__ __forceinline__ void store_atoms(const float (&acc)[kCount][C::kTokens / 2],
                                            const float (&bias)[kCount][2], int f, int thread,
                                            uint32_t out, int barrier, const WgmmaParams& p) {
  using T = typename C::T;
  const int lane = thread & 31, warp = thread >> 5;
  // As store_transposed takes them: two blocks of 8 features for each of two of 8 tokens.
  const uint32_t to = out + ((lane >> 4) * 8 + (lane & 7)) * C::kSliceStride +
                      (warp * 16 + (lane >> 3 & 1) * 8) * 2;
  constexpr int kPieces = kCount * 8;  // of 16 bytes in a row
  constexpr int kRowsAtOnce = 128 / kPieces, kRounds = (C::kSlice + kRowsAtOnce - 1) / kRowsAtOnce;
  const int piece = thread % kPieces, row = thread / kPieces;
  const uint32_t from = out + row * C::kSliceStride + piece * 16;
  const auto offset = static_cast<uint64_t>(f + piece * 8) * sizeof(T);
  const bool there = f + piece * 8 < p.n && row < kRowsAtOnce;
  // The last of an odd number of slices was where the first one goes.
  if constexpr (C::kTokens / C::kSlice % 2 != 0) named_sync(barrier, 128);
#pragma unroll
  for (int slice = 0; slice < C::kTokens / C::kSlice; ++slice) {
    const int place = slice % 2 * C::kSliceBytes;
#pragma unroll
    for (int a = 0; a < kCount; ++a) {
      uint32_t words[4];
#pragma unroll
      for (int i = 0; i < 2; ++i) {  // 8 tokens are 4 sums of a thread
        float v[4];
#pragma unroll
        for (int j = 0; j < 4; ++j) v[j] = acc[a][slice * 8 + i * 4 + j] + bias[a][j >> 1];
        activate<false>(v, p.act);
        words[i * 2] = pack<T>(v[0], v[1]);
        words[i * 2 + 1] = pack<T>(v[2], v[3]);
      }
      store_transposed(to + place + a * 128, words);
    }
    uint64_t address[kRounds];
#pragma unroll
    for (int i = 0; i < kRounds; ++i) {
      const int at = min(i * kRowsAtOnce + row, C::kSlice - 1);
      asm volatile("ld.shared.u64 %0, [%1];"
                   : "=l"(address[i])
                   : "r"(out + C::kRowsAt + (slice * C::kSlice + at) * 8)
                   : "memory");
    }
    // Behind it all have also read the slice before, where the next one goes.
    named_sync(barrier, 128);
#pragma unroll
    for (int i = 0; i < kRounds; ++i) {
      if (C::kSlice % kRowsAtOnce != 0 && i * kRowsAtOnce + row >= C::kSlice) continue;
      uint4 packed;
      asm volatile("ld.shared.v4.u32 {%0, %1, %2, %3}, [%4];"
                   : "=r"(packed.x), "=r"(packed.y), "=r"(packed.z), "=r"(packed.w)
                   : "r"(from + place + i * kRowsAtOnce * C::kSliceStride)
                   : "memory");
      if (address[i] != 0 && there) {
        asm volatile("st.global.v4.u32 [%0], {%1, %2, %3, %4};" ::"l"(address[i] + offset),
                     "r"(packed.x), "r"(packed.y), "r"(packed.z), "r"(packed.w)
                     : "memory");
      }
    }
  }
}

}  // namespace mmcore::cuda::hopper
