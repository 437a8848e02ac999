// Where a row is cut: the key of the last token that is kept, found without sorting.
//
// Keys are unsigned numbers: of values (top-k; every token counts 1) or of weights (top-p; a token
// counts its weight). F(K) is what tokens of key K or above count. The cut is the largest K with
// F(K) >= target; tokens above it are kept, and of those at it the first few in order of ids.
//
//   F   0 ........ F(hi) < target <= F(lo) ........ all
//   key  above ... hi                lo ........... 0
//
// Passes over the row halve [lo, hi) until the tokens inside fit a list in shared memory, where the
// halving goes on. A pass reads no segment whose largest key is below lo. Sums over the row are in
// a fixed order, those over the list in integers: results do not depend on the order of threads.
#pragma once

#include "sampling/row_block.cuh"

namespace mmcore::cuda {

inline constexpr int kListCapacity = 6144;

struct RowShared {
  RowBlock::Scratch scratch;
  uint32_t segment_key[kMostSegments];  // of the largest value
  float segment_weight[kMostSegments];  // of the largest value; unset without a temperature
  uint32_t list[kListCapacity];
  int32_t list_size;
  int32_t found_segment;
  double found_before;
  int32_t found_ties_before;
};
static_assert(sizeof(RowShared) <= 48 * 1024);
// The list's memory is used again for kMostSegments sums and counts.
static_assert(kListCapacity * 4 >= kMostSegments * 12);

struct Cut {
  uint32_t key = 0;  // tokens with a larger one are kept
  double above = 0;  // what they count
};

/// A cut's tie group that a pass cannot see because an earlier cut limits it: `amount` at `key`.
struct Group {
  uint32_t key = 0;
  double amount = 0;
  __device__ double from(uint32_t at) const { return key >= at ? amount : 0.0; }
};

/// How tokens are ordered and counted. kMass: by weight.
template <class T, bool kMass>
struct CutKeys {
  const RowReader<T>& row;
  float max;
  float inverse_temperature;
  uint32_t above_value;  // kMass: tokens whose value key is not above this do not take part

  __device__ uint32_t key(float x) const {
    const uint32_t value = key_of(x);
    if constexpr (!kMass) return value;
    return value > above_value ? __float_as_uint(weight_of(x, max, inverse_temperature)) : 0u;
  }
  __device__ static double amount(uint32_t key) {
    if constexpr (!kMass) return 1.0;
    return __uint_as_float(key);
  }
  /// In units of 2^-50, so that a full list of weights of at most 1 stays below 2^63.
  __device__ static unsigned long long units(uint32_t key) {
    if constexpr (!kMass) return 1ull;
    return __float2ull_rn(__uint_as_float(key) * 0x1p50f);
  }
  static constexpr double kUnit = kMass ? 0x1p-50 : 1.0;
};

struct PassResult {
  double from_mid;
  double from_hi;
  int32_t inside;  // tokens in [lo, hi); the list holds them if they fit
};

/// One pass over the segments that reach lo. Ends with a barrier behind the list's last write.
template <class T, bool kMass>
__device__ PassResult cut_pass(const CutKeys<T, kMass>& keys, RowShared& shared, RowBlock& block,
                               int segments, int segment_tokens, uint32_t lo, uint32_t mid,
                               uint32_t hi) {
  const int lane = static_cast<int>(threadIdx.x) & 31;
  if (threadIdx.x == 0) shared.list_size = 0;
  __syncthreads();
  double from_mid = 0, from_hi = 0;
  const auto reaches = [&](int s) {
    return (kMass ? __float_as_uint(shared.segment_weight[s]) : shared.segment_key[s]) >= lo;
  };
  for_each_tile(keys.row, segments, segment_tokens, reaches, [&](int, int, const float(&x)[kLane]) {
    uint32_t key[kLane];
    float tile_mid = 0, tile_hi = 0;
    int inside = 0;
#pragma unroll
    for (int j = 0; j < kLane; ++j) {
      key[j] = keys.key(x[j]);
      const float amount = kMass ? __uint_as_float(key[j]) : 1.0f;
      if (key[j] >= mid) tile_mid += amount;
      if (key[j] >= hi) tile_hi += amount;
      inside += key[j] >= lo && key[j] < hi ? 1 : 0;
    }
    from_mid += tile_mid;
    from_hi += tile_hi;
    if (!__any_sync(kFullWarp, inside > 0)) return;
    const int before = RowBlock::warp_scan(inside, lane);
    int at = 0;
    if (lane == 31) at = atomicAdd(&shared.list_size, before);
    at = __shfl_sync(kFullWarp, at, 31) + before - inside;
#pragma unroll
    for (int j = 0; j < kLane; ++j) {
      if (key[j] < lo || key[j] >= hi) continue;
      if (at < kListCapacity) shared.list[at] = key[j];
      ++at;
    }
  });
  from_mid = block.sum(from_mid);
  from_hi = block.sum(from_hi);
  const int32_t inside_all = shared.list_size;
  __syncthreads();  // before the next pass resets it
  return {.from_mid = from_mid, .from_hi = from_hi, .inside = inside_all};
}

/// What list entries of key `from` or above count. A short list is summed by every warp for itself.
template <class T, bool kMass>
__device__ double list_sum(const RowShared& shared, RowBlock& block, int size, uint32_t from) {
  constexpr int kShort = 256;
  unsigned long long units = 0;
  const bool is_short = size <= kShort;
  const int begin = static_cast<int>(threadIdx.x) & (is_short ? 31 : ~0);
  for (int i = begin; i < size; i += is_short ? 32 : kRowThreads) {
    const uint32_t key = shared.list[i];
    if (key >= from) units += CutKeys<T, kMass>::units(key);
  }
  if (is_short) {
#pragma unroll
    for (int step = 16; step > 0; step >>= 1) units += __shfl_xor_sync(kFullWarp, units, step);
  } else {
    units = block.sum(units);
  }
  return static_cast<double>(units) * CutKeys<T, kMass>::kUnit;
}

/// Finds the cut in [lo, hi): F(hi) < target; `lo` stands for a cut that keeps everything from it
/// on, whether or not F(lo) reaches the target. All threads of the block call it and get the same.
template <class T, bool kMass>
__device__ Cut find_cut(const CutKeys<T, kMass>& keys, RowShared& shared, RowBlock& block,
                        int segments, int segment_tokens, uint32_t lo, uint32_t hi, double target,
                        Group group) {
  PassResult pass{};
  while (true) {
    const uint32_t mid = lo + (hi - lo) / 2;
    pass = cut_pass(keys, shared, block, segments, segment_tokens, lo, mid, hi);
    pass.from_mid += group.from(mid);
    pass.from_hi += group.from(hi);
    if (pass.inside <= kListCapacity || hi - lo == 1) break;
    if (pass.from_mid >= target) {
      lo = mid;
    } else {
      hi = mid;
    }
  }
  // Only what lies in [lo, hi) is listed; the rest is in from_hi.
  const Group inside = group.key >= hi ? Group{} : group;
  double above = pass.from_hi;
  while (hi - lo > 1) {
    const uint32_t mid = lo + (hi - lo) / 2;
    const double sum =
        pass.from_hi + inside.from(mid) + list_sum<T, kMass>(shared, block, pass.inside, mid);
    if (sum >= target) {
      lo = mid;
    } else {
      hi = mid;
      above = sum;
    }
  }
  __syncthreads();  // the list may be used again
  return {.key = lo, .above = above};
}

/// The largest key that at least k segments reach with their largest value: at least k tokens do.
/// 0 keeps all where there are fewer segments.
__device__ inline uint32_t kth_segment_key(uint32_t own, int k, int segments) {
  if (k > segments) return 0;
  uint32_t key = 0;
  // The upper half of the bits is enough for a lower bound.
  for (uint32_t bit = 0x80000000u; bit >= 0x10000u; bit >>= 1) {
    if (__syncthreads_count(own >= (key | bit)) >= k) key |= bit;
  }
  return key;
}

}  // namespace mmcore::cuda
