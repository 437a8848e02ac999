#include <algorithm>
#include <cmath>
#include <vector>

#include "base/thread_pool.h"
#include "ops/attention/problem.h"
#include "tensor/dispatch.h"

namespace mmcore::ops {
namespace {

template <class T, class KV>
void attend_one(const AttentionProblem& p, int32_t n, int32_t i, int32_t h,
                std::vector<double>& scores, std::vector<double>& sums) {
  const int64_t row = p.query_start[n] + i;
  const T* q = static_cast<const T*>(p.q) + row * p.q_row_stride + h * p.q_head_stride;
  T* out = static_cast<T*>(p.out) + row * p.out_row_stride + h * p.out_head_stride;
  const int32_t kv_head = h / (p.heads / p.kv_heads);
  const KeyRange keys = visible_keys(p, n, i);

  scores.clear();
  double top = -HUGE_VAL;
  for (int32_t j = keys.begin; j < keys.end; ++j) {
    const KV* k = static_cast<const KV*>(p.k.data) + row_offset(p, p.k, n, kv_head, j);
    double score = 0;
    for (int32_t d = 0; d < p.head_dim; ++d) score += double{float(q[d])} * double{float(k[d])};
    score *= p.scale;
    if (p.soft_cap > 0) score = p.soft_cap * std::tanh(score / p.soft_cap);
    scores.push_back(score);
    top = std::max(top, score);
  }

  sums.assign(static_cast<size_t>(p.head_dim), 0.0);
  double total = 0;
  for (int32_t j = keys.begin; j < keys.end; ++j) {
    const KV* v = static_cast<const KV*>(p.v.data) + row_offset(p, p.v, n, kv_head, j);
    const double weight = std::exp(scores[static_cast<size_t>(j - keys.begin)] - top);
    total += weight;
    for (int32_t d = 0; d < p.head_dim; ++d) sums[static_cast<size_t>(d)] += weight * float(v[d]);
  }
  for (int32_t d = 0; d < p.head_dim; ++d) {
    const double value = keys.end > keys.begin ? sums[static_cast<size_t>(d)] / total : 0.0;
    out[d] = T(static_cast<float>(value * p.v_scale));
  }
}

template <class T, class KV>
void attend_all(const AttentionProblem& p) {
  for (int32_t n = 0; n < p.sequences; ++n) {
    parallel_for(int64_t{query_len(p, n)} * p.heads, 1, [&](int64_t begin, int64_t end) {
      std::vector<double> scores;
      std::vector<double> sums;
      for (int64_t t = begin; t < end; ++t) {
        attend_one<T, KV>(p, n, static_cast<int32_t>(t / p.heads),
                          static_cast<int32_t>(t % p.heads), scores, sums);
      }
    });
  }
}

}  // namespace

void attention_reference(const AttentionProblem& p) {
  // The entry has checked both dtypes.
  static_cast<void>(dispatch_float(p.dtype, "attention", [&]<class T>() {
    static_cast<void>(
        dispatch_cache(p.kv_dtype, "attention", [&]<class KV>() { attend_all<T, KV>(p); }));
  }));
}

}  // namespace mmcore::ops
