#include "ops/rope_kv_write.h"

#include <type_traits>

#include "tensor/dispatch.h"

namespace mmcore::ops {
namespace {

using Problem = RopeKvWriteProblem;

template <class T>
void rotate(const Problem& p, const Problem::Rows& rows, int32_t heads, int64_t token) {
  const int32_t half = p.rotary_dim / 2;
  for (int32_t h = 0; h < heads; ++h) {
    T* x = static_cast<T*>(rows.data) + token * rows.row_stride + h * rows.head_stride;
    for (int32_t i = 0; i < half; ++i) {
      T& first = x[p.interleaved ? 2 * i : i];
      T& second = x[p.interleaved ? 2 * i + 1 : i + half];
      const float a = float(first);
      const float b = float(second);
      const float* row = turn_row(p, token, i);
      const float cosine = row[i];
      const float sine = row[half + i];
      first = T(a * cosine - b * sine);
      second = T(b * cosine + a * sine);
    }
  }
}

template <class T, class C>
void write(const Problem& p, const Problem::Rows& rows, const Problem::Cache& cache, float factor,
           int64_t token) {
  const int64_t slot = p.slot_mapping[token];
  if (slot < 0) return;
  const int64_t at =
      slot / p.block_size * cache.block_stride + slot % p.block_size * cache.row_stride;
  for (int32_t h = 0; h < p.kv_heads; ++h) {
    const T* from =
        static_cast<const T*>(rows.data) + token * rows.row_stride + h * rows.head_stride;
    C* to = static_cast<C*>(cache.data) + at + h * cache.head_stride;
    for (int32_t d = 0; d < p.head_dim; ++d) {
      const float x = float(from[d]);
      to[d] = C(std::is_same_v<C, f8e4m3> ? x * factor : x);
    }
  }
}

template <class T, class C>
void run(const Problem& p, int64_t begin, int64_t end) {
  for (int64_t token = begin; token < end; ++token) {
    if (p.positions != nullptr) {
      rotate<T>(p, p.q, p.q_heads, token);
      rotate<T>(p, p.k, p.kv_heads, token);
    }
    if (p.k_cache.data != nullptr) {
      write<T, C>(p, p.k, p.k_cache, p.k_factor, token);
      write<T, C>(p, p.v, p.v_cache, p.v_factor, token);
    }
  }
}

}  // namespace

void rope_kv_write_reference(const Problem& p, int64_t begin, int64_t end) {
  // The entry has checked both dtypes.
  static_cast<void>(dispatch_float(p.dtype, "rope_kv_write", [&]<class T>() {
    static_cast<void>(dispatch_cache(p.cache_dtype, "rope_kv_write",
                                     [&]<class C>() { run<T, C>(p, begin, end); }));
  }));
}

}  // namespace mmcore::ops
