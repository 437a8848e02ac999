// Transcendental functions on Vec. The polynomials are minimax fits of relative error on the
// reduced range; tests/cpp/ops/simd_math_test.cpp measures the errors stated here.
#pragma once

#include "ops/simd/vec.h"

namespace mmcore::ops::simd {
namespace {

/// 2^x within 1.5 ulp for every x, subnormal results and infinities included. NaN stays NaN.
inline Vec exp2(Vec x) {
  x = max(Vec::all(-151.0f), min(Vec::all(129.0f), x));  // operand order keeps NaN
  const Vec n = round(x);
  const Vec r = x - n;
  Vec p = fma(Vec::all(0.00015353362f), r, Vec::all(0.0013398875f));
  p = fma(p, r, Vec::all(0.009618437f));
  p = fma(p, r, Vec::all(0.055503324f));
  p = fma(p, r, Vec::all(0.24022648f));
  p = fma(p, r, Vec::all(0.6931472f));
  return ldexp(fma(p, r, Vec::all(1.0f)), n);
}

/// 2^x = 2^n p(r) for x <= 0, with p a polynomial in r = x - n, |r| <= 1/2. 0 below 2^-126; NaN
/// stays NaN.
template <class Polynomial>
[[gnu::always_inline]] inline Vec exp2_negative(Vec x, Polynomial p) {
  // Adding 1.5 x 2^23 leaves round(x) in the last places, 127 more make it a float's exponent.
  const Vec magic = Vec::all(12582912.0f + 127.0f);
  const Vec shifted = x + magic;
  const Vec power = p(x - (shifted - magic)) * to_exponent(shifted);
  return zero_below(power, x, Vec::all(-126.0f));
}

/// As exp2 within 1e-7 relative, a few steps shorter; for x <= 0, softmax.
inline Vec exp2_softmax(Vec x) {
  return exp2_negative(x, [](Vec r) {
    Vec p = fma(Vec::all(0.0013264727f), r, Vec::all(0.009671513f));
    p = fma(p, r, Vec::all(0.055507336f));
    p = fma(p, r, Vec::all(0.24022242f));
    p = fma(p, r, Vec::all(0.693147f));
    return fma(p, r, Vec::all(1.0f));
  });
}

/// Likewise within 1.1e-4: for weights that are rounded to bfloat16 (2e-3).
inline Vec exp2_softmax_coarse(Vec x) {
  return exp2_negative(x, [](Vec r) {
    Vec p = fma(Vec::all(0.055008933f), r, Vec::all(0.24221095f));
    p = fma(p, r, Vec::all(0.6932829f));
    return fma(p, r, Vec::all(1.0f));
  });
}

/// x = n ln 2 + r with |r| <= ln 2 / 2, for |x| < 2^15.
inline Vec reduce_by_ln2(Vec x, Vec& n) {
  n = round(x * Vec::all(1.44269504f));
  const Vec r = fnma(n, Vec::all(0.693359375f), x);  // 9 bits of ln 2: the product is exact
  return fnma(n, Vec::all(-2.12194440e-4f), r);
}

/// (e^r - 1 - r) / r^2 for |r| <= ln 2 / 2.
inline Vec exp_tail(Vec r) {
  Vec p = fma(Vec::all(0.0013814613f), r, Vec::all(0.00836871f));
  p = fma(p, r, Vec::all(0.04166839f));
  p = fma(p, r, Vec::all(0.16666521f));
  return fma(p, r, Vec::all(0.49999994f));
}

/// e^x within 1.5 ulp for every x, subnormal results and infinities included. NaN stays NaN.
inline Vec exp(Vec x) {
  x = max(Vec::all(-104.0f), min(Vec::all(89.0f), x));  // operand order keeps NaN
  Vec n;
  const Vec r = reduce_by_ln2(x, n);
  return ldexp(fma(r * r, exp_tail(r), r) + Vec::all(1.0f), n);
}

/// tanh x within 3 ulp, from e^(2|x|) - 1, which keeps the small ones exact. NaN stays NaN.
inline Vec tanh(Vec x) {
  const Vec a = min(Vec::all(9.5f), abs(x));  // 1 to the last bit from 9.02 on
  Vec n;
  const Vec r = reduce_by_ln2(a + a, n);
  const Vec scale = ldexp(Vec::all(1.0f), n);
  const Vec em1 = fma(scale, fma(r * r, exp_tail(r), r), scale - Vec::all(1.0f));
  const Vec t = em1 / (em1 + Vec::all(2.0f));
  return select(x < Vec::zero(), -t, t);
}

}  // namespace
}  // namespace mmcore::ops::simd
