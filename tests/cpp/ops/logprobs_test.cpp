// Layer: unit. Every instruction set against log_softmax in float64.
#include <gtest/gtest.h>

#include <algorithm>
#include <limits>

#include "ops/isa_test.h"
#include "ops/rounding.h"
#include "ops/sample_oracle.h"

namespace mmcore::ops::testing {
namespace {

constexpr float kInf = std::numeric_limits<float>::infinity();

class LogprobsPerIsa : public IsaTest {};
INSTANTIATE_TEST_SUITE_P(, LogprobsPerIsa, kEveryIsa, isa_name);

/// `token` first, then the `num` best, each with its rank.
void expect_list(const std::vector<TokenLogprob>& list, const std::vector<double>& logits,
                 TokenId token, int64_t num) {
  const std::vector<double> expected = log_probabilities(logits);
  const std::vector<TokenId> order = by_rank(logits);
  size_t possible = 0;
  while (possible < order.size() && expected[static_cast<size_t>(order[possible])] > -kInf)
    ++possible;
  const size_t best = std::min(possible, static_cast<size_t>(num));
  ASSERT_EQ(list.size(), 1 + best);
  const auto rank = std::find(order.begin(), order.end(), token) - order.begin() + 1;
  EXPECT_EQ(list[0].token, token);
  EXPECT_EQ(list[0].rank, rank);
  for (size_t i = 0; i < list.size(); ++i) {
    if (i > 0) {
      EXPECT_EQ(list[i].token, order[i - 1]) << i;
      EXPECT_EQ(list[i].rank, static_cast<int32_t>(i));
    }
    const double logprob = expected[static_cast<size_t>(list[i].token)];
    if (logprob == -kInf) {
      EXPECT_EQ(list[i].logprob, -kInf);
    } else {
      EXPECT_NEAR(list[i].logprob, logprob, 1e-6 * (1.0 + std::abs(logprob))) << i;
    }
  }
}

TEST_P(LogprobsPerIsa, MatchLogSoftmax) {
  for (uint64_t seed = 1; seed <= 60; ++seed) {
    Rng rng(seed);
    const int64_t rows = random_size(rng, 1, 4), vocab = random_size(rng, 1, 400);
    HostTensor logits(random_float_type(rng), {rows, vocab}, static_cast<int64_t>(rng() % 2) * 3);
    logits.fill_normal(rng, 3.0);
    if (rng() % 2 == 0) {
      for (int64_t i = 0; i < logits.numel(); ++i)
        logits.set(i, std::round(logits.get(i)));  // ties
    }
    if (vocab > 5) logits.set_at({0, 3}, -kInf);
    std::vector<TokenId> targets;
    std::vector<int32_t> num;
    for (int64_t r = 0; r < rows; ++r) {
      targets.push_back(static_cast<TokenId>(random_size(rng, 0, vocab - 1)));
      num.push_back(static_cast<int32_t>(random_size(rng, -1, rng() % 3 == 0 ? vocab + 5 : 6)));
    }
    SCOPED_TRACE("seed " + std::to_string(seed) + ", vocabulary " + std::to_string(vocab));
    std::vector<std::vector<TokenLogprob>> out;
    const Status status = logprobs(logits.view(), targets, num, out);
    ASSERT_TRUE(status.ok()) << status.message();
    ASSERT_EQ(out.size(), static_cast<size_t>(rows));
    for (int64_t r = 0; r < rows; ++r) {
      const auto i = static_cast<size_t>(r);
      std::vector<double> row;
      for (int64_t v = 0; v < vocab; ++v) row.push_back(logits.at({r, v}));
      if (num[i] < 0) {
        EXPECT_TRUE(out[i].empty());
      } else {
        expect_list(out[i], row, targets[i], num[i]);
      }
    }
    if (HasFailure()) return;
  }
}

TEST_P(LogprobsPerIsa, OfASampledTokenAreOfTheRawLogits) {
  Rng rng(3);
  HostTensor logits(DType::kFloat32, {1, 300});
  logits.fill_normal(rng, 2.0);
  const std::vector<TokenId> banned = {best_token(logits.values())};
  SampleRow params;
  params.temperature = 0.3f;
  params.top_k = 5;
  params.repetition_penalty = 1.7f;
  params.prompt_tokens = banned;
  params.banned_tokens = banned;
  for (const int32_t num : {0, 1, 7, 300, 1000}) {
    params.num_logprobs = num;
    std::vector<SampledToken> out;
    ASSERT_TRUE(sample(logits.view(), {&params, 1}, out).ok());
    EXPECT_NE(out[0].token, banned[0]);
    expect_list(out[0].logprobs, logits.values(), out[0].token, num);
    if (num > 0) {
      EXPECT_EQ(out[0].logprobs[1].token, banned[0]);  // it is still the most likely one
    }
  }
  params.num_logprobs = -1;
  std::vector<SampledToken> out;
  ASSERT_TRUE(sample(logits.view(), {&params, 1}, out).ok());
  EXPECT_TRUE(out[0].logprobs.empty());
}

TEST(Logprobs, NamesWhatIsWrongAndAnswersTheRest) {
  HostTensor logits(DType::kFloat32, {3, 4});
  logits.assign<float>(std::vector<float>(12, 0.5f));
  std::vector<std::vector<TokenLogprob>> out;
  const auto expect = [&](std::vector<TokenId> targets, std::vector<int32_t> num,
                          const std::string& word) {
    const Status status = logprobs(logits.view(), targets, num, out);
    EXPECT_EQ(status.code(), StatusCode::kInvalidArgument);
    EXPECT_NE(status.message().find(word), std::string::npos) << status.message();
  };
  expect({0, 1}, {0, 0}, "logits has shape");
  expect({0, 1, 2}, {0, 0}, "num has 2 entries");
  expect({0, 4, 2}, {1, 1, 1}, "row 1 has target 4");
  EXPECT_EQ(out[0].size(), 2u);
  EXPECT_TRUE(out[1].empty());
  EXPECT_EQ(out[2].size(), 2u);
  EXPECT_NEAR(out[2][0].logprob, std::log(0.25), 1e-6);
  logits.set_at({2, 1}, std::numeric_limits<double>::quiet_NaN());
  expect({0, 1, 2}, {1, 1, 1}, "row 2 of logits holds a NaN");
  for (int64_t i = 0; i < 4; ++i) logits.set_at({0, i}, -kInf);
  expect({0, 1, 2}, {1, 1, -1}, "row 0 of logits holds nothing above -inf");
}

}  // namespace
}  // namespace mmcore::ops::testing
