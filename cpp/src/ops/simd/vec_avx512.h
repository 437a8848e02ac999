// Vec with 16 lanes; see vec.h.
#pragma once

#include <immintrin.h>

#include <cstdint>

#include "tensor/float8.h"
#include "tensor/half.h"

namespace mmcore::ops::simd {
namespace {

struct Mask {
  __mmask16 m;
};

struct Vec {
  static constexpr int kLanes = 16;
  __m512 v;

  static Vec zero() { return {_mm512_setzero_ps()}; }
  static Vec all(float f) { return {_mm512_set1_ps(f)}; }

  static Vec load(const float* p) { return {_mm512_loadu_ps(p)}; }
  static Vec load(const bf16* p) { return widen_bf16(_mm256_loadu_si256((const __m256i*)p)); }
  static Vec load(const f16* p) { return {_mm512_cvtph_ps(_mm256_loadu_si256((const __m256i*)p))}; }
  static Vec load(const f8e4m3* p) { return widen_e4m3(_mm_loadu_si128((const __m128i*)p)); }
  static Vec load(const float* p, int n) { return {_mm512_maskz_loadu_ps(bits(n), p)}; }
  static Vec load(const bf16* p, int n) { return widen_bf16(_mm256_maskz_loadu_epi16(bits(n), p)); }
  static Vec load(const f16* p, int n) {
    return {_mm512_cvtph_ps(_mm256_maskz_loadu_epi16(bits(n), p))};
  }

  static Vec load(const f8e4m3* p, int n) { return widen_e4m3(_mm_maskz_loadu_epi8(bits(n), p)); }

  void store(float* p) const { _mm512_storeu_ps(p, v); }
  void store(bf16* p) const { _mm256_storeu_si256((__m256i*)p, narrow_bf16()); }
  void store(f16* p) const { _mm256_storeu_si256((__m256i*)p, narrow_f16()); }
  void store(f8e4m3* p) const { _mm_storeu_si128((__m128i*)p, narrow_e4m3()); }
  void store(float* p, int n) const { _mm512_mask_storeu_ps(p, bits(n), v); }
  void store(bf16* p, int n) const { _mm256_mask_storeu_epi16(p, bits(n), narrow_bf16()); }
  void store(f16* p, int n) const { _mm256_mask_storeu_epi16(p, bits(n), narrow_f16()); }

  void store(f8e4m3* p, int n) const { _mm_mask_storeu_epi8(p, bits(n), narrow_e4m3()); }

  static __mmask16 bits(int n) { return static_cast<__mmask16>((1u << n) - 1u); }
  static Vec widen_bf16(__m256i h) {
    return {_mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(h), 16))};
  }
  __m256i narrow_f16() const {
    return _mm512_cvtps_ph(v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
  }
  /// By way of binary16 with exponents of 8 less, whose subnormals the hardware widens.
  static Vec widen_e4m3(__m128i bytes) {
    const __m256i x = _mm256_cvtepu8_epi16(bytes);
    const __m256i magnitude = _mm256_and_si256(x, _mm256_set1_epi16(0x7f));
    const __m256i sign = _mm256_slli_epi16(_mm256_andnot_si256(_mm256_set1_epi16(0x7f), x), 8);
    const __m256i nan =
        _mm256_srli_epi16(_mm256_cmpeq_epi16(magnitude, _mm256_set1_epi16(0x7f)), 1);
    const __m256i half =
        _mm256_or_si256(_mm256_or_si256(_mm256_slli_epi16(magnitude, 7), sign), nan);
    return {_mm512_mul_ps(_mm512_cvtph_ps(half), _mm512_set1_ps(256.0f))};
  }
  /// As f8e4m3's constructor.
  __m128i narrow_e4m3() const {
    const __m512i u = _mm512_castps_si512(v);
    const __m512i a = _mm512_and_si512(u, _mm512_set1_epi32(0x7fffffff));
    const __m512i most = _mm512_min_epi32(a, _mm512_set1_epi32(0x43e00000));
    const __m512 shifted = _mm512_add_ps(_mm512_castsi512_ps(most), _mm512_set1_ps(16384.0f));
    const __m512i small =
        _mm512_sub_epi32(_mm512_castps_si512(shifted), _mm512_set1_epi32(0x46800000));
    const __m512i odd = _mm512_and_si512(_mm512_srli_epi32(most, 20), _mm512_set1_epi32(1));
    const __m512i up =
        _mm512_add_epi32(most, _mm512_add_epi32(odd, _mm512_set1_epi32(0x7ffff - 0x3c000000)));
    const __mmask16 is_small = _mm512_cmplt_epi32_mask(most, _mm512_set1_epi32(0x3c800000));
    __m512i r = _mm512_mask_mov_epi32(_mm512_srli_epi32(up, 20), is_small, small);
    r = _mm512_or_si512(r, _mm512_and_si512(_mm512_srli_epi32(u, 24), _mm512_set1_epi32(0x80)));
    const __mmask16 nan = _mm512_cmpgt_epi32_mask(a, _mm512_set1_epi32(0x7f800000));
    return _mm512_cvtepi32_epi8(_mm512_mask_mov_epi32(r, nan, _mm512_set1_epi32(0x7f)));
  }
  /// Rounds to nearest even; NaN stays NaN. Not vcvtneps2bf16: that flushes subnormals to zero.
  __m256i narrow_bf16() const {
    const __m512i u = _mm512_castps_si512(v);
    const __m512i odd = _mm512_and_si512(_mm512_srli_epi32(u, 16), _mm512_set1_epi32(1));
    const __m512i up = _mm512_add_epi32(u, _mm512_add_epi32(odd, _mm512_set1_epi32(0x7fff)));
    const __m512i quiet = _mm512_or_si512(u, _mm512_set1_epi32(0x400000));
    const __mmask16 nan = _mm512_cmp_ps_mask(v, v, _CMP_UNORD_Q);
    return _mm512_cvtepi32_epi16(_mm512_srli_epi32(_mm512_mask_mov_epi32(up, nan, quiet), 16));
  }
};

inline Vec operator+(Vec a, Vec b) { return {_mm512_add_ps(a.v, b.v)}; }
inline Vec operator-(Vec a, Vec b) { return {_mm512_sub_ps(a.v, b.v)}; }
inline Vec operator*(Vec a, Vec b) { return {_mm512_mul_ps(a.v, b.v)}; }
inline Vec operator/(Vec a, Vec b) { return {_mm512_div_ps(a.v, b.v)}; }
inline Vec operator-(Vec a) { return {_mm512_xor_ps(a.v, _mm512_set1_ps(-0.0f))}; }
inline Vec fma(Vec a, Vec b, Vec c) { return {_mm512_fmadd_ps(a.v, b.v, c.v)}; }
inline Vec fnma(Vec a, Vec b, Vec c) { return {_mm512_fnmadd_ps(a.v, b.v, c.v)}; }
/// Of a NaN and a number: `b`, whichever it is.
inline Vec min(Vec a, Vec b) { return {_mm512_min_ps(a.v, b.v)}; }
inline Vec max(Vec a, Vec b) { return {_mm512_max_ps(a.v, b.v)}; }
inline Vec abs(Vec a) { return {_mm512_abs_ps(a.v)}; }
inline Vec sqrt(Vec a) { return {_mm512_sqrt_ps(a.v)}; }
inline Vec round(Vec a) {
  return {_mm512_roundscale_ps(a.v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC)};
}
inline Vec ldexp(Vec x, Vec n) { return {_mm512_scalef_ps(x.v, n.v)}; }
/// As bits: shifted left by 23, from the last places of a float to its exponent.
inline Vec to_exponent(Vec a) {
  return {_mm512_castsi512_ps(_mm512_slli_epi32(_mm512_castps_si512(a.v), 23))};
}
/// a, but 0 where x < limit; a NaN is not.
inline Vec zero_below(Vec a, Vec x, Vec limit) {
  return {_mm512_maskz_mov_ps(_mm512_cmp_ps_mask(x.v, limit.v, _CMP_NLT_UQ), a.v)};
}
/// The lower and the upper bfloat16 of each lane, widened.
inline Vec low_bf16(Vec a) {
  return {_mm512_castsi512_ps(_mm512_slli_epi32(_mm512_castps_si512(a.v), 16))};
}
inline Vec high_bf16(Vec a) {
  const __m512i mask = _mm512_set1_epi32(static_cast<int>(0xffff0000u));
  return {_mm512_castsi512_ps(_mm512_and_si512(_mm512_castps_si512(a.v), mask))};
}
inline float first(Vec a) { return _mm512_cvtss_f32(a.v); }
inline float sum(Vec a) { return _mm512_reduce_add_ps(a.v); }
inline float max_lane(Vec a) { return _mm512_reduce_max_ps(a.v); }

inline Mask operator<(Vec a, Vec b) { return {_mm512_cmp_ps_mask(a.v, b.v, _CMP_LT_OQ)}; }
inline Mask operator<=(Vec a, Vec b) { return {_mm512_cmp_ps_mask(a.v, b.v, _CMP_LE_OQ)}; }
inline Mask operator>(Vec a, Vec b) { return {_mm512_cmp_ps_mask(a.v, b.v, _CMP_GT_OQ)}; }
inline Mask operator==(Vec a, Vec b) { return {_mm512_cmp_ps_mask(a.v, b.v, _CMP_EQ_OQ)}; }
inline Mask first_lanes(int n) { return {Vec::bits(n)}; }
inline Vec select(Mask m, Vec a, Vec b) { return {_mm512_mask_blend_ps(m.m, b.v, a.v)}; }

/// Lanes 2 i and 2 i + 1 change places.
inline Vec swap_pairs(Vec a) { return {_mm512_permute_ps(a.v, 0xb1)}; }

/// p[0..3] = the sums of a, b, c, d.
inline void store_sums(float* p, Vec a, Vec b, Vec c, Vec d) {
  const __m512 ab = _mm512_add_ps(_mm512_unpacklo_ps(a.v, b.v), _mm512_unpackhi_ps(a.v, b.v));
  const __m512 cd = _mm512_add_ps(_mm512_unpacklo_ps(c.v, d.v), _mm512_unpackhi_ps(c.v, d.v));
  const __m512 abcd = _mm512_add_ps(
      _mm512_castpd_ps(_mm512_unpacklo_pd(_mm512_castps_pd(ab), _mm512_castps_pd(cd))),
      _mm512_castpd_ps(_mm512_unpackhi_pd(_mm512_castps_pd(ab), _mm512_castps_pd(cd))));
  const __m256 half = _mm256_add_ps(_mm512_castps512_ps256(abcd), _mm512_extractf32x8_ps(abcd, 1));
  _mm_storeu_ps(p, _mm_add_ps(_mm256_castps256_ps128(half), _mm256_extractf128_ps(half, 1)));
}

/// Lane i of row j becomes lane j of row i.
inline void transpose(Vec (&rows)[16]) {
  __m512 quads[16];  // [4 g + c] lane group L: column 4 L + c of rows 4 g to 4 g + 3
#pragma GCC unroll 4
  for (int g = 0; g < 4; ++g) {
    const __m512 lo01 = _mm512_unpacklo_ps(rows[4 * g].v, rows[4 * g + 1].v);
    const __m512 hi01 = _mm512_unpackhi_ps(rows[4 * g].v, rows[4 * g + 1].v);
    const __m512 lo23 = _mm512_unpacklo_ps(rows[4 * g + 2].v, rows[4 * g + 3].v);
    const __m512 hi23 = _mm512_unpackhi_ps(rows[4 * g + 2].v, rows[4 * g + 3].v);
    const auto pairs = [](__m512 x, __m512 y, bool high) {
      const __m512d a = _mm512_castps_pd(x);
      const __m512d b = _mm512_castps_pd(y);
      return _mm512_castpd_ps(high ? _mm512_unpackhi_pd(a, b) : _mm512_unpacklo_pd(a, b));
    };
    quads[4 * g] = pairs(lo01, lo23, false);
    quads[4 * g + 1] = pairs(lo01, lo23, true);
    quads[4 * g + 2] = pairs(hi01, hi23, false);
    quads[4 * g + 3] = pairs(hi01, hi23, true);
  }
#pragma GCC unroll 4
  for (int c = 0; c < 4; ++c) {
    const __m512 even01 = _mm512_shuffle_f32x4(quads[c], quads[4 + c], 0x88);
    const __m512 even23 = _mm512_shuffle_f32x4(quads[8 + c], quads[12 + c], 0x88);
    const __m512 odd01 = _mm512_shuffle_f32x4(quads[c], quads[4 + c], 0xdd);
    const __m512 odd23 = _mm512_shuffle_f32x4(quads[8 + c], quads[12 + c], 0xdd);
    rows[c].v = _mm512_shuffle_f32x4(even01, even23, 0x88);
    rows[4 + c].v = _mm512_shuffle_f32x4(odd01, odd23, 0x88);
    rows[8 + c].v = _mm512_shuffle_f32x4(even01, even23, 0xdd);
    rows[12 + c].v = _mm512_shuffle_f32x4(odd01, odd23, 0xdd);
  }
}

/// out[i] lane j = rows[j][offset + i], from 16 rows of 16 floats: a transposition.
inline void load_transposed(const float* const* rows, int64_t offset, Vec (&out)[16]) {
  // Four rows' quarters meet in the lane groups of one register on the way from memory, which is
  // half of the transposition; two rounds of unpacking inside the groups are the rest. One row
  // after the other: rows 4 KiB apart share a set of the cache, and 16 of them do not fit in it.
  __m512 quarter[4][4];  // [c][g] lane group L: columns 4 c to 4 c + 3 of row g + 4 L
#pragma GCC unroll 4
  for (int g = 0; g < 4; ++g) {
#pragma GCC unroll 4
    for (int c = 0; c < 4; ++c) {
      quarter[c][g] = _mm512_castps128_ps512(_mm_loadu_ps(rows[g] + offset + 4 * c));
    }
#pragma GCC unroll 4
    for (int c = 0; c < 4; ++c) {
      const float* p = rows[g + 4] + offset + 4 * c;
      quarter[c][g] = _mm512_insertf32x4(quarter[c][g], _mm_loadu_ps(p), 1);
    }
#pragma GCC unroll 4
    for (int c = 0; c < 4; ++c) {
      const float* p = rows[g + 8] + offset + 4 * c;
      quarter[c][g] = _mm512_insertf32x4(quarter[c][g], _mm_loadu_ps(p), 2);
    }
#pragma GCC unroll 4
    for (int c = 0; c < 4; ++c) {
      const float* p = rows[g + 12] + offset + 4 * c;
      quarter[c][g] = _mm512_insertf32x4(quarter[c][g], _mm_loadu_ps(p), 3);
    }
  }
#pragma GCC unroll 4
  for (int c = 0; c < 4; ++c) {
    const __m512d lo01 = _mm512_castps_pd(_mm512_unpacklo_ps(quarter[c][0], quarter[c][1]));
    const __m512d hi01 = _mm512_castps_pd(_mm512_unpackhi_ps(quarter[c][0], quarter[c][1]));
    const __m512d lo23 = _mm512_castps_pd(_mm512_unpacklo_ps(quarter[c][2], quarter[c][3]));
    const __m512d hi23 = _mm512_castps_pd(_mm512_unpackhi_ps(quarter[c][2], quarter[c][3]));
    out[4 * c].v = _mm512_castpd_ps(_mm512_unpacklo_pd(lo01, lo23));
    out[4 * c + 1].v = _mm512_castpd_ps(_mm512_unpackhi_pd(lo01, lo23));
    out[4 * c + 2].v = _mm512_castpd_ps(_mm512_unpacklo_pd(hi01, hi23));
    out[4 * c + 3].v = _mm512_castpd_ps(_mm512_unpackhi_pd(hi01, hi23));
  }
}

}  // namespace
}  // namespace mmcore::ops::simd
