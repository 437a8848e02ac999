#include "sched/sequence.h"

#include <gtest/gtest.h>

namespace mmcore {
namespace {

constexpr int32_t kLogits = 30;
const std::vector<TokenId> kEos = {2};

Request example() {
  Request r;
  r.prompt_token_ids = {5, 6, 7};
  r.sampling.top_k = 1000;
  r.sampling.top_p = 0.5f;
  r.sampling.seed = 9;
  r.sampling.num_logprobs = 3;
  r.sampling.logit_bias = {{1, 2.0f}};
  r.sampling.allowed_token_ids = {1, 2, 3};
  r.sampling.stop_token_ids = {11};
  r.sampling.min_tokens = 1;
  return r;
}

TEST(Sequence, gives_the_row_to_sample) {
  Sequence s(1, example(), 4, kLogits, kEos);
  SampleRow row = s.fixed_sample_row();
  EXPECT_EQ(row.top_k, kLogits) << "clamped to what there is";
  EXPECT_EQ(row.top_p, 0.5f);
  EXPECT_EQ(row.seed, 9u);
  EXPECT_EQ(row.num_logprobs, 3);
  EXPECT_EQ(row.logit_bias.size(), 1u);
  EXPECT_EQ(row.allowed_tokens.size(), 3u);
  s.update_sample_row(row);
  EXPECT_EQ(row.counter, 0u);
  EXPECT_EQ(row.prompt_tokens.size(), 3u);
  EXPECT_TRUE(row.output_tokens.empty());
  EXPECT_EQ((std::vector<TokenId>{row.banned_tokens.begin(), row.banned_tokens.end()}),
            (std::vector<TokenId>{11, 2}))
      << "no stop before min_tokens";
  s.tokens.push_back(8);
  s.update_sample_row(row);
  EXPECT_EQ(row.counter, 1u);
  EXPECT_EQ(row.output_tokens.size(), 1u);
  EXPECT_EQ(row.output_tokens[0], 8);
  EXPECT_TRUE(row.banned_tokens.empty());
}

TEST(Sequence, eos_is_not_banned_when_it_is_ignored) {
  Request request = example();
  request.sampling.ignore_eos = true;
  EXPECT_EQ(Sequence(1, std::move(request), 4, kLogits, kEos).banned, std::vector<TokenId>{11});
  Request no_minimum = example();
  no_minimum.sampling.min_tokens = 0;
  EXPECT_TRUE(Sequence(1, std::move(no_minimum), 4, kLogits, kEos).banned.empty());
}

TEST(Sequence, decodes_when_only_a_generated_token_is_missing) {
  Sequence s(1, example(), 4, kLogits, kEos);
  EXPECT_FALSE(s.decoding());
  s.computed = 2;
  EXPECT_FALSE(s.decoding()) << "the last prompt token may carry media";
  s.computed = 3;
  s.tokens.push_back(8);
  EXPECT_TRUE(s.decoding());
  s.computed = 0;
  EXPECT_FALSE(s.decoding()) << "preempted: all of it is to be computed again";
}

}  // namespace
}  // namespace mmcore
