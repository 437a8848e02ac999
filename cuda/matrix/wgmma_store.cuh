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

/// acc [kAtoms][tokens / 8][4] of 64 features a piece, from feature f on. `out`: the warpgroup's
/// own kOutBytes of shared memory; `barrier` its named barrier. Ends with all of them read.
template <class C>
__device__ __forceinline__ void store_tile(float (&acc)[C::kAtoms][C::kTokens / 2],
                                           const TileNotes<C>& notes, int f, int thread,
                                           uint32_t out, int barrier, const WgmmaParams& p) {
  using T = typename C::T;
#pragma unroll
  for (int i = 0; i < TileNotes<C>::kRows; ++i) {
    if (thread + i * 128 < C::kTokens) {
      asm volatile("st.shared.u64 [%0], %1;" ::"r"(out + C::kSliceBytes + (thread + i * 128) * 8),
                   "l"(reinterpret_cast<uint64_t>(notes.rows[i]))
                   : "memory");
    }
  }
#pragma unroll
  for (int a = 0; a < C::kAtoms; ++a) {
    if (p.bias != nullptr) {
#pragma unroll
      for (int i = 0; i < C::kTokens / 2; ++i) acc[a][i] += notes.bias[a][(i >> 1) & 1];
    }
    activate<false>(acc[a], p.act);
  }
  const int lane = thread & 31, warp = thread >> 5;
  // As store_transposed takes them: two blocks of 8 features for each of two of 8 tokens.
  const uint32_t to = out + ((lane >> 4) * 8 + (lane & 7)) * C::kSliceStride +
                      (warp * 16 + (lane >> 3 & 1) * 8) * 2;
  constexpr int kPieces = C::kAtoms * 8;  // of 16 bytes in a row
  constexpr int kRowsAtOnce = 128 / kPieces;
  const int piece = thread % kPieces, row = thread / kPieces;
  const bool there = f + piece * 8 < p.n;
#pragma unroll
  for (int first = 0; first < C::kTokens; first += C::kSlice) {
#pragma unroll
    for (int t = 0; t < C::kSlice; t += 16) {
#pragma unroll
      for (int a = 0; a < C::kAtoms; ++a) {
        const int at = (first + t) / 2;  // 8 tokens are 4 sums of a thread
        const uint32_t words[4] = {
            pack<T>(acc[a][at], acc[a][at + 1]), pack<T>(acc[a][at + 2], acc[a][at + 3]),
            pack<T>(acc[a][at + 4], acc[a][at + 5]), pack<T>(acc[a][at + 6], acc[a][at + 7])};
        store_transposed(to + t * C::kSliceStride + a * 128, words);
      }
    }
    named_sync(barrier, 128);
#pragma unroll
    for (int t = 0; t < C::kSlice; t += kRowsAtOnce) {
      uint64_t address;
      uint4 packed;
      asm volatile("ld.shared.u64 %0, [%1];"
                   : "=l"(address)
                   : "r"(out + C::kSliceBytes + (first + t + row) * 8)
                   : "memory");
      asm volatile("ld.shared.v4.u32 {%0, %1, %2, %3}, [%4];"
                   : "=r"(packed.x), "=r"(packed.y), "=r"(packed.z), "=r"(packed.w)
                   : "r"(out + (t + row) * C::kSliceStride + piece * 16)
                   : "memory");
      if (address != 0 && there) store(reinterpret_cast<T*>(address) + f + piece * 8, packed);
    }
    named_sync(barrier, 128);
  }
}

}  // namespace mmcore::cuda::hopper
