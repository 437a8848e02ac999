// Layer: kernel. Paged attention with few query rows a sequence, through the op, against double.
#include <cuda_runtime_api.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>

#include "host/device.h"
#include "mirror.h"
#include "ops/attention/gpu_plan.h"
#include "ops/attention/problem.h"
#include "ops/attention_case.h"

namespace mmcore::cuda {
namespace {

using ops::testing::attention_oracle;
using ops::testing::AttentionCase;
using ops::testing::AttentionData;
using ops::testing::HostTensor;
using ops::testing::PagedCache;
using ops::testing::Rng;

class Decode : public GpuTest {};

int multiprocessors() {
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
AttentionCase random_case(Rng& rng, int64_t longest) {
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
void check_case(const AttentionCase& c, Rng& rng, int64_t max_query_len = 0) {
  AttentionData data(c, rng);
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

void check_random(uint64_t seeds, uint64_t first, int64_t longest) {
  for (uint64_t seed = first; seed < first + static_cast<uint64_t>(cases(static_cast<int>(seeds)));
       ++seed) {
    Rng rng(seed);
    const AttentionCase c = random_case(rng, longest);
    SCOPED_TRACE("seed " + std::to_string(seed) + ": " + c.describe());
    check_case(c, rng);
    if (::testing::Test::HasFailure()) return;
  }
}

TEST_F(Decode, MatchesDoublePrecisionOnRandomBatches) { check_random(150, 0, 900); }
TEST_F(Decode, MatchesDoublePrecisionOnMoreRandomBatches) { check_random(150, 5000, 900); }

void check_random_float8(uint64_t seeds, uint64_t first, int64_t longest) {
  for (uint64_t seed = first; seed < first + seeds; ++seed) {
    Rng rng(seed);
    const AttentionCase c = random_case(rng, longest).with_float8(rng);
    SCOPED_TRACE("seed " + std::to_string(seed) + ": " + c.describe());
    check_case(c, rng);
    if (::testing::Test::HasFailure()) return;
  }
}

TEST_F(Decode, ReadsAFloat8CacheByItsScales) { check_random_float8(150, 9000, 900); }
TEST_F(Decode, ReadsAFloat8CacheReduced) { check_random_float8(15, 9500, 40); }

TEST_F(Decode, Float8OfEveryHeadDim) {
  for (const int dim : ops::kHeadDims) {
    for (const int64_t group : {1, 7, 16}) {
      Rng rng(static_cast<uint64_t>(100 * dim + group));
      AttentionCase c;
      c.dtype = dim % 64 == 0 ? DType::kFloat16 : DType::kBFloat16;
      c.head_dim = dim;
      c.kv_heads = 2;
      c.group = group;
      c.scale = 1.0f / std::sqrt(static_cast<float>(dim));
      c.query_lens = {1, 1, 1};
      c.key_lens = {900, 17, 100};
      c = c.with_float8(rng);
      SCOPED_TRACE(c.describe());
      check_case(c, rng, 1);
    }
  }
}

/// Far beyond what the type that keys are widened to can hold, and far below.
TEST_F(Decode, Float8TakesQueriesOfAnySize) {
  for (const int exponent : {-100, -60, -14, 16, 60, 100}) {
    Rng rng(static_cast<uint64_t>(exponent + 1000));
    AttentionCase c;
    c.dtype = DType::kBFloat16;
    c.head_dim = exponent % 4 == 0 ? 128 : 64;
    c.kv_heads = 2;
    c.group = 3;
    c.query_lens = {1, 1};
    c.key_lens = {300, 40};
    c = c.with_float8(rng);
    c.scale = std::ldexp(1.0f / std::sqrt(static_cast<float>(c.head_dim)), -exponent);
    AttentionData data(c, rng);
    for (int64_t i = 0; i < data.q.numel(); ++i) {
      data.q.set(i, std::ldexp(data.q.get(i), exponent));
    }
    SCOPED_TRACE("exponent " + std::to_string(exponent) + ": " + c.describe());
    const PagedCache cache(c, data, rng);
    GpuBatch batch(c, data, cache, 1);
    const Status status = ops::paged_attention(batch.args);
    ASSERT_TRUE(status.ok()) << status.message();
    batch.out.fetch(data.out);
    ops::testing::expect_close(data.out, attention_oracle(c, data));
  }
}

TEST_F(Decode, MixesWithPrefillsInFloat8) {
  for (uint64_t seed = 0; seed < 15; ++seed) {
    Rng rng(seed + 40);
    const AttentionCase c = AttentionCase::random(rng, false).with_float8(rng);
    SCOPED_TRACE("seed " + std::to_string(seed) + ": " + c.describe());
    check_case(c, rng);
    if (HasFailure()) return;
  }
}

TEST_F(Decode, ReducedRandomBatches) { check_random(12, 1000, 40); }

/// Prefills and decodes of one batch, in one call.
TEST_F(Decode, MixesWithPrefills) {
  for (uint64_t seed = 0; seed < 20; ++seed) {
    Rng rng(seed);
    AttentionCase c = AttentionCase::random(rng, false);
    c.kv_dtype = c.dtype;
    SCOPED_TRACE("seed " + std::to_string(seed) + ": " + c.describe());
    check_case(c, rng);
    if (HasFailure()) return;
  }
}

/// One long sequence among short ones: parts of a unit on nearly all multiprocessors.
TEST_F(Decode, DividesALongSequenceAmongAll) {
  for (const int64_t group : {1, 4, 7, 16}) {
    Rng rng(static_cast<uint64_t>(group));
    AttentionCase c;
    c.dtype = c.kv_dtype = DType::kBFloat16;
    c.head_dim = 128;
    c.group = group;
    c.kv_heads = 1;
    c.query_lens = {1, 1, 1, 1, 1};
    c.key_lens = {300, 12, 5000, 64, 1};
    SCOPED_TRACE(c.describe());
    check_case(c, rng, 1);
  }
}

/// More units than workers: cut at any place, so that one may end and another begin in a worker.
TEST_F(Decode, CutsManyUnitsAnywhere) {
  for (uint64_t seed = 0; seed < 3; ++seed) {
    Rng rng(seed + 800);
    AttentionCase c;
    c.dtype = seed % 2 ? DType::kBFloat16 : DType::kFloat16;
    c.kv_dtype = c.dtype;
    c.head_dim = pick<int64_t>(rng, {64, 128});
    c.kv_heads = 4;
    c.group = pick<int64_t>(rng, {1, 3, 7});
    c.scale = 1.0f / std::sqrt(static_cast<float>(c.head_dim));
    c.query_lens.assign(40, 1);
    for (size_t n = 0; n < c.query_lens.size(); ++n) {
      c.key_lens.push_back(1 + static_cast<int64_t>(rng() % 200));
    }
    c.key_lens[7] = 1500;
    if (seed == 2) c = c.with_float8(rng);
    SCOPED_TRACE("seed " + std::to_string(seed) + ": " + c.describe());
    check_case(c, rng, 1);
    if (HasFailure()) return;
  }
}

/// Units that begin where workers do, some of many parts: no teams, as one is much longer.
TEST_F(Decode, RandomBatchesOfOneLongSequence) {
  for (uint64_t seed = 0; seed < 25; ++seed) {
    Rng rng(seed + 700);
    AttentionCase c = random_case(rng, 60);
    c.window = 0;
    c.query_lens.push_back(1);
    c.key_lens.push_back(1500 + static_cast<int64_t>(rng() % 1500));
    SCOPED_TRACE("seed " + std::to_string(seed) + ": " + c.describe());
    check_case(c, rng);
    if (HasFailure()) return;
  }
}

/// A worker for each part of each unit, and some without one, in teams of 2, 4 and 8.
TEST_F(Decode, TeamsMergeWhatTheirBlocksHave) {
  for (const int64_t kv_heads : {1, 6, 12, 30}) {
    for (const int64_t group : {1, 4, 7, 16}) {
      Rng rng(static_cast<uint64_t>(100 * kv_heads + group));
      AttentionCase c;
      c.dtype = c.kv_dtype = DType::kBFloat16;
      c.head_dim = group % 2 ? 64 : 128;
      c.group = group;
      c.kv_heads = kv_heads;
      c.query_lens = {1, 1};
      c.key_lens = {500, 1 + static_cast<int64_t>(rng() % 300)};
      SCOPED_TRACE(c.describe());
      check_case(c, rng, 1);
    }
  }
}

TEST_F(Decode, TeamsReduced) {
  Rng rng(12);
  AttentionCase c;
  c.dtype = c.kv_dtype = DType::kFloat16;
  c.head_dim = 64;
  c.group = 3;
  c.kv_heads = 2;
  c.query_lens = {1, 1};
  c.key_lens = {200, 20};
  check_case(c, rng, 1);
}

/// More units a worker than are listed at once.
TEST_F(Decode, WorksThroughManyShortSequences) {
  Rng rng(5);
  AttentionCase c;
  c.dtype = c.kv_dtype = DType::kBFloat16;
  c.head_dim = 32;
  c.kv_heads = 6;
  c.query_lens.assign(800, 1);
  for (int n = 0; n < 800; ++n) c.key_lens.push_back(1 + static_cast<int64_t>(rng() % 20));
  check_case(c, rng, 1);
}

/// A row of this step's keys that is read before rope_kv_write has written it is NaN.
TEST_F(Decode, ReadsTheNewestKeysBehindTheirWriter) {
  Rng rng(11);
  AttentionCase c;
  c.dtype = c.kv_dtype = DType::kBFloat16;
  c.head_dim = 128;
  c.kv_heads = 4;
  c.query_lens.assign(24, 1);
  for (size_t n = 0; n < c.query_lens.size(); ++n) {
    c.key_lens.push_back(1 + static_cast<int64_t>(n) * 17);
  }
  AttentionData data(c, rng);
  const PagedCache cache(c, data, rng);
  GpuBatch batch(c, data, cache, 1);
  batch.set_plan(data.query_start.view(), cache.seq_lens.view(), true);
  const int64_t tokens = c.queries(), row = c.kv_heads * c.head_dim;
  HostTensor k(c.dtype, {tokens, c.kv_heads, c.head_dim}), v = k, slots(DType::kInt64, {tokens});
  HostTensor unwritten_k = cache.k, unwritten_v = cache.v;
  for (int64_t n = 0, keys = 0; n < tokens; ++n) {
    const int64_t last = c.key_lens[static_cast<size_t>(n)] - 1;
    const int64_t block =
        static_cast<int64_t>(cache.tables.get(n * cache.tables.shape()[1] + last / c.block_size));
    const int64_t slot = block * c.block_size + last % c.block_size;
    slots.set(n, static_cast<double>(slot));
    for (int64_t e = 0; e < row; ++e) {
      k.set(n * row + e, data.k.get((keys + last) * row + e));
      v.set(n * row + e, data.v.get((keys + last) * row + e));
      unwritten_k.set(slot * row + e, NAN);
      unwritten_v.set(slot * row + e, NAN);
    }
    keys += last + 1;
  }
  const Mirror new_k(k), new_v(v), new_slots(slots), no_k(unwritten_k), no_v(unwritten_v);
  const auto forget = [](const Mirror& to, const Mirror& from) {
    ASSERT_EQ(cudaMemcpyAsync(to.view().data, from.view().data,
                              static_cast<size_t>(from.view().numel()) * 2,
                              cudaMemcpyDeviceToDevice, nullptr),
              cudaSuccess);
  };
  const std::vector<double> expected = attention_oracle(c, data);
  for (int run = 0; run < 30; ++run) {
    forget(batch.k, no_k);
    forget(batch.v, no_v);
    const Status written = ops::rope_kv_write({.q = {},
                                               .k = new_k.view(),
                                               .v = new_v.view(),
                                               .positions = {},
                                               .cos_sin = {},
                                               .k_cache = batch.k.view(),
                                               .v_cache = batch.v.view(),
                                               .slot_mapping = new_slots.view()});
    ASSERT_TRUE(written.ok()) << written.message();
    const Status status = ops::paged_attention(batch.args);
    ASSERT_TRUE(status.ok()) << status.message();
    batch.out.fetch(data.out);
    ops::testing::expect_close(data.out, expected);
    ASSERT_FALSE(HasFailure()) << "run " << run;
  }
}

TEST_F(Decode, GivesTheSameBitsEachTime) {
  Rng rng(6);
  AttentionCase c;
  c.dtype = c.kv_dtype = DType::kBFloat16;
  c.head_dim = 128;
  c.kv_heads = 2;
  c.group = 4;
  c.query_lens = {1, 1, 2, 1};
  c.key_lens = {1500, 40, 2300, 513};
  AttentionData data(c, rng);
  const PagedCache cache(c, data, rng);
  GpuBatch batch(c, data, cache);
  std::vector<std::byte> first;
  for (int run = 0; run < 20; ++run) {
    batch.set_plan(data.query_start.view(), cache.seq_lens.view(), run % 2 == 1);
    ASSERT_TRUE(ops::paged_attention(batch.args).ok());
    batch.out.fetch(data.out);
    if (run == 0) first = data.out.bytes();
    ASSERT_EQ(data.out.bytes(), first) << "run " << run;
  }
}

/// One recording, replayed after the plan has been replaced by one for other lengths.
TEST_F(Decode, OneGraphServesOtherLengths) {
  Rng rng(7);
  AttentionCase c;
  c.dtype = c.kv_dtype = DType::kBFloat16;
  c.head_dim = 64;
  c.kv_heads = 2;
  c.group = 3;
  c.query_lens = {1, 1, 1, 1};
  c.key_lens = {700, 90, 1600, 333};
  AttentionData data(c, rng);
  const PagedCache cache(c, data, rng);
  GpuBatch batch(c, data, cache, 1);
  cudaStream_t stream = nullptr;
  cudaGraph_t graph = nullptr;
  cudaGraphExec_t recorded = nullptr;
  ASSERT_EQ(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking), cudaSuccess);
  ASSERT_EQ(cudaStreamBeginCapture(stream, cudaStreamCaptureModeGlobal), cudaSuccess);
  const Status status = ops::paged_attention(batch.args, {stream});
  ASSERT_EQ(cudaStreamEndCapture(stream, &graph), cudaSuccess);
  ASSERT_TRUE(status.ok()) << status.message();
  ASSERT_EQ(cudaGraphInstantiate(&recorded, graph, 0), cudaSuccess);
  for (const std::vector<int64_t>& lens :
       {c.key_lens, {700, 1, 17, 333}, {16, 90, 1, 1}, {1, 64, 1600, 300}}) {
    AttentionCase shorter = c;
    for (size_t n = 0; n < lens.size(); ++n) shorter.key_lens[n] = lens[n];
    // The same keys, as many as there are now.
    HostTensor now(DType::kInt32, {4});
    AttentionData view_of(shorter, rng);
    int64_t row = 0, kept = 0;
    for (size_t n = 0; n < lens.size(); row += c.key_lens[n++]) {
      now.set(static_cast<int64_t>(n), static_cast<double>(lens[n]));
      for (int64_t j = 0; j < lens[n]; ++j, ++kept) {
        for (int64_t e = 0; e < c.kv_heads * c.head_dim; ++e) {
          const int64_t width = c.kv_heads * c.head_dim;
          view_of.k.set(kept * width + e, data.k.get((row + j) * width + e));
          view_of.v.set(kept * width + e, data.v.get((row + j) * width + e));
        }
      }
    }
    view_of.q = data.q;
    batch.set_plan(data.query_start.view(), now.view());
    ASSERT_EQ(cudaGraphLaunch(recorded, stream), cudaSuccess);
    ASSERT_EQ(cudaStreamSynchronize(stream), cudaSuccess);
    batch.out.fetch(data.out);
    ops::testing::expect_close(data.out, attention_oracle(shorter, view_of));
  }
  cudaGraphExecDestroy(recorded);
  cudaGraphDestroy(graph);
  cudaStreamDestroy(stream);
}

/// Offsets beyond 2^31 elements: the sequence's blocks are the last ones of a cache of 4.6 GB.
TEST_F(Decode, ReachesTheEndOfALargeCache) {
  size_t free = 0, total = 0;
  ASSERT_EQ(cudaMemGetInfo(&free, &total), cudaSuccess);
  if (free < (size_t{11} << 30)) GTEST_SKIP() << "needs 11 GiB of free device memory";
  Rng rng(8);
  AttentionCase c;
  c.dtype = c.kv_dtype = DType::kBFloat16;
  c.head_dim = 128;
  c.kv_heads = 8;
  c.query_lens = {1};
  c.key_lens = {100};
  AttentionData data(c, rng);
  const PagedCache cache(c, data, rng);
  GpuBatch batch(c, data, cache, 1);
  const int64_t blocks = 140000, row = 16 * 8 * 128, few = cache.k.shape()[0];
  const DeviceTensor k(DType::kBFloat16, {blocks, 16, 8, 128});
  const DeviceTensor v(DType::kBFloat16, {blocks, 16, 8, 128});
  const auto copy = [&](const DeviceTensor& to, const TensorView& from) {
    ASSERT_EQ(cudaMemcpy(to.view().ptr<uint16_t>() + (blocks - few) * row, from.data,
                         static_cast<size_t>(few * row) * 2, cudaMemcpyDeviceToDevice),
              cudaSuccess);
  };
  copy(k, batch.k.view());
  copy(v, batch.v.view());
  HostTensor tables(DType::kInt32, cache.tables.shape());
  for (int64_t i = 0; i < tables.numel(); ++i) {
    tables.set(i, cache.tables.get(i) + static_cast<double>(blocks - few));
  }
  const Mirror far_tables(tables);
  batch.args.k_cache = k;
  batch.args.v_cache = v;
  batch.args.block_tables = far_tables;
  const Status status = ops::paged_attention(batch.args);
  ASSERT_TRUE(status.ok()) << status.message();
  batch.out.fetch(data.out);
  ops::testing::expect_close(data.out, attention_oracle(c, data));
}

TEST_F(Decode, NamesWhatIsMissing) {
  Rng rng(9);
  AttentionCase c;
  c.query_lens = {1};
  c.key_lens = {10};
  const AttentionData data(c, rng);
  const PagedCache cache(c, data, rng);
  const GpuBatch batch(c, data, cache);
  const auto refusal = [](const ops::PagedAttentionArgs& args) {
    return ops::paged_attention(args).message();
  };
  ops::PagedAttentionArgs args = batch.args;
  args.plan = {};
  EXPECT_NE(refusal(args).find("plan is absent"), std::string::npos) << refusal(args);
  EXPECT_NE(refusal(args).find("plan_paged_attention"), std::string::npos) << refusal(args);
  args = batch.args;
  args.workspace.shape[0] = 100;
  EXPECT_NE(refusal(args).find("paged_attention_workspace_bytes"), std::string::npos);
  args = batch.args;
  args.plan.shape[0] = 100;
  EXPECT_NE(refusal(args).find("attention_plan_words"), std::string::npos);
}

}  // namespace
}  // namespace mmcore::cuda
