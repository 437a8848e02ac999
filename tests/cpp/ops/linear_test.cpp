// Layer: unit. Every instruction set against double precision.
#include <gtest/gtest.h>

#include "ops/isa_test.h"
#include "ops/linear_case.h"
#include "ops/rounding.h"

namespace mmcore::ops::testing {
namespace {

class LinearPerIsa : public IsaTest {};
INSTANTIATE_TEST_SUITE_P(, LinearPerIsa, kEveryIsa, isa_name);

TEST(Linear, MatchesDoublePrecisionOnRandomShapes) {
  const std::vector<CpuIsa> isas = available_isas();
  for (uint64_t seed = 1; seed <= 160; ++seed) {
    Rng rng(seed);
    const LinearCase c = LinearCase::random(rng);
    LinearData data(c, rng);
    const LinearAnswer answer = linear_oracle(c, data);
    for (const CpuIsa isa : isas) {
      SCOPED_TRACE(std::string(to_string(isa)) + " seed " + std::to_string(seed) + ": " +
                   c.describe());
      const ScopedIsa scoped(isa);
      data.clear_out(c);
      const Status status = linear(linear_args(c, data));
      ASSERT_TRUE(status.ok()) << status.message();
      expect_answer(data.out, answer);
      EXPECT_TRUE(data.out.untouched_outside());
      if (HasFailure()) return;
    }
  }
}

/// Sizes around those of tiles, panels, blocks and vectors.
TEST_P(LinearPerIsa, HasNoSeamsAtTheSizesOfItsTiles) {
  Rng rng(11);
  LinearCase c;
  for (const DType dtype : kFloatTypes) {
    for (const int64_t tokens : {1, 4, 5, 8, 9, 16, 17, 32, 33, 65, 300}) {
      for (const auto& [n, k] : std::initializer_list<std::pair<int64_t, int64_t>>{
               {1, 1}, {12, 31}, {13, 32}, {49, 193}, {200, 385}}) {
        c.dtype = dtype;
        c.tokens = tokens;
        c.n = n;
        c.k = k;
        LinearData data(c, rng);
        SCOPED_TRACE(c.describe());
        ASSERT_TRUE(linear(linear_args(c, data)).ok());
        expect_answer(data.out, linear_oracle(c, data));
        EXPECT_TRUE(data.out.untouched_outside());
        if (HasFailure()) return;
      }
    }
  }
}

TEST_P(LinearPerIsa, CutsALongSumWithoutLosingAnyOfIt) {
  Rng rng(12);
  LinearCase c;
  c.n = 14;
  c.k = 4501;
  for (const DType dtype : {DType::kFloat32, DType::kBFloat16}) {
    for (const int64_t tokens : {1, 7, 20, 40}) {
      c.dtype = dtype;
      c.tokens = tokens;
      LinearData data(c, rng);
      SCOPED_TRACE(c.describe());
      ASSERT_TRUE(linear(linear_args(c, data)).ok());
      expect_answer(data.out, linear_oracle(c, data));
      if (HasFailure()) return;
    }
  }
}

TEST_P(LinearPerIsa, GivesTheSameBitsWithAnyThreads) {
  Rng rng(13);
  LinearCase c;
  c.n = 431;
  c.k = 260;
  for (const DType dtype : kFloatTypes) {
    for (const int64_t tokens : {2, 40, 290}) {
      c.dtype = dtype;
      c.tokens = tokens;
      LinearData data(c, rng);
      std::vector<std::vector<std::byte>> results;
      for (const int threads : {1, 2, 3, 2}) {
        set_num_threads(threads);
        ASSERT_TRUE(linear(linear_args(c, data)).ok());
        results.push_back(data.out.bytes());
        ASSERT_TRUE(results.back() == results.front()) << threads << " threads, " << c.describe();
      }
    }
  }
}

/// Within a regime a row does not see how many others there are.
TEST_P(LinearPerIsa, ARowHasTheSameBitsInAnyBatchOfItsRegime) {
  Rng rng(14);
  LinearCase c;
  c.n = 61;
  c.k = 450;
  c.tokens = 290;
  for (const DType dtype : kFloatTypes) {
    c.dtype = dtype;
    LinearData all(c, rng);
    ASSERT_TRUE(linear(linear_args(c, all)).ok());
    for (const int64_t tokens : {9, 16, 31, 70}) {
      LinearArgs args = linear_args(c, all);
      args.x.shape[0] = tokens;
      HostTensor out(dtype, {tokens, c.n});
      args.out = out.view();
      ASSERT_TRUE(linear(args).ok());
      for (int64_t i = 0; i < out.numel(); ++i)
        ASSERT_EQ(out.get(i), all.out.get(i)) << tokens << " tokens, element " << i;
    }
  }
}

TEST_P(LinearPerIsa, AnEmptySumIsTheBias) {
  HostTensor x(DType::kFloat32, {2, 0}), w(DType::kFloat32, {3, 0}), b(DType::kFloat32, {3});
  HostTensor out(DType::kFloat32, {2, 3});
  b.assign<float>(std::vector<float>{1, -2, 3});
  ASSERT_TRUE(linear({.x = x.view(),
                      .weight = w.view(),
                      .bias = b.view(),
                      .out = out.view(),
                      .out_rows = {},
                      .act = Activation::kRelu})
                  .ok());
  EXPECT_EQ(out.values(), (std::vector<double>{1, 0, 3, 1, 0, 3}));
}

TEST(Linear, NamesWhatIsWrong) {
  HostTensor x(DType::kFloat32, {2, 8}), w(DType::kFloat32, {3, 8}), out(DType::kFloat32, {2, 3});
  HostTensor half(DType::kFloat16, {3, 8}), bias(DType::kFloat32, {4}), rows(DType::kInt64, {2});
  const auto args = [&] {
    return LinearArgs{
        .x = x.view(), .weight = w.view(), .bias = {}, .out = out.view(), .out_rows = {}};
  };
  const auto expect = [](const LinearArgs& a, const std::string& word) {
    const Status status = linear(a);
    EXPECT_EQ(status.code(), StatusCode::kInvalidArgument);
    EXPECT_NE(status.message().find(word), std::string::npos) << status.message();
  };
  LinearArgs a = args();
  a.weight = half.view();
  expect(a, "weight is float16");
  a = args();
  a.weight = x.view();
  expect(a, "out has shape [2, 3]");
  a = args();
  a.bias = bias.view();
  expect(a, "bias has shape [4]");
  a = args();
  a.act = static_cast<Activation>(-1);
  expect(a, "activation");
  a = args();
  rows.assign<int64_t>(std::vector<int64_t>{-1, 2});
  a.out_rows = rows.view();
  expect(a, "out_rows[1] is 2, expected below 2");
  a = args();
  a.out = {};
  expect(a, "out is absent");
  a = args();
  a.x.data = a.x.ptr<char>() + 1;
  expect(a, "x is not aligned");
}

}  // namespace
}  // namespace mmcore::ops::testing
