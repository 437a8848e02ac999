// Few tokens: k is the lanes, the weights stream through once. For translation units of one
// instruction set (see ops/simd/vec.h); linear_kernels.h has the layouts.
#pragma once

#include "ops/linear_units_vec.h"

namespace mmcore::ops::simd {
namespace {

constexpr int64_t kRowTokens = 8;
constexpr int kRowGroup = 4;
constexpr int kTokenGroup = kLanes == 16 ? 4 : 2;  // tokens that a vector of weights meets
constexpr int64_t kRowUnits = 1024;                // part of k between two additions of lanes
constexpr int64_t kRowStrip = 64;                  // results collected before they are finished

template <class M>
int64_t row_units(int64_t k) {
  return round_up(units_of<M>(k), kLanes);
}

template <class M>
void pack_rows(const LinearProblem& p, float* packed) {
  using T = typename M::Element;
  const int64_t units = row_units<M>(p.k);
  for (int64_t i = 0; i < p.tokens; ++i)
    copy_units<M>(x_row<T>(p, i), p.k, 0, units, packed + i * units);
}

/// Weight rows that stream side by side.
template <class T>
struct RowGroup {
  const T* w[kRowGroup];
  int64_t k;      // elements of a row
  int64_t ahead;  // elements from a row to the one that is asked for meanwhile
};

/// sums[t][0 .. 3] (+)= a group's rows times tokens t < kTokens, over units [u0, u1). Token t's
/// units are at x + t * stride, its sums at sums + t * kRowStrip.
template <class M, int kTokens>
void dot(const RowGroup<typename M::Element>& g, const float* x, int64_t stride, int64_t u0,
         int64_t u1, float* sums) {
  Vec c[kTokens][kRowGroup];
#pragma GCC unroll 4
  for (int t = 0; t < kTokens; ++t) {
#pragma GCC unroll 4
    for (int r = 0; r < kRowGroup; ++r) c[t][r] = Vec::zero();
  }
  const auto step = [&](int64_t u, auto load) __attribute__((always_inline)) {
    Vec ws[kRowGroup];
#pragma GCC unroll 4
    for (int r = 0; r < kRowGroup; ++r) {
      ws[r] = load(g.w[r]);
      _mm_prefetch(reinterpret_cast<const char*>(g.w[r] + u * M::kPair + g.ahead), _MM_HINT_T1);
    }
#pragma GCC unroll 4
    for (int t = 0; t < kTokens; ++t) {
      const Vec xs = Vec::load(x + t * stride + u);
#pragma GCC unroll 4
      for (int r = 0; r < kRowGroup; ++r) c[t][r] = M::mul_add(ws[r], xs, c[t][r]);
    }
  };
  const int64_t whole = least(u1, g.k / M::kPair / kLanes * kLanes);
  int64_t u = u0;
  for (; u < whole; u += kLanes)
    step(u, [u](const auto* row) { return M::load(row + u * M::kPair); });
  if (u < u1) step(u, [u, k = g.k](const auto* row) { return load_units<M>(row, u, k); });
#pragma GCC unroll 4
  for (int t = 0; t < kTokens; ++t) {
    float part[kRowGroup];
    store_sums(part, c[t][0], c[t][1], c[t][2], c[t][3]);
    for (int r = 0; r < kRowGroup; ++r)
      sums[t * kRowStrip + r] = u0 == 0 ? part[r] : sums[t * kRowStrip + r] + part[r];
  }
}

/// A group's rows times all tokens.
template <class M>
void dot_all(RowGroup<typename M::Element> g, int64_t tokens, const float* packed, float* sums) {
  const int64_t units = row_units<M>(g.k);
  const int64_t ahead = g.ahead;
  for (int64_t u0 = 0; u0 < units; u0 += kRowUnits) {
    const int64_t u1 = least(units, u0 + kRowUnits);
    for (int64_t t = 0; t < tokens; t += kTokenGroup) {
      g.ahead = t == 0 ? ahead : 0;
      const float* x = packed + t * units;
      float* s = sums + t * kRowStrip;
      switch (least(kTokenGroup, tokens - t)) {
        case 1:
          dot<M, 1>(g, x, units, u0, u1, s);
          break;
        case 2:
          dot<M, 2>(g, x, units, u0, u1, s);
          break;
        case 3:
          dot<M, kTokenGroup == 4 ? 3 : 1>(g, x, units, u0, u1, s);
          break;
        default:
          dot<M, kTokenGroup>(g, x, units, u0, u1, s);
      }
    }
  }
}

template <class M>
void run_rows(const LinearProblem& p, const float* packed, int64_t begin, int64_t end) {
  using T = typename M::Element;
  float sums[kRowTokens][kRowStrip];
  for (int64_t n0 = begin; n0 < end; n0 += kRowStrip) {
    const int64_t n1 = least(end, n0 + kRowStrip);
    for (int64_t n = n0; n < n1; n += kRowGroup) {
      RowGroup<T> g{
          .w = {}, .k = p.k, .ahead = n + 2 * kRowGroup <= p.n ? kRowGroup * p.w_stride : 0};
      // The last row stands in for rows beyond the end.
      for (int64_t r = 0; r < kRowGroup; ++r) g.w[r] = w_row<T>(p, least(n + r, n1 - 1));
      dot_all<M>(g, p.tokens, packed, &sums[0][n - n0]);
    }
    for (int64_t i = 0; i < p.tokens; ++i) {
      for (int64_t n = n0; n < n1; n += kLanes)
        finish<M>(p, Vec::load(&sums[i][n - n0]), out_row<T>(p, i), n, n1);
    }
  }
}

}  // namespace
}  // namespace mmcore::ops::simd
