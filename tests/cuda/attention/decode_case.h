// Batches that go to decode, on the GPU with their plan and workspace, and the op against double.
#pragma once

#include <cuda_runtime_api.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <initializer_list>

#include "host/device.h"
#include "mirror.h"
#include "ops/attention/gpu_plan.h"
#include "ops/attention/problem.h"
#include "ops/attention_case.h"

namespace mmcore::cuda {

using ops::testing::attention_oracle;
using ops::testing::AttentionCase;
using ops::testing::AttentionData;
using ops::testing::HostTensor;
using ops::testing::PagedCache;
using ops::testing::Rng;

class Decode : public GpuTest {};

inline int multiprocessors() {
  const auto facts = device_facts({DeviceType::kCuda, 0});
  return facts.ok() ? facts.value()->multiprocessors : 0;
}

/// A batch on the GPU with its plan and workspace.
struct GpuBatch {
  GpuBatch(const AttentionCase& c, const AttentionData& data, const PagedCache& cache,
           int64_t max_query_len = 0)
      : q(data.q),
        k(cache.k),
        v(cache.v),
        tables(cache.tables),
        query_start(data.query_start),
        seq_lens(cache.seq_lens),
        out(data.out),
        shape{.sequences = cache.seq_lens.numel(),
              .tokens = c.queries(),
              .max_query_len = max_query_len,
              .heads = static_cast<int32_t>(c.heads()),
              .kv_heads = static_cast<int32_t>(c.kv_heads),
              .head_dim = static_cast<int32_t>(c.head_dim),
              .window = c.window,
              .causal = c.causal,
              .multiprocessors = multiprocessors()},
        plan(DType::kInt32, {ops::attention_plan_words(shape)}),
        workspace(DType::kUInt8, {ops::paged_attention_workspace_bytes(shape)}),
        args{.q = q.view(),
             .k_cache = k.view(),
             .v_cache = v.view(),
             .block_tables = tables.view(),
             .query_start = query_start.view(),
             .seq_lens = seq_lens.view(),
             .out = out.view(),
             .scale = c.scale,
             .soft_cap = c.soft_cap,
             .window = c.window,
             .causal = c.causal,
             .plan = plan.view(),
             .workspace = workspace.view(),
             .max_query_len = max_query_len,
             .k_scale = c.k_scale,
             .v_scale = c.v_scale} {
    set_plan(data.query_start.view(), cache.seq_lens.view());
  }

  void set_plan(const TensorView& starts, const TensorView& lens, bool settled = false) {
    std::vector<int32_t> words(static_cast<size_t>(plan.view().numel()));
    const Status status = ops::plan_paged_attention(
        starts, lens, shape,
        TensorView(words.data(), DType::kInt32, {static_cast<int64_t>(words.size())}), settled);
    ASSERT_TRUE(status.ok()) << status.message();
    plan.write({reinterpret_cast<const uint8_t*>(words.data()), words.size() * 4});
  }

  Mirror q, k, v, tables, query_start, seq_lens, out;
  ops::AttentionPlanShape shape;
  DeviceTensor plan, workspace;
  ops::PagedAttentionArgs args;
};

template <class T>
T pick(Rng& rng, std::initializer_list<T> choices) {
  return choices.begin()[rng() % choices.size()];
}

/// Sequences that go to decode, with some 40,000 elements of keys at most: the reference takes
/// milliseconds.
inline AttentionCase random_case(Rng& rng, int64_t longest) {
  AttentionCase c;
  c.dtype = pick(rng, {DType::kBFloat16, DType::kBFloat16, DType::kFloat16, DType::kFloat32});
  c.kv_dtype = rng() % 8 ? c.dtype : pick(rng, {DType::kBFloat16, DType::kFloat32});
  c.head_dim = pick<int64_t>(rng, {32, 64, 64, 72, 80, 96, 128, 128, 256});
  c.kv_heads = pick<int64_t>(rng, {1, 1, 2, 3});
  c.group = pick<int64_t>(rng, {1, 1, 2, 3, 4, 5, 7, 8, 9, 12, 16, 17, 32, 40});
  c.block_size = pick<int64_t>(rng, {1, 2, 4, 8, 16, 16, 16, 32, 64, 128});
  c.gap = pick<int64_t>(rng, {0, 0, 8, 24, 3});  // 3: too crooked for wide loads
  c.scale = 1.0f / std::sqrt(static_cast<float>(c.head_dim));
  c.soft_cap = pick(rng, {0.0f, 0.0f, 2.0f, 30.0f});
  c.window = pick<int32_t>(rng, {0, 0, 0, 1, 5, 64, 100});
  c.causal = rng() % 4 != 0;
  const int64_t most = std::max<int64_t>(1, ops::kDecodeRows / c.group);
  const int64_t sequences = pick<int64_t>(rng, {1, 2, 3, 6});
  longest = std::min(longest, 40000 / (sequences * c.kv_heads * c.head_dim));
  for (int64_t n = 0; n < sequences; ++n) {
    const int64_t queries = std::min(most, pick<int64_t>(rng, {0, 1, 1, 1, 1, 2, 3, 5, 16}));
    const int64_t border = pick<int64_t>(rng, {c.block_size, 16, 64, 128});
    const int64_t past = std::min(longest, pick<int64_t>(rng, {0, border - 1, border, border + 1,
                                                               static_cast<int64_t>(rng() % 900)}));
    c.query_lens.push_back(queries);
    c.key_lens.push_back(queries == 0 && rng() % 2 ? 0 : queries + past);
  }
  return c;
}

/// Runs the op and compares; the plan must be as before, ready for the next layer.
inline void check_data(const AttentionCase& c, AttentionData& data, Rng& rng,
                       int64_t max_query_len = 0) {
  const PagedCache cache(c, data, rng);
  GpuBatch batch(c, data, cache, max_query_len);
  const std::vector<double> expected = attention_oracle(c, data);
  std::vector<uint8_t> plan;
  for (int run = 0; run < 2; ++run) {
    batch.set_plan(data.query_start.view(), cache.seq_lens.view(), run > 0);
    plan = batch.plan.bytes();
    const Status status = ops::paged_attention(batch.args);
    ASSERT_TRUE(status.ok()) << status.message();
    batch.out.fetch(data.out);
    ops::testing::expect_close(data.out, expected);
    EXPECT_TRUE(data.out.untouched_outside());
  }
  EXPECT_EQ(batch.plan.bytes(), plan);
}

/// The same with random data.
inline void check_case(const AttentionCase& c, Rng& rng, int64_t max_query_len = 0) {
  AttentionData data(c, rng);
  check_data(c, data, rng, max_query_len);
}

inline void check_random(uint64_t seeds, uint64_t first, int64_t longest) {
  for (uint64_t seed = first; seed < first + static_cast<uint64_t>(cases(static_cast<int>(seeds)));
       ++seed) {
    Rng rng(seed);
    const AttentionCase c = random_case(rng, longest);
    SCOPED_TRACE("seed " + std::to_string(seed) + ": " + c.describe());
    check_case(c, rng);
    if (::testing::Test::HasFailure()) return;
  }
}

}  // namespace mmcore::cuda
