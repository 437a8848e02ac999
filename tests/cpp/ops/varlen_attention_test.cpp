// Layer: unit. Every instruction set against double precision.
#include <gtest/gtest.h>

#include "ops/attention_case.h"
#include "ops/isa_test.h"

namespace mmcore::ops::testing {
namespace {

class VarlenAttentionPerIsa : public IsaTest {};
INSTANTIATE_TEST_SUITE_P(, VarlenAttentionPerIsa, kEveryIsa, isa_name);

TEST(VarlenAttention, MatchesDoublePrecisionOnRandomBatches) {
  const std::vector<CpuIsa> isas = available_isas();
  for (uint64_t seed = 1000; seed < 1240; ++seed) {
    Rng rng(seed);
    const AttentionCase c = AttentionCase::random(rng, true);
    AttentionData data(c, rng);
    const std::vector<double> expected = attention_oracle(c, data);
    for (const CpuIsa isa : isas) {
      SCOPED_TRACE(std::string(to_string(isa)) + " seed " + std::to_string(seed) + ": " +
                   c.describe());
      const ScopedIsa scoped(isa);
      data.out = HostTensor(c.dtype, data.out.shape(), c.gap);
      const Status status = varlen_attention(varlen_args(c, data));
      ASSERT_TRUE(status.ok()) << status.message();
      expect_close(data.out, expected);
      EXPECT_TRUE(data.out.untouched_outside());
      if (::testing::Test::HasFailure()) return;
    }
  }
}

/// An encoder's shape, and the same bits with any number of threads.
TEST_P(VarlenAttentionPerIsa, GivesTheSameBitsWithAnyThreads) {
  Rng rng(3);
  AttentionCase c;
  c.kv_heads = 3;
  c.head_dim = 72;
  c.query_lens = {196, 60};
  c.key_lens = {196, 60};
  c.causal = false;
  for (const DType dtype : {DType::kFloat32, DType::kBFloat16}) {
    c.dtype = c.kv_dtype = dtype;
    const AttentionData data(c, rng);
    std::vector<std::vector<std::byte>> results;
    for (const int threads : {1, 2, 3, 2}) {
      set_num_threads(threads);
      ASSERT_TRUE(varlen_attention(varlen_args(c, data)).ok());
      results.push_back(data.out.bytes());
      EXPECT_TRUE(results.back() == results.front()) << threads << " threads";
    }
    expect_close(data.out, attention_oracle(c, data));
  }
}

/// One tensor [tokens, 3, heads, D] from one projection, sliced.
TEST_P(VarlenAttentionPerIsa, TakesSlicesOfAFusedProjection) {
  Rng rng(4);
  AttentionCase c;
  c.kv_heads = 2;
  c.causal = false;
  c.query_lens = c.key_lens = {50};
  AttentionData data(c, rng);
  HostTensor fused(DType::kFloat32, {50, 3, 2, 64});
  for (int64_t t = 0; t < 50; ++t) {
    for (int64_t h = 0; h < 2; ++h) {
      for (int64_t d = 0; d < 64; ++d) {
        fused.set_at({t, 0, h, d}, data.q.at({t, h, d}));
        fused.set_at({t, 1, h, d}, data.k.at({t, h, d}));
        fused.set_at({t, 2, h, d}, data.v.at({t, h, d}));
      }
    }
  }
  VarlenAttentionArgs args = varlen_args(c, data);
  TensorView* const parts[] = {&args.q, &args.k, &args.v};
  for (int64_t i = 0; i < 3; ++i) {
    parts[i]->data = fused.view().ptr<float>() + i * 2 * 64;
    parts[i]->strides[0] = int64_t{3} * 2 * 64;
  }
  ASSERT_TRUE(varlen_attention(args).ok());
  expect_close(data.out, attention_oracle(c, data));
}

}  // namespace
}  // namespace mmcore::ops::testing
