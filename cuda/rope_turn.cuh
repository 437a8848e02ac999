// What rope_kv_write's kernels are given, and the rotation of one unit of a head.
#pragma once

#include <cstdint>

#include "device/convert.cuh"
#include "device/vec.cuh"

namespace mmcore::cuda {

struct Heads {  // [T, heads, D]
  void* data;
  int64_t row_stride;
  int64_t head_stride;
};

struct CacheRows {  // [B, P, heads, D]
  void* data;
  int64_t block_stride;
  int64_t row_stride;
  int64_t head_stride;
};

struct RopeProblem {
  Heads q;  // q_heads = 0: absent
  Heads k;
  Heads v;
  CacheRows k_cache;  // null data: no write
  CacheRows v_cache;
  const int64_t* positions;  // null: no rotation
  int64_t axis_stride;       // from a token's position on one axis to the next; 0: all the same
  const float* cos_sin;      // row p: rotary_dim / 2 cosines, then as many sines
  const int64_t* slots;
  int64_t cos_sin_stride;
  int64_t max_position;
  int64_t num_slots;
  int64_t block_size;
  int32_t block_shift;  // log2 of block_size, or -1
  int32_t q_heads;
  int32_t kv_heads;
  int32_t v_heads;  // kv_heads where v is written, else 0
  int32_t head_dim;
  int32_t rotary_dim;
  int32_t pair_units;     // that are two vectors, `half` elements apart
  int32_t units;          // of a head, all of them
  int32_t heads_a_block;  // a token's heads are shared by `splits` blocks
  int32_t splits;
  bool interleaved;
  int32_t sections[3];  // read where axis_stride is not 0
  bool sections_interleaved;
  float k_factor;  // what is written to an e4m3 cache is multiplied by
  float v_factor;
  bool keep_k;  // rotated keys go to their rows, too
};

/// The axis that frequency `i` belongs to: 0, 1 or 2.
__device__ __forceinline__ int axis_of(const RopeProblem& p, int i) {
  const int t = p.sections[0], h = p.sections[1], w = p.sections[2];
  if (!p.sections_interleaved) return i < t ? 0 : i < t + h ? 1 : 2;
  const int turn = i % 3;
  return (turn == 1 && i < 3 * h) || (turn == 2 && i < 3 * w) ? turn : 0;
}

/// A token's rows of cos_sin: one, or one for each axis.
struct TurnRows {
  const float* of_axis[3];
  bool several;
  bool there;  // all positions have a row

  __device__ __forceinline__ TurnRows(const RopeProblem& p, int64_t token)
      : several(p.axis_stride != 0), there(p.positions != nullptr) {
    if (!there) return;
#pragma unroll
    for (int axis = 0; axis < 3; ++axis) {
      if (axis > 0 && !several) break;
      const int64_t position = p.positions[axis * p.axis_stride + token];
      // One outside of the table would lead out of it.
      there = there && position >= 0 && position < p.max_position;
      of_axis[axis] = p.cos_sin + position * p.cos_sin_stride;
    }
  }
  __device__ __forceinline__ const float* row(const RopeProblem& p, int i) const {
    const int axis = several ? axis_of(p, i) : 0;
    return axis == 0 ? of_axis[0] : axis == 1 ? of_axis[1] : of_axis[2];
  }
};

/// Cosines and sines that one unit meets.
template <int kWidth>
struct Turn {
  float cosine[kWidth];
  float sine[kWidth];
};

template <int kWidth>
__device__ __forceinline__ void read_floats(const float* from, float (&to)[kWidth]) {
  constexpr int kPiece = kWidth < 4 ? kWidth : 4;
#pragma unroll
  for (int begin = 0; begin < kWidth; begin += kPiece) {
    const auto piece = load<Vec<float, kPiece>>(from + begin);
#pragma unroll
    for (int j = 0; j < kPiece; ++j) to[begin + j] = piece.at[j];
  }
}

/// For an interleaved unit: half as many angles for each of its two vectors, first in cosine[0 ..],
/// second behind them.
template <int kWidth>
__device__ __forceinline__ Turn<kWidth> read_turn(const TurnRows& rows, const RopeProblem& p,
                                                  int unit) {
  Turn<kWidth> turn;
  const int half = p.rotary_dim / 2;
  if (!p.interleaved && !rows.several) {
    const float* row = rows.of_axis[0];
    read_floats(row + unit * kWidth, turn.cosine);
    read_floats(row + half + unit * kWidth, turn.sine);
  } else if (!p.interleaved) {
#pragma unroll
    for (int j = 0; j < kWidth; ++j) {
      const int i = unit * kWidth + j;
      const float* row = rows.row(p, i);
      turn.cosine[j] = row[i];
      turn.sine[j] = row[half + i];
    }
  } else {
#pragma unroll
    for (int j = 0; j < kWidth / 2; ++j) {
      const int first = unit * (kWidth / 2) + j;
      const int second = half / 2 + first;
      const float* a = rows.row(p, first);
      const float* b = rows.row(p, second);
      turn.cosine[j] = a[first];
      turn.sine[j] = a[half + first];
      turn.cosine[kWidth / 2 + j] = b[second];
      turn.sine[kWidth / 2 + j] = b[half + second];
    }
  }
  return turn;
}

template <class T, int kWidth>
__device__ __forceinline__ void rotate(Vec<T, kWidth>& a, Vec<T, kWidth>& b,
                                       const Turn<kWidth>& turn, bool interleaved) {
  if (!interleaved) {
#pragma unroll
    for (int j = 0; j < kWidth; ++j) {
      const float x = to_float(a.at[j]), y = to_float(b.at[j]);
      a.at[j] = from_float<T>(x * turn.cosine[j] - y * turn.sine[j]);
      b.at[j] = from_float<T>(y * turn.cosine[j] + x * turn.sine[j]);
    }
  } else {
#pragma unroll
    for (int j = 0; j < kWidth; ++j) {
      Vec<T, kWidth>& v = j < kWidth / 2 ? a : b;
      const int at = 2 * (j % (kWidth / 2));
      const float x = to_float(v.at[at]), y = to_float(v.at[at + 1]);
      v.at[at] = from_float<T>(x * turn.cosine[j] - y * turn.sine[j]);
      v.at[at + 1] = from_float<T>(y * turn.cosine[j] + x * turn.sine[j]);
    }
  }
}

}  // namespace mmcore::cuda
