// Norms on Vec; for translation units of one instruction set (see ops/simd/vec.h).
#pragma once

#include "ops/norm.h"
#include "ops/simd/vec.h"

namespace mmcore::ops::simd {
namespace {

/// Calls f(i, load, store) for each vector of [0, n); load and store take a pointer to element 0 of
/// an array and do the last, shorter vector with masks.
template <class F>
[[gnu::always_inline]] inline void for_each_vec(int64_t n, F&& f) {
  int64_t i = 0;
  for (; i + Vec::kLanes <= n; i += Vec::kLanes) {
    f([i](const auto* p) __attribute__((always_inline)) { return Vec::load(p + i); },
      [i](Vec v, auto* p) __attribute__((always_inline)) { v.store(p + i); });
  }
  if (i == n) return;
  const int rest = static_cast<int>(n - i);
  f([=](const auto* p) __attribute__((always_inline)) { return Vec::load(p + i, rest); },
    [=](Vec v, auto* p) __attribute__((always_inline)) { v.store(p + i, rest); });
}

template <class T>
void rms_norm_rows(const NormRows<T>& rows, int64_t begin, int64_t end) {
  const int64_t n = rows.hidden;
  for (int64_t r = begin; r < end; ++r) {
    const T* x = rows.x + r * rows.x_stride;
    T* residual = rows.residual != nullptr ? rows.residual + r * rows.residual_stride : nullptr;
    T* out = rows.out + r * rows.out_stride;
    Vec squares = Vec::zero();
    if (residual != nullptr) {
      for_each_vec(n, [&](auto load, auto store) {
        store(load(residual) + load(x), residual);
        const Vec v = load(residual);  // as stored: rounded to T
        squares = fma(v, v, squares);
      });
      x = residual;
    } else {
      for_each_vec(n, [&](auto load, auto) {
        const Vec v = load(x);
        squares = fma(v, v, squares);
      });
    }
    const float mean = sum(squares) / static_cast<float>(n);
    const Vec scale = Vec::all(1.0f) / sqrt(Vec::all(mean + rows.eps));
    for_each_vec(n,
                 [&](auto load, auto store) { store(load(x) * scale * load(rows.weight), out); });
  }
}

template <class T>
void layer_norm_rows(const NormRows<T>& rows, int64_t begin, int64_t end) {
  const int64_t n = rows.hidden;
  const auto count = static_cast<float>(n);
  for (int64_t r = begin; r < end; ++r) {
    const T* x = rows.x + r * rows.x_stride;
    T* out = rows.out + r * rows.out_stride;
    Vec total = Vec::zero();
    for_each_vec(n, [&](auto load, auto) { total = total + load(x); });
    const Vec mean = Vec::all(sum(total) / count);
    Vec squares = Vec::zero();
    int64_t left = n;
    for_each_vec(n, [&](auto load, auto) {
      const int lanes = left < Vec::kLanes ? static_cast<int>(left) : Vec::kLanes;
      const Vec d = select(first_lanes(lanes), load(x) - mean, Vec::zero());
      squares = fma(d, d, squares);
      left -= lanes;
    });
    const Vec scale = Vec::all(1.0f) / sqrt(Vec::all(sum(squares) / count + rows.eps));
    for_each_vec(n, [&](auto load, auto store) {
      const Vec y = (load(x) - mean) * scale;
      const Vec bias = rows.bias != nullptr ? load(rows.bias) : Vec::zero();
      store(fma(y, load(rows.weight), bias), out);
    });
  }
}

}  // namespace
}  // namespace mmcore::ops::simd
