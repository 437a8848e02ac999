#include "ops/attention_case.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <numeric>
#include <sstream>

namespace mmcore::ops::testing {
namespace {

template <class T>
T pick(Rng& rng, std::initializer_list<T> choices) {
  return choices.begin()[rng() % choices.size()];
}

constexpr std::initializer_list<DType> kFloats = {DType::kFloat32, DType::kBFloat16,
                                                  DType::kFloat16};

HostTensor starts_of(const std::vector<int64_t>& lens) {
  HostTensor starts(DType::kInt32, {static_cast<int64_t>(lens.size()) + 1});
  int64_t sum = 0;
  for (size_t n = 0; n <= lens.size(); ++n) {
    starts.set(static_cast<int64_t>(n), static_cast<double>(sum));
    if (n < lens.size()) sum += lens[n];
  }
  return starts;
}

}  // namespace

AttentionCase AttentionCase::random(Rng& rng, bool more_queries) {
  AttentionCase c;
  c.dtype = pick(rng, kFloats);
  c.kv_dtype = rng() % 2 ? c.dtype : pick(rng, kFloats);
  c.head_dim = pick<int64_t>(rng, {32, 64, 64, 72, 80, 96, 128, 256});
  c.kv_heads = pick<int64_t>(rng, {1, 2, 3});
  c.group = pick<int64_t>(rng, {1, 1, 2, 3, 4, 5, 6, 7, 8, 9, 12, 16});
  c.block_size = pick<int64_t>(rng, {1, 2, 4, 8, 16, 16, 32, 64, 128});
  c.gap = pick<int64_t>(rng, {0, 8, 24});
  c.scale = 1.0f / std::sqrt(static_cast<float>(c.head_dim));
  c.soft_cap = pick(rng, {0.0f, 0.0f, 2.0f, 30.0f});
  c.window = pick<int32_t>(rng, {0, 0, 1, 5, 64, 100});
  c.causal = rng() % 4 != 0;
  // Many queries only with few heads, so that the oracle takes milliseconds.
  const int64_t most = std::max<int64_t>(2, 300 / c.heads());
  const int64_t sequences = pick<int64_t>(rng, {1, 2, 3, 5});
  for (int64_t n = 0; n < sequences; ++n) {
    const int64_t queries =
        std::min(most, pick<int64_t>(rng, {0, 1, 1, 1, 2, 3, 9, 17, 64, 65, 130, 140}));
    // Lengths at, before and behind the borders of blocks and of the kernels' tiles.
    const int64_t border = pick<int64_t>(rng, {c.block_size, 64, 128, 256});
    int64_t past = pick<int64_t>(
        rng, {0, 0, border - 1, border, border + 1, static_cast<int64_t>(rng() % 300)});
    if (queries == 1 && rng() % 8 == 0) past = 512 + static_cast<int64_t>(rng() % 700);
    int64_t keys = queries + past;
    if (more_queries && rng() % 4 == 0) keys = static_cast<int64_t>(rng() % 40);
    c.query_lens.push_back(queries);
    c.key_lens.push_back(keys);
  }
  return c;
}

AttentionCase AttentionCase::with_float8(Rng& rng) const {
  AttentionCase c = *this;
  c.kv_dtype = DType::kFloat8E4M3;
  c.k_scale = pick(rng, {1.0f, 0.3f, 0.01f, 3.0f});
  c.v_scale = pick(rng, {1.0f, 0.7f, 0.02f, 5.0f});
  return c;
}

std::string AttentionCase::describe() const {
  std::ostringstream s;
  s << to_string(dtype) << " kv " << to_string(kv_dtype) << " D " << head_dim << " heads "
    << heads() << "/" << kv_heads << " block " << block_size << " gap " << gap << " soft_cap "
    << soft_cap << " window " << window << " causal " << causal << " scales " << k_scale << " "
    << v_scale << " queries/keys";
  for (size_t n = 0; n < query_lens.size(); ++n) s << " " << query_lens[n] << "/" << key_lens[n];
  return s.str();
}

int64_t AttentionCase::queries() const {
  return std::accumulate(query_lens.begin(), query_lens.end(), int64_t{0});
}

int64_t AttentionCase::keys() const {
  return std::accumulate(key_lens.begin(), key_lens.end(), int64_t{0});
}

AttentionData::AttentionData(const AttentionCase& c, Rng& rng)
    : q(c.dtype, {c.queries(), c.heads(), c.head_dim}, c.gap),
      k(c.kv_dtype, {c.keys(), c.kv_heads, c.head_dim}, c.gap),
      v(c.kv_dtype, {c.keys(), c.kv_heads, c.head_dim}, c.gap),
      out(c.dtype, {c.queries(), c.heads(), c.head_dim}, c.gap),
      query_start(starts_of(c.query_lens)),
      key_start(starts_of(c.key_lens)) {
  q.fill_normal(rng);
  // What is stored is cut off at 448: with a small scale the greatest values are.
  k.fill_normal(rng, 1 / c.k_scale);
  v.fill_normal(rng, 1 / c.v_scale);
}

PagedCache::PagedCache(const AttentionCase& c, const AttentionData& data, Rng& rng) {
  const auto sequences = static_cast<int64_t>(c.query_lens.size());
  const auto blocks_of = [&](size_t n) {
    return (c.key_lens[n] + c.block_size - 1) / c.block_size;
  };
  int64_t used = 0;
  int64_t width = 1;
  for (size_t n = 0; n < c.key_lens.size(); ++n) {
    used += blocks_of(n);
    width = std::max(width, blocks_of(n));
  }
  std::vector<int64_t> free(static_cast<size_t>(used + 3));
  std::iota(free.begin(), free.end(), int64_t{0});
  std::shuffle(free.begin(), free.end(), rng);
  const std::vector<int64_t> shape = {used + 3, c.block_size, c.kv_heads, c.head_dim};
  k = HostTensor(c.kv_dtype, shape, c.gap);
  v = HostTensor(c.kv_dtype, shape, c.gap);
  tables = HostTensor(DType::kInt32, {sequences, width});
  seq_lens = HostTensor(DType::kInt32, {sequences});
  int64_t row = 0;
  for (int64_t n = 0; n < sequences; ++n) {
    const int64_t keys = c.key_lens[static_cast<size_t>(n)];
    seq_lens.set(n, static_cast<double>(keys));
    for (int64_t j = 0; j < keys; ++j, ++row) {
      if (j % c.block_size == 0) {
        tables.set_at({n, j / c.block_size}, static_cast<double>(free.back()));
        free.pop_back();
      }
      const auto block = static_cast<int64_t>(tables.at({n, j / c.block_size}));
      for (int64_t h = 0; h < c.kv_heads; ++h) {
        for (int64_t d = 0; d < c.head_dim; ++d) {
          k.set_at({block, j % c.block_size, h, d}, data.k.at({row, h, d}));
          v.set_at({block, j % c.block_size, h, d}, data.v.at({row, h, d}));
        }
      }
    }
  }
}

std::vector<double> attention_oracle(const AttentionCase& c, const AttentionData& data) {
  const std::vector<double> q = data.q.values();
  const std::vector<double> k = data.k.values();
  const std::vector<double> v = data.v.values();
  const auto dim = static_cast<size_t>(c.head_dim);
  std::vector<double> result(q.size(), 0.0);
  std::vector<double> weights;
  int64_t row = 0;
  int64_t first_key = 0;
  for (size_t n = 0; n < c.query_lens.size(); first_key += c.key_lens[n++]) {
    for (int64_t i = 0; i < c.query_lens[n]; ++i, ++row) {
      const int64_t position = c.key_lens[n] - c.query_lens[n] + i;
      for (int64_t h = 0; h < c.heads(); ++h) {
        const auto query = static_cast<size_t>(row * c.heads() + h) * dim;
        const auto key = [&](int64_t j) {
          return static_cast<size_t>((first_key + j) * c.kv_heads + h / c.group) * dim;
        };
        const auto seen = [&](int64_t j) {
          return (!c.causal || j <= position) && (c.window == 0 || j > position - c.window);
        };
        weights.assign(static_cast<size_t>(c.key_lens[n]), -INFINITY);
        for (int64_t j = 0; j < c.key_lens[n]; ++j) {
          if (!seen(j)) continue;
          double score = 0;
          for (size_t d = 0; d < dim; ++d) score += q[query + d] * k[key(j) + d];
          score *= double{c.scale} * double{c.k_scale};
          if (c.soft_cap > 0) score = c.soft_cap * std::tanh(score / c.soft_cap);
          weights[static_cast<size_t>(j)] = score;
        }
        if (weights.empty()) continue;
        const double top = *std::max_element(weights.begin(), weights.end());
        if (top == -INFINITY) continue;
        double total = 0;
        for (double& w : weights) total += w = std::exp(w - top);
        for (int64_t j = 0; j < c.key_lens[n]; ++j) {
          const double w = weights[static_cast<size_t>(j)] / total;
          for (size_t d = 0; seen(j) && d < dim; ++d)
            result[query + d] += w * c.v_scale * v[key(j) + d];
        }
      }
    }
  }
  return result;
}

void expect_close(const HostTensor& out, const std::vector<double>& expected) {
  // Half a unit in the last place of the output, and what float sums and rounded weights add.
  const double floor = out.dtype() == DType::kFloat32   ? 1e-5
                       : out.dtype() == DType::kFloat16 ? 1e-3
                                                        : 6e-3;
  const double unit = out.dtype() == DType::kFloat32   ? 1e-5
                      : out.dtype() == DType::kFloat16 ? 1.0 / 2048
                                                       : 1.0 / 256;
  const double mean_limit = out.dtype() == DType::kFloat32   ? 1e-6
                            : out.dtype() == DType::kFloat16 ? 6e-4
                                                             : 2.6e-3;
  double error = 0;
  double size = 0;
  for (size_t i = 0; i < expected.size(); ++i) {
    const double got = out.get(static_cast<int64_t>(i));
    ASSERT_LE(std::abs(got - expected[i]), floor + unit * std::abs(expected[i]))
        << "element " << i << ": got " << got << ", expected " << expected[i];
    error += std::abs(got - expected[i]);
    size += std::abs(expected[i]);
  }
  EXPECT_LE(error, mean_limit * size) << "mean relative error " << error / size;
}

PagedAttentionArgs paged_args(const AttentionCase& c, const AttentionData& data,
                              const PagedCache& cache) {
  return {.q = data.q.view(),
          .k_cache = cache.k.view(),
          .v_cache = cache.v.view(),
          .block_tables = cache.tables.view(),
          .query_start = data.query_start.view(),
          .seq_lens = cache.seq_lens.view(),
          .out = data.out.view(),
          .scale = c.scale,
          .soft_cap = c.soft_cap,
          .window = c.window,
          .causal = c.causal,
          .k_scale = c.k_scale,
          .v_scale = c.v_scale};
}

VarlenAttentionArgs varlen_args(const AttentionCase& c, const AttentionData& data) {
  return {.q = data.q.view(),
          .k = data.k.view(),
          .v = data.v.view(),
          .cu_q = data.query_start.view(),
          .cu_k = data.key_start.view(),
          .out = data.out.view(),
          .scale = c.scale,
          .soft_cap = c.soft_cap,
          .window = c.window,
          .causal = c.causal};
}

}  // namespace mmcore::ops::testing
