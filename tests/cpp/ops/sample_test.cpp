// Layer: unit. Every instruction set against the definition in float64.
#include <gtest/gtest.h>

#include <algorithm>
#include <limits>
#include <set>

#include "ops/isa_test.h"
#include "ops/rounding.h"
#include "ops/sample_oracle.h"

namespace mmcore::ops::testing {
namespace {

constexpr float kInf = std::numeric_limits<float>::infinity();
constexpr float kNan = std::numeric_limits<float>::quiet_NaN();

/// A row's parameters together with what their spans point to.
struct OwnedRow {
  SampleRow row;
  std::vector<TokenId> prompt, output, allowed, banned;
  std::vector<std::pair<TokenId, float>> bias;

  const SampleRow& params() {
    row.prompt_tokens = prompt;
    row.output_tokens = output;
    row.allowed_tokens = allowed;
    row.banned_tokens = banned;
    row.logit_bias = bias;
    return row;
  }

  static OwnedRow random(Rng& rng, int64_t vocab) {
    const auto chance = [&](uint64_t n) { return rng() % n == 0; };
    const auto real = [&](double low, double high) {
      return static_cast<float>(std::uniform_real_distribution<double>(low, high)(rng));
    };
    const auto tokens = [&](int64_t most) {
      std::vector<TokenId> list(static_cast<size_t>(random_size(rng, 1, most)));
      for (TokenId& t : list) t = static_cast<TokenId>(random_size(rng, 0, vocab - 1));
      return list;
    };
    OwnedRow r;
    r.row.temperature = chance(4) ? 1.0f : real(0.2, 2.0);
    if (chance(2)) r.row.top_k = static_cast<int32_t>(random_size(rng, 1, chance(3) ? vocab : 20));
    if (chance(2)) r.row.top_p = real(0.05, 1.0);
    if (chance(4)) r.row.min_p = real(0.0, 0.5);
    if (chance(4)) r.row.repetition_penalty = real(0.5, 2.0);
    if (chance(4)) r.row.frequency_penalty = real(-2.0, 2.0);
    if (chance(4)) r.row.presence_penalty = real(-2.0, 2.0);
    r.row.seed = rng();
    if (chance(2)) r.prompt = tokens(30);
    if (chance(2)) r.output = tokens(30);
    if (chance(8)) r.allowed = tokens(vocab);
    if (chance(4)) r.bias = {{static_cast<TokenId>(random_size(rng, 0, vocab - 1)), real(-5, 5)}};
    if (chance(4) && r.allowed.empty() && vocab > 40) r.banned = tokens(30);
    return r;
  }
};

/// Random logits; some rows hold many ties, some tokens that cannot be.
HostTensor random_logits(Rng& rng, DType dtype, int64_t rows, int64_t vocab) {
  HostTensor logits(dtype, {rows, vocab}, static_cast<int64_t>(rng() % 2) * 7);
  logits.fill_normal(rng, 0.5 + static_cast<double>(rng() % 4));
  for (int64_t r = 0; r < rows; ++r) {
    const uint64_t kind = rng() % 4;
    for (int64_t i = 0; i < vocab; ++i) {
      if (kind == 0) logits.set_at({r, i}, std::round(logits.at({r, i})));
      if (kind == 1 && i > 0 && rng() % 3 == 0) logits.set_at({r, i}, -kInf);
    }
  }
  return logits;
}

std::vector<double> row_values(const HostTensor& t, int64_t row) {
  std::vector<double> values;
  for (int64_t i = 0; i < t.shape()[1]; ++i) values.push_back(t.at({row, i}));
  return values;
}

class SamplePerIsa : public IsaTest {};
INSTANTIATE_TEST_SUITE_P(, SamplePerIsa, kEveryIsa, isa_name);

TEST_P(SamplePerIsa, FollowsTheDefinitionOnRandomRows) {
  int compared = 0, doubtful = 0;
  for (uint64_t seed = 1; seed <= 250; ++seed) {
    Rng rng(seed);
    const int64_t vocab = rng() % 4 == 0 ? random_size(rng, 1, 6) : random_size(rng, 1, 900);
    const DType dtype = random_float_type(rng);
    const HostTensor logits = random_logits(rng, dtype, 1, vocab);
    OwnedRow owned = OwnedRow::random(rng, vocab);
    const std::vector<double> values = row_values(logits, 0);
    const std::vector<double> edited = edited_logits(values, owned.params());
    if (*std::max_element(edited.begin(), edited.end()) == -kInf) continue;
    const Kept kept = kept_tokens(values, owned.params());
    std::vector<SampledToken> out;
    for (uint64_t counter = 0; counter < 12; ++counter) {
      SampleRow params = owned.params();
      params.counter = counter;
      const Status status = sample(logits.view(), {&params, 1}, out);
      ASSERT_TRUE(status.ok()) << "seed " << seed << ": " << status.message();
      ASSERT_EQ(out.size(), 1u);
      const TokenId expected = draw(kept, uniform(params.seed, counter));
      if (kept.doubtful || expected < 0) {
        ++doubtful;
        continue;
      }
      ++compared;
      ASSERT_EQ(out[0].token, expected)
          << "seed " << seed << " counter " << counter << ", vocabulary " << vocab << ", top_k "
          << params.top_k << ", top_p " << params.top_p << ", min_p " << params.min_p;
    }
  }
  EXPECT_GT(compared, 2500);
  EXPECT_LT(doubtful, compared / 50);
}

/// 150,000 entries: what blocks, thresholds and partial selections are there for.
TEST_P(SamplePerIsa, FollowsTheDefinitionOnALargeVocabulary) {
  Rng rng(77);
  constexpr int64_t kVocab = 150'001;
  for (const double deviation : {0.01, 1.0, 4.0}) {
    HostTensor logits(DType::kBFloat16, {1, kVocab});
    logits.fill_normal(rng, deviation);
    const std::vector<double> values = row_values(logits, 0);
    SampleRow settings[5];
    settings[1].top_k = 50;
    settings[2].top_p = 0.9f;
    settings[3].min_p = 0.05f;
    settings[4].top_k = 100'000;
    settings[4].top_p = 0.5f;
    for (SampleRow& params : settings) {
      const Kept kept = kept_tokens(values, params);
      std::vector<SampledToken> out;
      for (params.counter = 0; params.counter < 4; ++params.counter) {
        ASSERT_TRUE(sample(logits.view(), {&params, 1}, out).ok());
        const double u = uniform(params.seed, params.counter);
        double before = 0.0;
        for (TokenId t = 0; t < out[0].token; ++t)
          before += kept.probability[static_cast<size_t>(t)];
        const double after = before + kept.probability[static_cast<size_t>(out[0].token)];
        EXPECT_GT(after, before) << "a token that was cut, top_p " << params.top_p;
        EXPECT_LE(before, u + 1e-5) << params.top_k << " " << params.top_p;
        EXPECT_GE(after, u - 1e-5) << params.top_k << " " << params.top_p;
      }
    }
  }
}

TEST_P(SamplePerIsa, DrawsInProportionToTheProbabilities) {
  constexpr int64_t kVocab = 130, kDraws = 20000;
  HostTensor logits(DType::kFloat32, {1, kVocab});
  for (int64_t i = 0; i < kVocab; ++i) logits.set(i, std::log(1.0 + static_cast<double>(i % 7)));
  SampleRow params;
  params.seed = 42;
  std::vector<int> count(kVocab, 0);
  std::vector<SampleRow> rows(100, params);
  HostTensor batch(DType::kFloat32, {100, kVocab});
  for (int64_t i = 0; i < batch.numel(); ++i) batch.set(i, logits.get(i % kVocab));
  std::vector<SampledToken> out;
  for (uint64_t round = 0; round < kDraws / 100; ++round) {
    for (size_t i = 0; i < 100; ++i) rows[i].counter = round * 100 + i;
    ASSERT_TRUE(sample(batch.view(), rows, out).ok());
    for (const SampledToken& t : out) ++count[static_cast<size_t>(t.token)];
  }
  const Kept kept = kept_tokens(row_values(logits, 0), params);
  double chi_square = 0.0;
  for (size_t i = 0; i < count.size(); ++i) {
    const double mean = kept.probability[i] * kDraws;
    chi_square += (count[i] - mean) * (count[i] - mean) / mean;
  }
  EXPECT_LT(chi_square, 184.0);  // 129 degrees of freedom, p = 0.001
}

TEST_P(SamplePerIsa, ARowAloneGivesWhatItGivesInABatch) {
  Rng rng(9);
  constexpr int64_t kRows = 37, kVocab = 517;
  const HostTensor logits = random_logits(rng, DType::kFloat16, kRows, kVocab);
  std::vector<OwnedRow> owned;
  for (int64_t i = 0; i < kRows; ++i) owned.push_back(OwnedRow::random(rng, kVocab));
  std::vector<SampleRow> rows;
  for (OwnedRow& r : owned) {
    r.row.num_logprobs = static_cast<int32_t>(rng() % 5) - 1;
    rows.push_back(r.params());
  }
  std::vector<SampledToken> batch, alone;
  std::vector<Status> status, alone_status;
  for (const int threads : {1, 2, 3}) {
    set_num_threads(threads);
    ASSERT_TRUE(sample(logits.view(), rows, batch, &status).ok());
    for (size_t i = 0; i < rows.size(); ++i) {
      TensorView one = logits.view();
      one.data = one.ptr<char>() + static_cast<int64_t>(i) * one.stride(0) * 2;
      one.shape[0] = 1;
      ASSERT_TRUE(sample(one, {&rows[i], 1}, alone, &alone_status).ok());
      EXPECT_EQ(alone_status[0].code(), status[i].code());
      EXPECT_EQ(alone[0].token, batch[i].token) << "row " << i << ", " << threads << " threads";
      ASSERT_EQ(alone[0].logprobs.size(), batch[i].logprobs.size());
      for (size_t k = 0; k < alone[0].logprobs.size(); ++k) {
        EXPECT_EQ(alone[0].logprobs[k].token, batch[i].logprobs[k].token);
        EXPECT_EQ(alone[0].logprobs[k].logprob, batch[i].logprobs[k].logprob);
      }
    }
  }
}

TEST_P(SamplePerIsa, GreedyTakesTheFirstOfTheBest) {
  for (const int64_t vocab : {1, 2, 63, 64, 65, 300}) {
    for (const int64_t at : {int64_t{0}, vocab / 2, vocab - 1}) {
      HostTensor logits(DType::kFloat32, {1, vocab});
      for (int64_t i = 0; i < vocab; ++i) logits.set(i, i < at ? -1.0 : 2.0);  // ties from `at` on
      SampleRow params;
      params.temperature = 9e-6f;
      params.top_k = 1;
      std::vector<SampledToken> out;
      ASSERT_TRUE(sample(logits.view(), {&params, 1}, out).ok());
      EXPECT_EQ(out[0].token, at) << vocab;
      logits.set(vocab - 1, kInf);
      ASSERT_TRUE(sample(logits.view(), {&params, 1}, out).ok());
      EXPECT_EQ(out[0].token, vocab - 1);
      params.temperature = 1.0f;
      params.top_k = -1;
      ASSERT_TRUE(sample(logits.view(), {&params, 1}, out).ok());
      EXPECT_EQ(out[0].token, vocab - 1);
    }
  }
}

TEST_P(SamplePerIsa, TopKOfTiesKeepsTheSmallestIds) {
  constexpr int64_t kVocab = 200;
  HostTensor logits(DType::kFloat32, {1, kVocab});
  for (int64_t i = 0; i < kVocab; ++i) logits.set(i, i == 150 ? 1.0 : 0.0);
  SampleRow params;
  params.top_k = 4;
  std::set<TokenId> seen;
  std::vector<SampledToken> out;
  for (params.counter = 0; params.counter < 200; ++params.counter) {
    ASSERT_TRUE(sample(logits.view(), {&params, 1}, out).ok());
    seen.insert(out[0].token);
  }
  EXPECT_EQ(seen, (std::set<TokenId>{0, 1, 2, 150}));
  params.top_k = -1;
  params.top_p = 0.02f;  // the best has e / (e + 199) = 0.0135 of it, each other one 0.005
  seen.clear();
  for (params.counter = 0; params.counter < 200; ++params.counter) {
    ASSERT_TRUE(sample(logits.view(), {&params, 1}, out).ok());
    seen.insert(out[0].token);
  }
  EXPECT_EQ(seen, (std::set<TokenId>{0, 1, 150}));
}

TEST_P(SamplePerIsa, AFailingRowLeavesTheOthersAlone) {
  HostTensor logits(DType::kFloat32, {4, 3});
  logits.assign<float>(std::vector<float>{0, 1, 2, 0, kNan, 2, -kInf, -kInf, -kInf, 5, 1, 2});
  std::vector<SampleRow> rows(4);
  for (SampleRow& r : rows) r.temperature = 0.0f;
  std::vector<SampledToken> out;
  std::vector<Status> status;
  ASSERT_TRUE(sample(logits.view(), rows, out, &status).ok());
  ASSERT_EQ(status.size(), 4u);
  EXPECT_EQ(out[0].token, 2);
  EXPECT_EQ(out[1].token, -1);
  EXPECT_EQ(out[2].token, -1);
  EXPECT_EQ(out[3].token, 0);
  EXPECT_TRUE(status[0].ok());
  EXPECT_EQ(status[1].code(), StatusCode::kInvalidArgument);
  EXPECT_NE(status[1].message().find("NaN"), std::string::npos) << status[1].message();
  EXPECT_EQ(status[2].code(), StatusCode::kInvalidArgument);
  EXPECT_NE(status[2].message().find("no token is left"), std::string::npos);
  EXPECT_TRUE(status[3].ok());
  const Status whole = sample(logits.view(), rows, out);
  EXPECT_EQ(whole.code(), StatusCode::kInvalidArgument);
  EXPECT_NE(whole.message().find("row 1"), std::string::npos) << whole.message();
  EXPECT_EQ(out[3].token, 0);
}

TEST(Sample, PenaltiesCountPromptAndOutputAsDocumented) {
  HostTensor logits(DType::kFloat32, {1, 4});
  const auto best = [&](std::vector<float> values, OwnedRow r) {
    logits.assign<float>(values);
    SampleRow params = r.params();
    params.temperature = 0.0f;
    std::vector<SampledToken> out;
    EXPECT_TRUE(sample(logits.view(), {&params, 1}, out).ok());
    return out[0].token;
  };
  OwnedRow r;
  r.row.repetition_penalty = 2.0f;
  r.prompt = {0, 0, 99, -5};  // once, however often; ids outside are no tokens of this row
  EXPECT_EQ(best({3.9f, 2.0f, 0, 0}, r), 1);
  EXPECT_EQ(best({4.1f, 2.0f, 0, 0}, r), 0);
  r.output = {0, 0};  // again only once
  EXPECT_EQ(best({4.1f, 2.0f, 0, 0}, r), 0);
  EXPECT_EQ(best({-1.0f, -1.9f, -3, -3}, r), 1);  // below zero it multiplies
  r = {};
  r.row.frequency_penalty = 0.5f;
  r.prompt = {0, 0, 0, 0, 0, 0};  // prompt tokens do not count here
  r.output = {0, 1, 0};
  EXPECT_EQ(best({1.4f, 1.0f, 0, 0}, r), 1);  // 0.4 and 0.5
  EXPECT_EQ(best({1.6f, 1.0f, 0, 0}, r), 0);
  r.row.frequency_penalty = 0.0f;
  r.row.presence_penalty = 0.5f;
  EXPECT_EQ(best({1.1f, 1.0f, 0, 0}, r), 0);  // both lose the same
  EXPECT_EQ(best({1.1f, 1.0f, 0.7f, 0}, r), 2);
}

TEST(Sample, MasksAndBiasComeBeforePenalties) {
  HostTensor logits(DType::kFloat32, {1, 4});
  logits.assign<float>(std::vector<float>{4, 3, 2, 1});
  const auto best = [&](OwnedRow r) {
    SampleRow params = r.params();
    params.temperature = 0.0f;
    std::vector<SampledToken> out;
    std::vector<Status> status;
    EXPECT_TRUE(sample(logits.view(), {&params, 1}, out, &status).ok());
    return out[0].token;
  };
  OwnedRow r;
  r.banned = {0};
  EXPECT_EQ(best(r), 1);
  r.allowed = {0, 3, 2, 3, 77};
  EXPECT_EQ(best(r), 2);
  r.bias = {{3, 5.0f}, {1, 100.0f}, {1234, 1.0f}};  // a masked token stays masked
  EXPECT_EQ(best(r), 3);
  r.row.repetition_penalty = 2.0f;
  r.prompt = {3};  // (1 + 5) / 2 = 3 > 2: the bias came first, else 1 / 2 + 5
  EXPECT_EQ(best(r), 3);
  r.bias = {{3, 2.0f}};  // (1 + 2) / 2 < 2 < 1 / 2 + 2
  EXPECT_EQ(best(r), 2);
  r.allowed = {0};
  EXPECT_EQ(best(r), -1);
  r = {};
  r.bias = {{2, kInf}, {0, -kInf}};
  EXPECT_EQ(best(r), 2);
  r.bias = {{2, kNan}};
  EXPECT_EQ(best(r), -1);
}

TEST(Sample, RefusesParametersOutOfRange) {
  HostTensor logits(DType::kFloat32, {1, 4});
  logits.assign<float>(std::vector<float>{4, 3, 2, 1});
  const auto expect = [&](auto change, const std::string& name) {
    SampleRow params;
    change(params);
    std::vector<SampledToken> out;
    std::vector<Status> status;
    ASSERT_TRUE(sample(logits.view(), {&params, 1}, out, &status).ok());
    EXPECT_EQ(status[0].code(), StatusCode::kInvalidArgument) << name;
    EXPECT_NE(status[0].message().find(name), std::string::npos) << status[0].message();
    EXPECT_EQ(out[0].token, -1);
  };
  for (const float bad : {kNan, -0.1f, kInf}) {
    expect([bad](SampleRow& r) { r.temperature = bad; }, "temperature");
    expect([bad](SampleRow& r) { r.top_p = bad; }, "top_p");
    expect([bad](SampleRow& r) { r.min_p = bad; }, "min_p");
    expect([bad](SampleRow& r) { r.repetition_penalty = bad; }, "repetition_penalty");
  }
  expect([](SampleRow& r) { r.top_p = 0.0f; }, "top_p");
  expect([](SampleRow& r) { r.top_k = 0; }, "top_k");
  expect([](SampleRow& r) { r.top_k = -2; }, "top_k");
  expect([](SampleRow& r) { r.num_logprobs = -2; }, "num_logprobs");
  expect([](SampleRow& r) { r.presence_penalty = kNan; }, "presence_penalty");
  expect([](SampleRow& r) { r.frequency_penalty = kInf; }, "frequency_penalty");
}

TEST(Sample, ChecksTheLogits) {
  HostTensor logits(DType::kFloat32, {2, 4}), ids(DType::kInt32, {1, 4}),
      empty(DType::kFloat32, {1, 0});
  std::vector<SampleRow> rows(1);
  std::vector<SampledToken> out(5);
  const auto expect = [&](const TensorView& view, const std::string& word) {
    const Status status = sample(view, rows, out);
    EXPECT_EQ(status.code(), StatusCode::kInvalidArgument);
    EXPECT_NE(status.message().find(word), std::string::npos) << status.message();
  };
  expect(logits.view(), "logits has shape [2, 4]");
  expect(ids.view(), "logits is int32");
  expect(empty.view(), "0 tokens");
  expect({}, "logits is absent");
  rows.clear();
  HostTensor none(DType::kFloat32, {0, 4});
  EXPECT_TRUE(sample(none.view(), rows, out).ok());
  EXPECT_TRUE(out.empty());
}

}  // namespace
}  // namespace mmcore::ops::testing
