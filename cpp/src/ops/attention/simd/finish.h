// From a row's weighted sums to the output, directly or by way of partial results.
#pragma once

#include "ops/attention/simd/scratch.h"

namespace mmcore::ops {
namespace {

template <class T>
T* out_row(const AttentionProblem& p, const AttentionItem& item, int row) {
  const int64_t token = p.query_start[item.sequence] + item.query + row / item.heads;
  return static_cast<T*>(p.out) + token * p.out_row_stride +
         (item.head + row % item.heads) * p.out_head_stride;
}

/// out[d] = scale sums[d] / total; 0 where no key was seen.
template <class T>
void write_row(const float* sums, float total, float scale, T* out, int head_dim) {
  const Vec factor = Vec::all(total == 0.0f ? 0.0f : scale / total);
  int d = 0;
  for (; d + Vec::kLanes <= head_dim; d += Vec::kLanes) {
    (Vec::load(sums + d) * factor).store(out + d);
  }
  if (d < head_dim) (Vec::load(sums + d, head_dim - d) * factor).store(out + d, head_dim - d);
}

template <class T>
void write_rows(const AttentionProblem& p, const AttentionItem& item, const Scratch& s) {
  const int dim = padded_dim(p.head_dim);
  for (int r = 0; r < item.queries * item.heads; ++r) {
    const float total = simd::sum(Vec::load(s.lanes + r * Vec::kLanes));
    write_row(s.sums + int64_t{r} * dim, total, p.v_scale, out_row<T>(p, item, r), p.head_dim);
  }
}

inline void write_partial(const AttentionProblem& p, const AttentionItem& item, const Scratch& s,
                          float* partials) {
  const int rows = item.queries * item.heads;
  const int dim = padded_dim(p.head_dim);
  float* sums = partials + item.partial;
  float* top = sums + int64_t{rows} * p.head_dim;
  float* total = top + rows;
  for (int r = 0; r < rows; ++r) {
    write_row(s.sums + int64_t{r} * dim, 1.0f, 1.0f, sums + int64_t{r} * p.head_dim, p.head_dim);
    top[r] = s.top[r];
    total[r] = simd::sum(Vec::load(s.lanes + r * Vec::kLanes));
  }
}

inline void finish(const AttentionProblem& p, const AttentionItem& item, const Scratch& s,
                   float* partials) {
  if (item.partial >= 0) return write_partial(p, item, s, partials);
  if (p.dtype == DType::kFloat32) return write_rows<float>(p, item, s);
  if (p.dtype == DType::kBFloat16) return write_rows<bf16>(p, item, s);
  write_rows<f16>(p, item, s);
}

template <class T>
void merge_rows(const AttentionProblem& p, const AttentionItem& item, int32_t count,
                const float* partials) {
  const int rows = item.queries * item.heads;
  const int64_t size = partial_size(rows, p.head_dim);
  const float* first = partials + item.partial;
  alignas(64) float sums[256];  // the greatest head dim
  for (int r = 0; r < rows; ++r) {
    const float* tops = first + int64_t{rows} * p.head_dim + r;
    float top = -__builtin_inff();
    for (int32_t i = 0; i < count; ++i) top = tops[i * size] > top ? tops[i * size] : top;
    const float reference = top == -__builtin_inff() ? 0.0f : top;
    for (int d = 0; d < p.head_dim; d += Vec::kLanes) Vec::zero().store(sums + d);
    float total = 0;
    for (int32_t i = 0; i < count; ++i) {
      const Vec factor = simd::exp2_softmax(Vec::all(tops[i * size] - reference));
      total += simd::first(factor) * tops[i * size + rows];
      const float* part = first + i * size + int64_t{r} * p.head_dim;
      for (int d = 0; d < p.head_dim; d += Vec::kLanes) {
        const int n = p.head_dim - d;
        const Vec values = n >= Vec::kLanes ? Vec::load(part + d) : Vec::load(part + d, n);
        simd::fma(values, factor, Vec::load(sums + d)).store(sums + d);
      }
    }
    write_row(sums, total, p.v_scale, out_row<T>(p, item, r), p.head_dim);
  }
}

inline void merge_partials(const AttentionProblem& p, const AttentionItem& item, int32_t count,
                           const float* partials) {
  if (p.dtype == DType::kFloat32) return merge_rows<float>(p, item, count, partials);
  if (p.dtype == DType::kBFloat16) return merge_rows<bf16>(p, item, count, partials);
  merge_rows<f16>(p, item, count, partials);
}

}  // namespace
}  // namespace mmcore::ops
