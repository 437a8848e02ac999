// Layer: unit. The form with tensors picks what sample picks.
#include <gtest/gtest.h>

#include <limits>

#include "mmcore/ops.h"
#include "ops/host_tensor.h"
#include "ops/rounding.h"

namespace mmcore::ops::testing {
namespace {

struct Columns {
  HostTensor temperature, top_p, min_p, top_k, seed, counter, tokens;

  explicit Columns(const std::vector<SampleRow>& rows) {
    const auto n = static_cast<int64_t>(rows.size());
    for (HostTensor* t : {&temperature, &top_p, &min_p}) *t = HostTensor(DType::kFloat32, {n});
    for (HostTensor* t : {&top_k, &tokens}) *t = HostTensor(DType::kInt32, {n});
    for (HostTensor* t : {&seed, &counter}) *t = HostTensor(DType::kInt64, {n});
    for (int64_t i = 0; i < n; ++i) {
      const SampleRow& r = rows[static_cast<size_t>(i)];
      temperature.set(i, r.temperature);
      top_p.set(i, r.top_p);
      min_p.set(i, r.min_p);
      top_k.set(i, r.top_k);
      seed.set(i, static_cast<double>(r.seed));
      counter.set(i, static_cast<double>(r.counter));
    }
  }

  SampleTensorsArgs args(const HostTensor& logits) const {
    return {.logits = logits.view(),
            .temperature = temperature.view(),
            .top_p = top_p.view(),
            .min_p = min_p.view(),
            .top_k = top_k.view(),
            .seed = seed.view(),
            .counter = counter.view(),
            .tokens = tokens.view(),
            .workspace = {}};
  }
};

TEST(SampleTensors, PicksWhatSamplePicks) {
  constexpr int64_t kRows = 40, kVocab = 700;
  Rng rng(1);
  HostTensor logits(DType::kBFloat16, {kRows, kVocab}, 3);
  logits.fill_normal(rng, 2.0);
  logits.set_at({5, 9}, std::numeric_limits<double>::quiet_NaN());
  std::vector<SampleRow> rows(kRows);
  for (size_t i = 0; i < rows.size(); ++i) {
    rows[i].temperature = i % 3 == 0 ? 0.0f : 0.8f;
    rows[i].top_k = i % 2 == 0 ? 20 : -1;
    rows[i].top_p = i % 5 == 0 ? 0.9f : 1.0f;
    rows[i].min_p = i % 7 == 0 ? 0.05f : 0.0f;
    rows[i].seed = i;
    rows[i].counter = 3;
  }
  rows[6].top_p = 2.0f;
  const Columns columns(rows);
  ASSERT_TRUE(sample_tensors(columns.args(logits)).ok());
  std::vector<SampledToken> expected;
  std::vector<Status> status;
  ASSERT_TRUE(sample(logits.view(), rows, expected, &status).ok());
  for (int64_t i = 0; i < kRows; ++i)
    EXPECT_EQ(columns.tokens.get(i), expected[static_cast<size_t>(i)].token) << "row " << i;
  EXPECT_EQ(columns.tokens.get(5), -1);
  EXPECT_EQ(columns.tokens.get(6), -1);
}

TEST(SampleTensors, NamesWhatDoesNotFit) {
  HostTensor logits(DType::kFloat32, {2, 10}), three(DType::kFloat32, {3});
  Rng rng(1);
  logits.fill_uniform(rng, 0, 1);
  const Columns columns(std::vector<SampleRow>(2));
  SampleTensorsArgs args = columns.args(logits);
  args.top_p = three.view();
  Status status = sample_tensors(args);
  EXPECT_EQ(status.code(), StatusCode::kInvalidArgument);
  EXPECT_NE(status.message().find("top_p has shape [3]"), std::string::npos) << status.message();
  args = columns.args(logits);
  args.seed = args.top_k;
  status = sample_tensors(args);
  EXPECT_NE(status.message().find("seed is int32"), std::string::npos) << status.message();
}

TEST(SampleTensors, WorkspaceGrowsWithSegments) {
  EXPECT_EQ(sample_tensors_workspace_bytes(0, 100), 0);
  EXPECT_EQ(sample_tensors_workspace_bytes(3, 0), 0);
  EXPECT_EQ(sample_tensors_workspace_bytes(1, 256), 16);
  EXPECT_EQ(sample_tensors_workspace_bytes(2, 257), 64);
  EXPECT_EQ(sample_tensors_workspace_bytes(1, 2'000'000'000), 1024 * 16);
}

}  // namespace
}  // namespace mmcore::ops::testing
