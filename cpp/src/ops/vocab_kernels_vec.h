// The vocabulary passes on Vec; for translation units of one instruction set (see ops/simd/vec.h).
#pragma once

#include "ops/simd/math.h"
#include "ops/vocab_kernels.h"

namespace mmcore::ops::simd {
namespace {

#if defined(__AVX512F__)
inline uint32_t lane_bits(Mask m) { return m.m; }
/// Writes first + i for each bit i, and anything behind them up to kLanes in all.
inline void store_indices(int32_t first, uint32_t bits, int32_t* ids) {
  const __m512i lanes = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
  const __m512i all = _mm512_add_epi32(_mm512_set1_epi32(first), lanes);
  _mm512_storeu_si512(ids, _mm512_maskz_compress_epi32(static_cast<__mmask16>(bits), all));
}
/// Adds the lanes in float64.
inline double exact_sum(Vec a, Vec b, Vec c, Vec d) {
  const auto halves = [](Vec v) {
    const __m512d low = _mm512_cvtps_pd(_mm512_castps512_ps256(v.v));
    return _mm512_add_pd(low, _mm512_cvtps_pd(_mm512_extractf32x8_ps(v.v, 1)));
  };
  return _mm512_reduce_add_pd(
      _mm512_add_pd(_mm512_add_pd(halves(a), halves(b)), _mm512_add_pd(halves(c), halves(d))));
}
#else
inline uint32_t lane_bits(Mask m) { return static_cast<uint32_t>(_mm256_movemask_ps(m.m)); }
inline void store_indices(int32_t first, uint32_t bits, int32_t* ids) {
  for (; bits != 0; bits &= bits - 1) *ids++ = first + __builtin_ctz(bits);
}
inline double exact_sum(Vec a, Vec b, Vec c, Vec d) {
  const auto halves = [](Vec v) {
    const __m256d low = _mm256_cvtps_pd(_mm256_castps256_ps128(v.v));
    return _mm256_add_pd(low, _mm256_cvtps_pd(_mm256_extractf128_ps(v.v, 1)));
  };
  const __m256d s =
      _mm256_add_pd(_mm256_add_pd(halves(a), halves(b)), _mm256_add_pd(halves(c), halves(d)));
  const __m128d t = _mm_add_pd(_mm256_castpd256_pd128(s), _mm256_extractf128_pd(s, 1));
  return _mm_cvtsd_f64(_mm_add_sd(t, _mm_unpackhi_pd(t, t)));
}
#endif

constexpr float kMinusInfinity = -__builtin_inff();

/// A block's vectors, `kVocabBlock / kLanes` of them; lanes from n on are -inf.
struct Block {
  static constexpr int kVecs = static_cast<int>(kVocabBlock) / Vec::kLanes;
  Vec v[kVecs];
};

template <class T>
[[gnu::always_inline]] inline Block load_block(const T* p, int64_t n) {
  Block b;
#pragma GCC unroll 8
  for (int j = 0; j < Block::kVecs; ++j) {
    const int64_t left = n - int64_t{j} * Vec::kLanes;
    if (left >= Vec::kLanes) {
      b.v[j] = Vec::load(p + j * Vec::kLanes);
    } else {
      const int lanes = left > 0 ? static_cast<int>(left) : 0;
      const Vec part = lanes > 0 ? Vec::load(p + j * Vec::kLanes, lanes) : Vec::zero();
      b.v[j] = select(first_lanes(lanes), part, Vec::all(kMinusInfinity));
    }
  }
  return b;
}

[[gnu::always_inline]] inline void store_block(const Block& b, float* p, int64_t n) {
#pragma GCC unroll 8
  for (int j = 0; j < Block::kVecs; ++j) {
    const int64_t left = n - int64_t{j} * Vec::kLanes;
    if (left >= Vec::kLanes) {
      b.v[j].store(p + j * Vec::kLanes);
    } else if (left > 0) {
      b.v[j].store(p + j * Vec::kLanes, static_cast<int>(left));
    }
  }
}

/// In float64.
[[gnu::always_inline]] inline double sum_of(const Block& b) {
  double sum = 0.0;
#pragma GCC unroll 2
  for (int j = 0; j < Block::kVecs; j += 4)
    sum += exact_sum(b.v[j], b.v[j + 1], b.v[j + 2], b.v[j + 3]);
  return sum;
}

template <class T>
bool load_row_loop(const T* logits, int64_t n, float* row, float* block_max) {
  constexpr uint32_t kAll = (1u << Vec::kLanes) - 1u;
  uint32_t numbers = kAll;
  for (int64_t begin = 0; begin < n; begin += kVocabBlock) {
    const Block b = load_block(logits + begin, n - begin);
    store_block(b, row + begin, n - begin);
    Vec top = b.v[0];
#pragma GCC unroll 8
    for (int j = 0; j < Block::kVecs; ++j) {
      numbers &= lane_bits(b.v[j] == b.v[j]);
      top = max(top, b.v[j]);
    }
    block_max[begin / kVocabBlock] = max_lane(top);
  }
  return numbers == kAll;
}

inline void weigh(const float* row, int64_t n, float max, float inverse_temperature, float* weights,
                  double* block_sum) {
  const Vec top = Vec::all(max);
  const Vec scale = Vec::all(inverse_temperature);
  for (int64_t begin = 0; begin < n; begin += kVocabBlock) {
    Block b = load_block(row + begin, n - begin);
#pragma GCC unroll 8
    for (int j = 0; j < Block::kVecs; ++j)
      b.v[j] = select(b.v[j] == top, Vec::all(1.0f), exp((b.v[j] - top) * scale));
    if (weights != nullptr) store_block(b, weights + begin, n - begin);
    block_sum[begin / kVocabBlock] = sum_of(b);
  }
}

inline int64_t select_from(const float* row, int64_t n, float threshold, int32_t* ids) {
  const Vec least = Vec::all(threshold);
  int64_t count = 0;
  for (int64_t begin = 0; begin < n; begin += Vec::kLanes) {
    const int lanes = n - begin < Vec::kLanes ? static_cast<int>(n - begin) : Vec::kLanes;
    const Vec v = lanes == Vec::kLanes ? Vec::load(row + begin) : Vec::load(row + begin, lanes);
    const uint32_t hits = lane_bits(least <= v) & ((1u << lanes) - 1u);
    store_indices(static_cast<int32_t>(begin), hits, ids + count);
    count += __builtin_popcount(hits);
  }
  return count;
}

inline double sum_from(const float* weights, int64_t n, float threshold) {
  const Vec least = Vec::all(threshold);
  double sum = 0.0;
  for (int64_t begin = 0; begin < n; begin += kVocabBlock) {
    Block b = load_block(weights + begin, n - begin);
#pragma GCC unroll 8
    for (int j = 0; j < Block::kVecs; ++j) b.v[j] = select(least <= b.v[j], b.v[j], Vec::zero());
    sum += sum_of(b);
  }
  return sum;
}

inline int64_t count_above(const float* row, int64_t n, float value, bool or_equal) {
  const Vec limit = Vec::all(value);
  int64_t count = 0;
  for (int64_t begin = 0; begin < n; begin += Vec::kLanes) {
    const int lanes = n - begin < Vec::kLanes ? static_cast<int>(n - begin) : Vec::kLanes;
    const Vec v = lanes == Vec::kLanes ? Vec::load(row + begin) : Vec::load(row + begin, lanes);
    const uint32_t hits = lane_bits(or_equal ? limit <= v : limit < v) & ((1u << lanes) - 1u);
    count += __builtin_popcount(hits);
  }
  return count;
}

}  // namespace
}  // namespace mmcore::ops::simd
