// Vec with 8 lanes; see vec.h.
#pragma once

#include <immintrin.h>

#include <cstdint>

#include "tensor/float8.h"
#include "tensor/half.h"

namespace mmcore::ops::simd {
namespace {

struct Mask {
  __m256 m;
};

struct Vec {
  static constexpr int kLanes = 8;
  __m256 v;

  static Vec zero() { return {_mm256_setzero_ps()}; }
  static Vec all(float f) { return {_mm256_set1_ps(f)}; }

  static Vec load(const float* p) { return {_mm256_loadu_ps(p)}; }
  static Vec load(const bf16* p) { return widen_bf16(_mm_loadu_si128((const __m128i*)p)); }
  static Vec load(const f16* p) { return {_mm256_cvtph_ps(_mm_loadu_si128((const __m128i*)p))}; }
  static Vec load(const f8e4m3* p) { return widen_e4m3(_mm_loadl_epi64((const __m128i*)p)); }
  static Vec load(const float* p, int n) { return {_mm256_maskload_ps(p, bits(n))}; }
  static Vec load(const bf16* p, int n) { return widen_bf16(load_halves(p, n)); }
  static Vec load(const f16* p, int n) { return {_mm256_cvtph_ps(load_halves(p, n))}; }

  static Vec load(const f8e4m3* p, int n) {
    uint64_t lanes = 0;
    for (int i = 0; i < n; ++i) lanes |= uint64_t{p[i].bits} << (8 * i);
    return widen_e4m3(_mm_cvtsi64_si128(static_cast<long long>(lanes)));
  }

  void store(float* p) const { _mm256_storeu_ps(p, v); }
  void store(bf16* p) const { _mm_storeu_si128((__m128i*)p, narrow_bf16()); }
  void store(f16* p) const { _mm_storeu_si128((__m128i*)p, narrow_f16()); }
  void store(f8e4m3* p) const { _mm_storel_epi64((__m128i*)p, narrow_e4m3()); }
  void store(float* p, int n) const { _mm256_maskstore_ps(p, bits(n), v); }
  void store(bf16* p, int n) const { store_halves(p, n, narrow_bf16()); }
  void store(f16* p, int n) const { store_halves(p, n, narrow_f16()); }

  void store(f8e4m3* p, int n) const {
    const auto lanes = static_cast<uint64_t>(_mm_cvtsi128_si64(narrow_e4m3()));
    for (int i = 0; i < n; ++i) p[i].bits = static_cast<uint8_t>(lanes >> (8 * i));
  }

  static __m256i bits(int n) {
    return _mm256_cmpgt_epi32(_mm256_set1_epi32(n), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
  }
  static Vec widen_bf16(__m128i h) {
    return {_mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(h), 16))};
  }
  template <class H>
  static __m128i load_halves(const H* p, int n) {  // AVX2 masks 32-bit lanes only
    alignas(16) uint16_t lanes[8] = {};
    for (int i = 0; i < n; ++i) lanes[i] = p[i].bits;
    return _mm_load_si128((const __m128i*)lanes);
  }
  template <class H>
  static void store_halves(H* p, int n, __m128i h) {
    alignas(16) uint16_t lanes[8];
    _mm_store_si128((__m128i*)lanes, h);
    for (int i = 0; i < n; ++i) p[i].bits = lanes[i];
  }
  __m128i narrow_f16() const {
    return _mm256_cvtps_ph(v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
  }
  /// The lower 8 bytes. By way of binary16 with exponents of 8 less, whose subnormals the hardware
  /// widens.
  static Vec widen_e4m3(__m128i bytes) {
    const __m128i x = _mm_cvtepu8_epi16(bytes);
    const __m128i magnitude = _mm_and_si128(x, _mm_set1_epi16(0x7f));
    const __m128i sign = _mm_slli_epi16(_mm_andnot_si128(_mm_set1_epi16(0x7f), x), 8);
    const __m128i nan = _mm_srli_epi16(_mm_cmpeq_epi16(magnitude, _mm_set1_epi16(0x7f)), 1);
    const __m128i half = _mm_or_si128(_mm_or_si128(_mm_slli_epi16(magnitude, 7), sign), nan);
    return {_mm256_mul_ps(_mm256_cvtph_ps(half), _mm256_set1_ps(256.0f))};
  }
  /// To the lower 8 bytes; as f8e4m3's constructor.
  __m128i narrow_e4m3() const {
    const __m256i u = _mm256_castps_si256(v);
    const __m256i a = _mm256_and_si256(u, _mm256_set1_epi32(0x7fffffff));
    const __m256i most = _mm256_min_epi32(a, _mm256_set1_epi32(0x43e00000));
    const __m256 shifted = _mm256_add_ps(_mm256_castsi256_ps(most), _mm256_set1_ps(16384.0f));
    const __m256i small =
        _mm256_sub_epi32(_mm256_castps_si256(shifted), _mm256_set1_epi32(0x46800000));
    const __m256i odd = _mm256_and_si256(_mm256_srli_epi32(most, 20), _mm256_set1_epi32(1));
    const __m256i up =
        _mm256_add_epi32(most, _mm256_add_epi32(odd, _mm256_set1_epi32(0x7ffff - 0x3c000000)));
    const __m256i is_small = _mm256_cmpgt_epi32(_mm256_set1_epi32(0x3c800000), most);
    __m256i r = _mm256_blendv_epi8(_mm256_srli_epi32(up, 20), small, is_small);
    r = _mm256_or_si256(r, _mm256_and_si256(_mm256_srli_epi32(u, 24), _mm256_set1_epi32(0x80)));
    const __m256i nan = _mm256_cmpgt_epi32(a, _mm256_set1_epi32(0x7f800000));
    r = _mm256_blendv_epi8(r, _mm256_set1_epi32(0x7f), nan);
    const __m128i words =
        _mm_packus_epi32(_mm256_castsi256_si128(r), _mm256_extracti128_si256(r, 1));
    return _mm_packus_epi16(words, words);
  }
  /// Rounds to nearest even; NaN stays NaN.
  __m128i narrow_bf16() const {
    const __m256i u = _mm256_castps_si256(v);
    const __m256i odd = _mm256_and_si256(_mm256_srli_epi32(u, 16), _mm256_set1_epi32(1));
    const __m256i up = _mm256_add_epi32(u, _mm256_add_epi32(odd, _mm256_set1_epi32(0x7fff)));
    const __m256i quiet = _mm256_or_si256(u, _mm256_set1_epi32(0x400000));
    const __m256i nan = _mm256_castps_si256(_mm256_cmp_ps(v, v, _CMP_UNORD_Q));
    const __m256i r = _mm256_srli_epi32(_mm256_blendv_epi8(up, quiet, nan), 16);
    return _mm_packus_epi32(_mm256_castsi256_si128(r), _mm256_extracti128_si256(r, 1));
  }
};

inline Vec operator+(Vec a, Vec b) { return {_mm256_add_ps(a.v, b.v)}; }
inline Vec operator-(Vec a, Vec b) { return {_mm256_sub_ps(a.v, b.v)}; }
inline Vec operator*(Vec a, Vec b) { return {_mm256_mul_ps(a.v, b.v)}; }
inline Vec operator/(Vec a, Vec b) { return {_mm256_div_ps(a.v, b.v)}; }
inline Vec operator-(Vec a) { return {_mm256_xor_ps(a.v, _mm256_set1_ps(-0.0f))}; }
inline Vec fma(Vec a, Vec b, Vec c) { return {_mm256_fmadd_ps(a.v, b.v, c.v)}; }
inline Vec fnma(Vec a, Vec b, Vec c) { return {_mm256_fnmadd_ps(a.v, b.v, c.v)}; }
/// Of a NaN and a number: `b`, whichever it is.
inline Vec min(Vec a, Vec b) { return {_mm256_min_ps(a.v, b.v)}; }
inline Vec max(Vec a, Vec b) { return {_mm256_max_ps(a.v, b.v)}; }
inline Vec abs(Vec a) { return {_mm256_andnot_ps(_mm256_set1_ps(-0.0f), a.v)}; }
inline Vec sqrt(Vec a) { return {_mm256_sqrt_ps(a.v)}; }
inline Vec round(Vec a) {
  return {_mm256_round_ps(a.v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC)};
}
/// Two factors, because 2^n alone may not be a float where x 2^n is; -252 <= n <= 254.
inline Vec ldexp(Vec x, Vec n) {
  const __m256i i = _mm256_cvtps_epi32(n.v);
  const __m256i half = _mm256_srai_epi32(i, 1);
  const __m256i bias = _mm256_set1_epi32(127);
  const __m256i a = _mm256_slli_epi32(_mm256_add_epi32(half, bias), 23);
  const __m256i b = _mm256_slli_epi32(_mm256_add_epi32(_mm256_sub_epi32(i, half), bias), 23);
  return {_mm256_mul_ps(_mm256_mul_ps(x.v, _mm256_castsi256_ps(a)), _mm256_castsi256_ps(b))};
}
/// As bits: shifted left by 23, from the last places of a float to its exponent.
inline Vec to_exponent(Vec a) {
  return {_mm256_castsi256_ps(_mm256_slli_epi32(_mm256_castps_si256(a.v), 23))};
}
/// a, but 0 where x < limit; a NaN is not.
inline Vec zero_below(Vec a, Vec x, Vec limit) {
  return {_mm256_and_ps(a.v, _mm256_cmp_ps(x.v, limit.v, _CMP_NLT_UQ))};
}
/// The lower and the upper bfloat16 of each lane, widened.
inline Vec low_bf16(Vec a) {
  return {_mm256_castsi256_ps(_mm256_slli_epi32(_mm256_castps_si256(a.v), 16))};
}
inline Vec high_bf16(Vec a) {
  const __m256i mask = _mm256_set1_epi32(static_cast<int>(0xffff0000u));
  return {_mm256_castsi256_ps(_mm256_and_si256(_mm256_castps_si256(a.v), mask))};
}
inline float first(Vec a) { return _mm256_cvtss_f32(a.v); }
inline float sum(Vec a) {
  __m128 s = _mm_add_ps(_mm256_castps256_ps128(a.v), _mm256_extractf128_ps(a.v, 1));
  s = _mm_add_ps(s, _mm_movehl_ps(s, s));
  return _mm_cvtss_f32(_mm_add_ss(s, _mm_movehdup_ps(s)));
}
inline float max_lane(Vec a) {
  __m128 s = _mm_max_ps(_mm256_castps256_ps128(a.v), _mm256_extractf128_ps(a.v, 1));
  s = _mm_max_ps(s, _mm_movehl_ps(s, s));
  return _mm_cvtss_f32(_mm_max_ss(s, _mm_movehdup_ps(s)));
}

inline Mask operator<(Vec a, Vec b) { return {_mm256_cmp_ps(a.v, b.v, _CMP_LT_OQ)}; }
inline Mask operator<=(Vec a, Vec b) { return {_mm256_cmp_ps(a.v, b.v, _CMP_LE_OQ)}; }
inline Mask operator>(Vec a, Vec b) { return {_mm256_cmp_ps(a.v, b.v, _CMP_GT_OQ)}; }
inline Mask operator==(Vec a, Vec b) { return {_mm256_cmp_ps(a.v, b.v, _CMP_EQ_OQ)}; }
inline Mask first_lanes(int n) { return {_mm256_castsi256_ps(Vec::bits(n))}; }
inline Vec select(Mask m, Vec a, Vec b) { return {_mm256_blendv_ps(b.v, a.v, m.m)}; }

/// Lanes 2 i and 2 i + 1 change places.
inline Vec swap_pairs(Vec a) { return {_mm256_permute_ps(a.v, 0xb1)}; }

/// p[0..3] = the sums of a, b, c, d.
inline void store_sums(float* p, Vec a, Vec b, Vec c, Vec d) {
  const __m256 ab = _mm256_add_ps(_mm256_unpacklo_ps(a.v, b.v), _mm256_unpackhi_ps(a.v, b.v));
  const __m256 cd = _mm256_add_ps(_mm256_unpacklo_ps(c.v, d.v), _mm256_unpackhi_ps(c.v, d.v));
  const __m256 abcd = _mm256_add_ps(
      _mm256_castpd_ps(_mm256_unpacklo_pd(_mm256_castps_pd(ab), _mm256_castps_pd(cd))),
      _mm256_castpd_ps(_mm256_unpackhi_pd(_mm256_castps_pd(ab), _mm256_castps_pd(cd))));
  _mm_storeu_ps(p, _mm_add_ps(_mm256_castps256_ps128(abcd), _mm256_extractf128_ps(abcd, 1)));
}

/// Lane i of row j becomes lane j of row i.
inline void transpose(Vec (&rows)[8]) {
  __m256 quads[8];  // [4 g + c] lane group L: column 4 L + c of rows 4 g to 4 g + 3
#pragma GCC unroll 2
  for (int g = 0; g < 2; ++g) {
    const __m256 lo01 = _mm256_unpacklo_ps(rows[4 * g].v, rows[4 * g + 1].v);
    const __m256 hi01 = _mm256_unpackhi_ps(rows[4 * g].v, rows[4 * g + 1].v);
    const __m256 lo23 = _mm256_unpacklo_ps(rows[4 * g + 2].v, rows[4 * g + 3].v);
    const __m256 hi23 = _mm256_unpackhi_ps(rows[4 * g + 2].v, rows[4 * g + 3].v);
    quads[4 * g] = _mm256_shuffle_ps(lo01, lo23, 0x44);
    quads[4 * g + 1] = _mm256_shuffle_ps(lo01, lo23, 0xee);
    quads[4 * g + 2] = _mm256_shuffle_ps(hi01, hi23, 0x44);
    quads[4 * g + 3] = _mm256_shuffle_ps(hi01, hi23, 0xee);
  }
#pragma GCC unroll 4
  for (int c = 0; c < 4; ++c) {
    rows[c].v = _mm256_permute2f128_ps(quads[c], quads[4 + c], 0x20);
    rows[4 + c].v = _mm256_permute2f128_ps(quads[c], quads[4 + c], 0x31);
  }
}

/// out[i] lane j = rows[j][offset + i], from 8 rows of 8 floats: a transposition.
inline void load_transposed(const float* const* rows, int64_t offset, Vec (&out)[8]) {
#pragma GCC unroll 2
  for (int c = 0; c < 2; ++c) {
    __m256 half[4];  // [g] lane group L: columns 4 c to 4 c + 3 of row g + 4 L
#pragma GCC unroll 4
    for (int g = 0; g < 4; ++g) {
      const auto part = [&](int row) { return _mm_loadu_ps(rows[row] + offset + 4 * c); };
      half[g] = _mm256_insertf128_ps(_mm256_castps128_ps256(part(g)), part(g + 4), 1);
    }
    const __m256 lo01 = _mm256_unpacklo_ps(half[0], half[1]);
    const __m256 hi01 = _mm256_unpackhi_ps(half[0], half[1]);
    const __m256 lo23 = _mm256_unpacklo_ps(half[2], half[3]);
    const __m256 hi23 = _mm256_unpackhi_ps(half[2], half[3]);
    out[4 * c].v = _mm256_shuffle_ps(lo01, lo23, 0x44);
    out[4 * c + 1].v = _mm256_shuffle_ps(lo01, lo23, 0xee);
    out[4 * c + 2].v = _mm256_shuffle_ps(hi01, hi23, 0x44);
    out[4 * c + 3].v = _mm256_shuffle_ps(hi01, hi23, 0xee);
  }
}

}  // namespace
}  // namespace mmcore::ops::simd
