// One row of logits as the sampling kernels see it.
//
// A row is cut into segments of 256 tokens or a multiple, at most 1024 of them, so that a block of
// 1024 threads holds one segment's summary a thread. A warp reads a segment in tiles of 256 tokens,
// 8 neighbours a lane: token order is segment, tile, lane, element.
#pragma once

#include <cstdint>

#include "device/convert.cuh"
#include "device/reduce.cuh"
#include "device/vec.cuh"
#include "sampling/sampler.h"

namespace mmcore::cuda {

inline constexpr int kLane = 8;           // neighbours that a lane reads
inline constexpr int kTile = 32 * kLane;  // tokens that a warp reads at once
inline constexpr int kRowThreads = 1024;  // of a block that works on one row
inline constexpr uint32_t kNaNKey = 0xffffffffu;
inline constexpr uint32_t kLowestKey = 0x007fffffu;  // key_of(-inf)
inline constexpr uint32_t kOneBits = 0x3f800000u;    // of 1.0f, the largest weight
inline constexpr float kMinusInfinity = -__builtin_huge_valf();

/// Orders floats as unsigned numbers: equal floats have equal keys (0 and -0 too), every NaN has
/// the largest.
__device__ __forceinline__ uint32_t key_of(float x) {
  if (x != x) return kNaNKey;
  const uint32_t bits = __float_as_uint(x + 0.0f);  // -0 becomes 0
  return (bits & 0x80000000u) != 0 ? ~bits : bits | 0x80000000u;
}

__device__ __forceinline__ float value_of(uint32_t key) {
  return __uint_as_float((key & 0x80000000u) != 0 ? key & 0x7fffffffu : ~key);
}

/// e^((x - max) / temperature), exactly 1 at the maximum, which may be infinite. The product's
/// rounding error is put back: a weight is right to about one unit in the last place.
__device__ __forceinline__ float weight_of(float x, float max, float inverse_temperature) {
  if (x == max) return 1.0f;
  const float d = x - max;
  const float t = d * inverse_temperature;
  const float e = expf(t);
  return e == 0.0f ? 0.0f : fmaf(e, fmaf(d, inverse_temperature, -t), e);
}

/// Reads a row of T, or its edited copy in float32.
template <class T>
class RowReader {
 public:
  __device__ RowReader(const Rows& rows, int64_t row)
      : vocab_(static_cast<int>(rows.vocab)), aligned_(rows.aligned) {
    const int slot = rows.edit_slot != nullptr ? rows.edit_slot[row] : -1;
    if (slot >= 0) {
      edited_ = rows.edited + static_cast<int64_t>(slot) * rows.edited_stride;
    } else {
      raw_ = static_cast<const T*>(rows.logits) + row * rows.stride;
    }
  }
  /// The row itself, whatever was edited.
  __device__ static RowReader raw(const Rows& rows, int64_t row) {
    Rows unedited = rows;
    unedited.edit_slot = nullptr;
    return RowReader(unedited, row);
  }

  __device__ int vocab() const { return vocab_; }
  __device__ bool edited() const { return edited_ != nullptr; }
  __device__ float operator[](int token) const {
    return edited_ != nullptr ? edited_[token] : to_float(raw_[token]);
  }

  /// Tokens [at, at + 8) for a lane; -inf behind the last.
  __device__ __forceinline__ void read(int at, float (&x)[kLane]) const {
    unpack(fetch(at), at, x);
  }

  /// The same in two halves, with other work in between: what is on its way, and its values.
  struct Fetched {
    uint4 raw[2];
  };
  __device__ __forceinline__ Fetched fetch(int at) const {
    Fetched f{};
    if (!whole(at)) return f;
    if (edited_ != nullptr) {
      load_raw(edited_ + at, f);
    } else {
      load_raw(raw_ + at, f);
    }
    return f;
  }
  __device__ __forceinline__ void unpack(const Fetched& f, int at, float (&x)[kLane]) const {
    if (whole(at)) {
      edited_ != nullptr ? convert<float>(f, x) : convert<T>(f, x);
      return;
    }
#pragma unroll
    for (int j = 0; j < kLane; ++j) x[j] = at + j < vocab_ ? (*this)[at + j] : kMinusInfinity;
  }

 private:
  __device__ __forceinline__ bool whole(int at) const {
    return (aligned_ || edited_ != nullptr) && at + kLane <= vocab_;
  }
  template <class E>
  __device__ static __forceinline__ void load_raw(const E* from, Fetched& f) {
#pragma unroll
    for (int i = 0; i < kLane / kVecWidth<E>; ++i) f.raw[i] = load<uint4>(from + i * kVecWidth<E>);
  }
  template <class E>
  __device__ static __forceinline__ void convert(const Fetched& f, float (&x)[kLane]) {
    E values[kLane];
    __builtin_memcpy(values, f.raw, sizeof(values));
#pragma unroll
    for (int j = 0; j < kLane; ++j) x[j] = to_float(values[j]);
  }

  const T* raw_ = nullptr;
  const float* edited_ = nullptr;
  int vocab_;
  bool aligned_;
};

/// What one segment holds, found before the block of its row starts.
struct SegmentInfo {
  uint32_t key;  // of the largest value, kNaNKey if one is a NaN
  int32_t arg;   // the first token that has it
  float sum;     // of weights relative to the largest value; 0 where nobody asked
  int32_t unused;
};

/// The largest key of a segment and its first token, in every lane.
template <class T>
__device__ __forceinline__ SegmentInfo segment_max(const RowReader<T>& row, int begin, int end) {
  const int lane = static_cast<int>(threadIdx.x) & 31;
  uint32_t best = 0;
  int arg = 0x7fffffff;
  for (int tile = begin; tile < end; tile += kTile) {
    float x[kLane];
    row.read(tile + lane * kLane, x);
#pragma unroll
    for (int j = 0; j < kLane; ++j) {
      const uint32_t key = key_of(x[j]);
      if (key > best) {
        best = key;
        arg = tile + lane * kLane + j;
      }
    }
  }
  const uint32_t largest = __reduce_max_sync(kFullWarp, best);
  const int first = __reduce_min_sync(kFullWarp, best == largest ? arg : 0x7fffffff);
  return {.key = largest, .arg = first, .sum = 0.0f, .unused = 0};
}

/// Goes over the tiles of all segments that `reaches(segment)` holds for, a warp of the team a
/// segment, in order. f(segment, first token of the tile, values) while the next tile is on its
/// way.
template <class T, class Team, class Reaches, class F>
__device__ __forceinline__ void for_each_tile(const RowReader<T>& row, const Team& team,
                                              int segments, int segment_tokens, Reaches&& reaches,
                                              F&& f) {
  const int lane_at = (static_cast<int>(threadIdx.x) & 31) * kLane;
  const auto next_segment = [&](int s) {
    while (s < segments && !reaches(s)) s += Team::kWarps;
    return s;
  };
  int s = next_segment(team.warp());
  if (s >= segments) return;
  int tile = s * segment_tokens;
  auto fetched = row.fetch(tile + lane_at);
  while (true) {
    int following = s, then = tile + kTile;
    if (then >= min(row.vocab(), (s + 1) * segment_tokens)) {
      following = next_segment(s + Team::kWarps);
      then = following * segment_tokens;
    }
    const bool more = following < segments;
    typename RowReader<T>::Fetched ahead{};
    if (more) ahead = row.fetch(then + lane_at);
    float x[kLane];
    row.unpack(fetched, tile + lane_at, x);
    f(s, tile, x);
    if (!more) return;
    s = following;
    tile = then;
    fetched = ahead;
  }
}

}  // namespace mmcore::cuda
