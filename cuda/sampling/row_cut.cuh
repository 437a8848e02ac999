// Where a row is cut: the key of the last token that is kept, found without sorting.
//
// Keys are unsigned numbers: of values (top-k; every token counts 1) or of weights (top-p; a token
// counts its weight). F(K) is what tokens of key K or above count. The cut is the largest K with
// F(K) >= target; tokens above it are kept, and of those at it the first few in order of ids.
//
//   F   0 ........ F(hi) < target <= F(lo) ........ all
//   key  above ... hi                lo ........... 0
//
// Passes over the row quarter [lo, hi) until the tokens inside fit a list in shared memory, where
// it is halved. A pass reads no segment whose largest key is below lo. Sums are sums of integers,
// of 8 neighbours' weights at a time over the row: results depend neither on the order of threads
// nor on how many blocks work on the row.
#pragma once

#include "sampling/row_team.cuh"

namespace mmcore::cuda {

inline constexpr int kListCapacity = 6144;
/// Places between lo and hi that a pass sums from.
inline constexpr int kMids = 3;

struct RowShared {
  RowBlock::Scratch scratch;
  uint32_t segment_key[kMostSegments];  // of the largest value
  float segment_weight[kMostSegments];  // of the largest value; unset without a temperature
  uint32_t list[kListCapacity];
  int32_t list_size;
  double found_before;
  int32_t found_ties_before;
  int32_t ties;
  struct Counted {
    unsigned long long from[kMids + 1];
    int32_t inside;
  } counted[2][kTeamBlocks];  // by turns, each block's
  struct {
    uint32_t key;
    double above;
  } cut;
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
  double from[kMids + 1];  // the places in between, then hi
  int32_t inside;          // tokens in [lo, hi); the lists of all blocks hold them if they fit one
  int32_t own;             // of them, in this block's list
  int32_t before;          // in the lists of the blocks before this one
};

/// The i-th of the places that divide [lo, hi) into quarters.
__device__ __forceinline__ uint32_t mid_of(uint32_t lo, uint32_t hi, int i) {
  return lo +
         static_cast<uint32_t>((uint64_t{hi - lo} * static_cast<uint64_t>(i + 1)) / (kMids + 1));
}

/// One pass over the segments that reach lo. Ends with a barrier behind the list's last write.
/// `turn` is another one than in the call before, of 0 and 1.
template <class T, bool kMass, class Team>
__device__ PassResult cut_pass(const CutKeys<T, kMass>& keys, RowShared& shared, const Team& team,
                               int segments, int segment_tokens, uint32_t lo, uint32_t hi,
                               int turn) {
  constexpr float kUnit = 0x1p40f;  // of sums: a row of 2^23 weights of 1 stays below 2^64
  const int thread = static_cast<int>(threadIdx.x), lane = thread & 31;
  if (thread == 0) shared.list_size = 0;
  __syncthreads();
  uint32_t places[kMids + 1];
#pragma unroll
  for (int i = 0; i < kMids; ++i) places[i] = mid_of(lo, hi, i);
  places[kMids] = hi;
  unsigned long long from[kMids + 1] = {};
  const auto reaches = [&](int s) {
    return (kMass ? __float_as_uint(shared.segment_weight[s]) : shared.segment_key[s]) >= lo;
  };
  const auto count = [&](int, int, const float(&x)[kLane]) {
    uint32_t key[kLane];
    float sums[kMids + 1] = {};
    int inside = 0;
#pragma unroll
    for (int j = 0; j < kLane; ++j) {
      key[j] = keys.key(x[j]);
      const float amount = kMass ? __uint_as_float(key[j]) : 1.0f;
#pragma unroll
      for (int i = 0; i <= kMids; ++i) sums[i] += key[j] >= places[i] ? amount : 0.0f;
      inside += key[j] >= lo && key[j] < hi ? 1 : 0;
    }
#pragma unroll
    for (int i = 0; i <= kMids; ++i) from[i] += __float2ull_rn(sums[i] * kUnit);
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
  };
  for_each_tile(keys.row, team, segments, segment_tokens, reaches, count);
#pragma unroll
  for (int i = 0; i <= kMids; ++i) from[i] = team.block().sum(from[i]);
  PassResult result{.from = {}, .inside = 0, .own = shared.list_size, .before = 0};
  if (thread < Team::kBlocks) {
    auto& to = *team.of(thread, &shared.counted[turn][team.rank()]);
#pragma unroll
    for (int i = 0; i <= kMids; ++i) to.from[i] = from[i];
    to.inside = result.own;
  }
  team.sync();
#pragma unroll
  for (int i = 0; i <= kMids; ++i) from[i] = 0;
#pragma unroll
  for (int rank = 0; rank < Team::kBlocks; ++rank) {
    const RowShared::Counted& counted = shared.counted[turn][rank];
#pragma unroll
    for (int i = 0; i <= kMids; ++i) from[i] += counted.from[i];
    if (rank < team.rank()) result.before += counted.inside;
    result.inside += counted.inside;
  }
#pragma unroll
  for (int i = 0; i <= kMids; ++i) result.from[i] = static_cast<double>(from[i]) * (1.0 / kUnit);
  return result;
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
/// on, whether or not F(lo) reaches the target. All threads of the team call it and get the same.
template <class T, bool kMass, class Team>
__device__ Cut find_cut(const CutKeys<T, kMass>& keys, RowShared& shared, const Team& team,
                        int segments, int segment_tokens, uint32_t lo, uint32_t hi, double target,
                        Group group) {
  PassResult pass{};
  for (int turn = 0;; turn ^= 1) {
    pass = cut_pass(keys, shared, team, segments, segment_tokens, lo, hi, turn);
    if (pass.inside <= kListCapacity || hi - lo == 1) break;
    uint32_t from = lo, to = hi;
#pragma unroll
    for (int i = 0; i < kMids; ++i) {
      const uint32_t mid = mid_of(lo, hi, i);
      if (mid == lo) continue;
      if (pass.from[i] + group.from(mid) >= target) {
        from = mid;
      } else {
        to = min(to, mid);
      }
    }
    lo = from;
    hi = to;
  }
  const bool listed = hi - lo > 1;
  if constexpr (Team::kBlocks > 1) {  // the first block looks through the list
    if (listed && team.rank() > 0) {
      uint32_t* list = team.of(0, shared.list + pass.before);
      for (int i = static_cast<int>(threadIdx.x); i < pass.own; i += kRowThreads) {
        list[i] = shared.list[i];
      }
    }
    team.sync();
  }
  const double from_hi = pass.from[kMids] + group.from(hi);
  double above = from_hi;
  if (team.rank() == 0) {
    // Only what lies in [lo, hi) is listed; the rest is in from_hi.
    const Group inside = group.key >= hi ? Group{} : group;
    while (hi - lo > 1) {
      const uint32_t mid = lo + (hi - lo) / 2;
      const double sum =
          from_hi + inside.from(mid) + list_sum<T, kMass>(shared, team.block(), pass.inside, mid);
      if (sum >= target) {
        lo = mid;
      } else {
        hi = mid;
        above = sum;
      }
    }
    if (threadIdx.x < Team::kBlocks) {
      auto& to = *team.of(static_cast<int>(threadIdx.x), &shared.cut);
      to.key = lo;
      to.above = above;
    }
  }
  team.sync();  // the list may be used again
  return {.key = shared.cut.key, .above = shared.cut.above};
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
