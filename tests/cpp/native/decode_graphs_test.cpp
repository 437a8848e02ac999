// Which steps are for a graph; tests/cuda/native runs them.
#include "native/decode_graphs.h"

#include <gtest/gtest.h>

namespace mmcore::native {
namespace {

StepPlan decode_of(size_t rows) {
  StepPlan plan;
  plan.sequences.resize(rows);
  plan.token_ids.resize(rows);
  plan.sample_rows.resize(rows);
  return plan;
}

TEST(DecodeGraphs, PadBatchesToAFewSizes) {
  const DecodeGraphs graphs({}, 300);
  const std::pair<size_t, int64_t> sizes[] = {
      {0, 0},     {1, 1},     {2, 2},     {3, 4},     {4, 4},     {5, 8},     {8, 8},  {9, 16},
      {128, 128}, {129, 144}, {256, 256}, {257, 288}, {289, 300}, {300, 300}, {513, 0}};
  for (const auto& [rows, padded] : sizes) EXPECT_EQ(graphs.rows_for(decode_of(rows)), padded);
}

TEST(DecodeGraphs, TakeNothingButDecodes) {
  const DecodeGraphs graphs({}, 300);
  const auto rows_of = [&](auto&& change) {
    StepPlan plan = decode_of(2);
    change(plan);
    return graphs.rows_for(plan);
  };
  EXPECT_EQ(rows_of([](StepPlan&) {}), 2);
  EXPECT_EQ(rows_of([](StepPlan& plan) { plan.block_copies.emplace_back(); }), 2);
  EXPECT_EQ(rows_of([](StepPlan& plan) { plan.token_ids.emplace_back(); }), 0) << "a prefill";
  EXPECT_EQ(rows_of([](StepPlan& plan) { plan.sample_rows.pop_back(); }), 0) << "a chunk";
  EXPECT_EQ(rows_of([](StepPlan& plan) { plan.embeddings.emplace_back(); }), 0);
  EXPECT_EQ(rows_of([](StepPlan& plan) { plan.encode.emplace_back(); }), 0);
  EXPECT_EQ(rows_of([](StepPlan& plan) { plan.prompt_logprob_rows.emplace_back(); }), 0);
}

}  // namespace
}  // namespace mmcore::native
