// On the CPU; tests/cuda/native runs whole requests through the arrays of a GPU.
#include "native/step_arrays.h"

#include <gtest/gtest.h>

namespace mmcore::native {
namespace {

template <class T>
std::vector<T> values(const TensorView& view) {
  return {view.ptr<T>(), view.ptr<T>() + view.numel()};
}

// A prefill of three tokens, and a decode.
StepPlan make_plan() {
  StepPlan plan;
  plan.sequences.resize(2);
  plan.token_ids = {9, 5, 6, 7};
  plan.positions = {20, 0, 1, 2};
  plan.slot_mapping = {36, 64, 65, 66};
  plan.query_start = {0, 1, 4};
  plan.seq_lens = {21, 3};
  plan.block_tables = {1, 2, 0, 0, 0, 0, 0, 0, 4, 0, 0, 0, 0, 0, 0, 0};
  plan.block_table_width = 8;
  plan.max_query_len = 3;
  plan.sample_rows = {0, 3};
  plan.sampling.resize(2);
  plan.sampling[0].temperature = 0.5f;
  plan.sampling[0].top_p = 0.9f;
  plan.sampling[0].min_p = 0.1f;
  plan.sampling[0].top_k = 40;
  plan.sampling[1].seed = ~uint64_t{0};
  plan.sampling[1].counter = 12;
  plan.prompt_logprob_rows = {1, 2};
  plan.block_copies = {{.src = 3, .dst = 4}, {.src = 5, .dst = 6}};
  return plan;
}

TEST(StepArrays, BringEveryArrayOfAPlan) {
  // More than the limits: on a CPU there is always room.
  for (const StepLimits& limits : {StepLimits{.tokens = 16, .sequences = 4, .blocks = 5},
                                   StepLimits{.tokens = 1, .sequences = 1, .blocks = 1}}) {
    StepArrays arrays({}, {}, {0}, limits);
    const StepPlan plan = make_plan();
    const StepMedia media{.sources = {-1, -1, 30, 31}, .feature_rows = {-1, 8, 9}};
    StepTensors step;
    ASSERT_TRUE(arrays.read(plan, media, step).ok());
    EXPECT_EQ(values<int32_t>(step.token_ids), plan.token_ids);
    EXPECT_EQ(values<int64_t>(step.positions), plan.positions);
    EXPECT_EQ(values<int64_t>(step.slots), plan.slot_mapping);
    EXPECT_EQ(values<int32_t>(step.query_start), plan.query_start);
    EXPECT_EQ(values<int32_t>(step.seq_lens), plan.seq_lens);
    EXPECT_EQ(values<int32_t>(step.block_tables), plan.block_tables);
    EXPECT_EQ(step.block_tables.size(0), 2);
    EXPECT_EQ(values<int32_t>(step.sample_rows), plan.sample_rows);
    EXPECT_EQ(values<int32_t>(step.prompt_rows), plan.prompt_logprob_rows);
    EXPECT_EQ(values<int64_t>(step.sources), media.sources);
    EXPECT_EQ(values<int64_t>(step.feature_rows), media.feature_rows);
    EXPECT_EQ(values<int64_t>(step.block_copies), (std::vector<int64_t>{3, 4, 5, 6}));
    EXPECT_EQ(step.block_copies.size(1), 2);
    EXPECT_EQ(values<float>(step.temperature), (std::vector<float>{0.5f, 1.0f}));
    EXPECT_EQ(values<float>(step.top_p), (std::vector<float>{0.9f, 1.0f}));
    EXPECT_EQ(values<float>(step.min_p), (std::vector<float>{0.1f, 0.0f}));
    EXPECT_EQ(values<int32_t>(step.top_k), (std::vector<int32_t>{40, -1}));
    EXPECT_EQ(values<int64_t>(step.seed), (std::vector<int64_t>{0, -1}));
    EXPECT_EQ(values<int64_t>(step.counter), (std::vector<int64_t>{0, 12}));
    EXPECT_EQ(step.max_query_len, 3);
    EXPECT_TRUE(step.plans.empty()) << "a CPU divides attention by itself";
  }
}

TEST(StepArrays, LeaveOutWhatAPlanDoesNotHave) {
  StepArrays arrays({}, {}, {0}, {.tokens = 16, .sequences = 4, .blocks = 5});
  StepTensors step;
  ASSERT_TRUE(arrays.read(make_plan(), {.sources = {0, 1, 2, 3}, .feature_rows = {}}, step).ok());
  StepPlan plan = make_plan();
  plan.prompt_logprob_rows.clear();
  plan.block_copies.clear();
  ASSERT_TRUE(arrays.read(plan, {}, step).ok());
  EXPECT_FALSE(step.sources.present);
  EXPECT_FALSE(step.feature_rows.present);
  EXPECT_FALSE(step.prompt_rows.present);
  EXPECT_FALSE(step.block_copies.present);
  EXPECT_EQ(values<int32_t>(step.token_ids), plan.token_ids);
}

}  // namespace
}  // namespace mmcore::native
