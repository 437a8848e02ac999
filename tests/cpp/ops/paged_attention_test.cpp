// Layer: unit. Every instruction set against double precision.
#include <gtest/gtest.h>

#include "ops/attention_case.h"
#include "ops/isa_test.h"

namespace mmcore::ops::testing {
namespace {

class PagedAttentionPerIsa : public IsaTest {};
INSTANTIATE_TEST_SUITE_P(, PagedAttentionPerIsa, kEveryIsa, isa_name);

TEST(PagedAttention, MatchesDoublePrecisionOnRandomBatches) {
  const std::vector<CpuIsa> isas = available_isas();
  for (uint64_t seed = 0; seed < 240; ++seed) {
    Rng rng(seed);
    const AttentionCase c = AttentionCase::random(rng, false);
    AttentionData data(c, rng);
    const PagedCache cache(c, data, rng);
    const std::vector<double> expected = attention_oracle(c, data);
    for (const CpuIsa isa : isas) {
      SCOPED_TRACE(std::string(to_string(isa)) + " seed " + std::to_string(seed) + ": " +
                   c.describe());
      const ScopedIsa scoped(isa);
      data.out = HostTensor(c.dtype, data.out.shape(), c.gap);
      const Status status = paged_attention(paged_args(c, data, cache));
      ASSERT_TRUE(status.ok()) << status.message();
      expect_close(data.out, expected);
      EXPECT_TRUE(data.out.untouched_outside());
      if (::testing::Test::HasFailure()) return;
    }
  }
}

/// Every path of a kernel: a query, several, partial results; queries of every type.
TEST_P(PagedAttentionPerIsa, ReadsAFloat8CacheByItsScales) {
  for (uint64_t seed = 0; seed < 60; ++seed) {
    Rng rng(seed + 700);
    const AttentionCase c = AttentionCase::random(rng, false).with_float8(rng);
    SCOPED_TRACE("seed " + std::to_string(seed) + ": " + c.describe());
    const AttentionData data(c, rng);
    const PagedCache cache(c, data, rng);
    const Status status = paged_attention(paged_args(c, data, cache));
    ASSERT_TRUE(status.ok()) << status.message();
    expect_close(data.out, attention_oracle(c, data));
    EXPECT_TRUE(data.out.untouched_outside());
    if (::testing::Test::HasFailure()) return;
  }
}

/// Decodes long enough to be split, chunks of prefills, prefills: bits must not depend on threads.
TEST_P(PagedAttentionPerIsa, GivesTheSameBitsWithAnyThreads) {
  Rng rng(7);
  AttentionCase c;
  c.kv_heads = 2;
  c.group = 3;
  c.query_lens = {1, 1, 70, 4, 1};
  c.key_lens = {1500, 3, 70, 2300, 513};
  for (const DType kv_dtype : {DType::kFloat32, DType::kBFloat16, DType::kFloat8E4M3}) {
    c.kv_dtype = kv_dtype;
    c.dtype = kv_dtype == DType::kFloat32 ? DType::kFloat32 : DType::kBFloat16;
    const AttentionData data(c, rng);
    const PagedCache cache(c, data, rng);
    std::vector<std::vector<std::byte>> results;
    for (const int threads : {1, 2, 3, 8, 2}) {
      set_num_threads(threads);
      ASSERT_EQ(num_threads(), threads);
      ASSERT_TRUE(paged_attention(paged_args(c, data, cache)).ok());
      results.push_back(data.out.bytes());
      EXPECT_TRUE(results.back() == results.front()) << threads << " threads";
    }
    expect_close(data.out, attention_oracle(c, data));
  }
}

/// A sequence's bits do not depend on what else is in the batch.
TEST_P(PagedAttentionPerIsa, GivesTheSameBitsAloneAndInABatch) {
  Rng rng(8);
  AttentionCase c;
  c.kv_heads = 2;
  c.group = 4;
  c.query_lens = {1, 33, 1, 2};
  c.key_lens = {700, 90, 16, 1200};
  const AttentionData data(c, rng);
  const PagedCache cache(c, data, rng);
  ASSERT_TRUE(paged_attention(paged_args(c, data, cache)).ok());
  const HostTensor together = data.out;
  for (int64_t n = 0; n < 4; ++n) {
    PagedAttentionArgs args = paged_args(c, data, cache);
    HostTensor starts(DType::kInt32, {2});
    starts.set(0, data.query_start.get(n));
    starts.set(1, data.query_start.get(n + 1));
    args.query_start = starts.view();
    const TensorView tables = cache.tables.view();
    args.block_tables.data = tables.ptr<int32_t>() + n * tables.stride(0);
    args.block_tables.shape[0] = 1;
    args.seq_lens.data = cache.seq_lens.view().ptr<int32_t>() + n;
    args.seq_lens.shape[0] = 1;
    const HostTensor alone(DType::kFloat32, {c.queries(), c.heads(), c.head_dim});
    args.out = alone.view();
    ASSERT_TRUE(paged_attention(args).ok());
    const int64_t width = c.heads() * c.head_dim;
    const auto first = static_cast<int64_t>(starts.get(0)) * width;
    for (int64_t i = first; i < static_cast<int64_t>(starts.get(1)) * width; ++i) {
      ASSERT_EQ(alone.get(i), together.get(i)) << "sequence " << n << " element " << i - first;
    }
  }
}

/// Blocks that fell out of the window may be anybody's by now.
TEST_P(PagedAttentionPerIsa, IgnoresBlocksBehindTheWindow) {
  Rng rng(9);
  AttentionCase c;
  c.query_lens = {1, 5};
  c.key_lens = {400, 300};
  c.window = 40;
  c.block_size = 8;
  const AttentionData data(c, rng);
  const PagedCache cache(c, data, rng);
  const std::vector<double> expected = attention_oracle(c, data);
  HostTensor tables = cache.tables;
  for (int64_t n = 0; n < 2; ++n) {
    const int64_t first_query =
        c.key_lens[static_cast<size_t>(n)] - c.query_lens[static_cast<size_t>(n)];
    for (int64_t b = 0; b < (first_query - c.window + 1) / c.block_size; ++b) {
      tables.set_at({n, b}, n == 0 ? -1 : 1 << 30);
    }
  }
  PagedAttentionArgs args = paged_args(c, data, cache);
  args.block_tables = tables.view();
  const Status status = paged_attention(args);
  ASSERT_TRUE(status.ok()) << status.message();
  expect_close(data.out, expected);
}

TEST_P(PagedAttentionPerIsa, LeavesRowsOfNoSequenceAlone) {
  Rng rng(10);
  AttentionCase c;
  c.query_lens = {2, 3};
  c.key_lens = {20, 3};
  const AttentionData data(c, rng);
  const PagedCache cache(c, data, rng);
  PagedAttentionArgs args = paged_args(c, data, cache);
  args.query_start.shape[0] = 2;  // the first sequence only
  args.seq_lens.shape[0] = 1;
  args.block_tables.shape[0] = 1;
  ASSERT_TRUE(paged_attention(args).ok());
  for (int64_t i = 2 * c.head_dim; i < data.out.numel(); ++i) {
    ASSERT_TRUE(std::isnan(data.out.get(i)));
  }
}

TEST_P(PagedAttentionPerIsa, TakesManyHeadsOfOneKeyHead) {
  Rng rng(11);
  AttentionCase c;
  c.group = 200;  // more rows than one tile has
  c.head_dim = 32;
  c.query_lens = {1, 2};
  c.key_lens = {90, 40};
  const AttentionData data(c, rng);
  const PagedCache cache(c, data, rng);
  ASSERT_TRUE(paged_attention(paged_args(c, data, cache)).ok());
  expect_close(data.out, attention_oracle(c, data));
}

/// Scores so far apart that all weights but one vanish, and so large that their powers overflow.
TEST_P(PagedAttentionPerIsa, StaysFiniteForLargeScores) {
  Rng rng(12);
  AttentionCase c;
  c.query_lens = {1, 20};
  c.key_lens = {100, 20};
  c.scale = 60.0f;
  const AttentionData data(c, rng);
  const PagedCache cache(c, data, rng);
  ASSERT_TRUE(paged_attention(paged_args(c, data, cache)).ok());
  const std::vector<double> expected = attention_oracle(c, data);
  for (int64_t i = 0; i < data.out.numel(); ++i) {
    // A score of 1000 carries an error of its own: 1000 x 2^-24 x a few.
    ASSERT_NEAR(data.out.get(i), expected[static_cast<size_t>(i)], 2e-3);
  }
}

}  // namespace
}  // namespace mmcore::ops::testing
