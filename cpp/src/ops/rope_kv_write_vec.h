// rope_kv_write in terms of Vec.
#pragma once

#include <string.h>

#include "ops/rope_kv_write.h"
#include "ops/simd/vec.h"

namespace mmcore::ops {
namespace {

using simd::Vec;
using Problem = RopeKvWriteProblem;

template <class T>
Vec load(const T* p, int32_t n) {
  return n >= Vec::kLanes ? Vec::load(p) : Vec::load(p, n);
}

template <class T>
void store(Vec v, T* p, int32_t n) {
  n >= Vec::kLanes ? v.store(p) : v.store(p, n);
}

/// Cosines and sines of one token's position, as a vector of dims meets them.
class Rotation {
 public:
  Rotation(const Problem& p, int64_t token)
      : half_(p.rotary_dim / 2),
        interleaved_(p.interleaved),
        cosines_(turn_row(p, token, 0)),
        sines_(cosines_ + half_) {
    if (p.axis_stride != 0) gather(p, token);
    if (!interleaved_) return;
    for (int32_t i = 0; i < half_; ++i) {
      pair_cosines_[2 * i] = pair_cosines_[2 * i + 1] = cosines_[i];
      pair_sines_[2 * i] = -sines_[i];
      pair_sines_[2 * i + 1] = sines_[i];
    }
  }

  template <class T>
  void apply(T* x) const {
    if (interleaved_) return apply_to_pairs(x);
    for (int32_t i = 0; i < half_; i += Vec::kLanes) {
      const int32_t n = half_ - i;
      const Vec c = load(cosines_ + i, n);
      const Vec s = load(sines_ + i, n);
      const Vec a = load(x + i, n);
      const Vec b = load(x + half_ + i, n);
      store(simd::fnma(b, s, a * c), x + i, n);
      store(simd::fma(a, s, b * c), x + half_ + i, n);
    }
  }

 private:
  /// Each frequency from its axis' row.
  void gather(const Problem& p, int64_t token) {
    for (int32_t i = 0; i < half_; ++i) {
      const float* row = turn_row(p, token, i);
      gathered_[i] = row[i];
      gathered_[half_ + i] = row[half_ + i];
    }
    cosines_ = gathered_;
    sines_ = gathered_ + half_;
  }

  template <class T>
  void apply_to_pairs(T* x) const {
    for (int32_t i = 0; i < 2 * half_; i += Vec::kLanes) {
      const int32_t n = 2 * half_ - i;
      const Vec v = load(x + i, n);
      const Vec turned = simd::swap_pairs(v) * load(pair_sines_ + i, n);
      store(simd::fma(v, load(pair_cosines_ + i, n), turned), x + i, n);
    }
  }

  int32_t half_;
  bool interleaved_;
  const float* cosines_;
  const float* sines_;
  float gathered_[kMaxRotaryDim];
  float pair_cosines_[kMaxRotaryDim];
  float pair_sines_[kMaxRotaryDim];
};

template <class T, class C>
void copy_row(const T* from, C* to, int32_t n, float factor) {
  if constexpr (__is_same(C, f8e4m3)) {
    const Vec f = Vec::all(factor);
    for (int32_t d = 0; d < n; d += Vec::kLanes) store(load(from + d, n - d) * f, to + d, n - d);
  } else if constexpr (__is_same(T, C)) {
    memcpy(to, from, static_cast<size_t>(n) * sizeof(T));
  } else {
    for (int32_t d = 0; d < n; d += Vec::kLanes) store(load(from + d, n - d), to + d, n - d);
  }
}

template <class T>
T* row_of(const Problem::Rows& rows, int64_t token, int32_t head) {
  return static_cast<T*>(rows.data) + token * rows.row_stride + head * rows.head_stride;
}

template <class C>
C* slot_of(const Problem& p, const Problem::Cache& cache, int64_t slot, int32_t head) {
  return static_cast<C*>(cache.data) + slot / p.block_size * cache.block_stride +
         slot % p.block_size * cache.row_stride + head * cache.head_stride;
}

template <class T, class C>
void run_token(const Problem& p, int64_t token) {
  if (p.positions != nullptr) {
    const Rotation rotation(p, token);
    for (int32_t h = 0; h < p.q_heads; ++h) rotation.apply(row_of<T>(p.q, token, h));
    for (int32_t h = 0; h < p.kv_heads; ++h) rotation.apply(row_of<T>(p.k, token, h));
  }
  if (p.k_cache.data == nullptr || p.slot_mapping[token] < 0) return;
  const int64_t slot = p.slot_mapping[token];
  for (int32_t h = 0; h < p.kv_heads; ++h) {
    copy_row(row_of<T>(p.k, token, h), slot_of<C>(p, p.k_cache, slot, h), p.head_dim, p.k_factor);
    copy_row(row_of<T>(p.v, token, h), slot_of<C>(p, p.v_cache, slot, h), p.head_dim, p.v_factor);
  }
}

template <class T>
void run_as(const Problem& p, int64_t begin, int64_t end) {
  const auto run = p.cache_dtype == DType::kFloat32    ? run_token<T, float>
                   : p.cache_dtype == DType::kBFloat16 ? run_token<T, bf16>
                   : p.cache_dtype == DType::kFloat16  ? run_token<T, f16>
                                                       : run_token<T, f8e4m3>;
  for (int64_t token = begin; token < end; ++token) run(p, token);
}

inline void run_tokens(const Problem& p, int64_t begin, int64_t end) {
  if (p.dtype == DType::kFloat32) return run_as<float>(p, begin, end);
  if (p.dtype == DType::kBFloat16) return run_as<bf16>(p, begin, end);
  run_as<f16>(p, begin, end);
}

}  // namespace
}  // namespace mmcore::ops
