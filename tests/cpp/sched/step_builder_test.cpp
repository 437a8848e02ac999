#include "sched/step_builder.h"

#include <gtest/gtest.h>

#include "sched/scheduler_world.h"

namespace mmcore {
namespace {

using testing::SchedulerWorld;
using testing::world_config;
using testing::world_item;

class Builder : public ::testing::Test {
 protected:
  explicit Builder(const EngineConfig& config = world_config())
      : world(config), builder(config.block_size) {}

  const StepPlan& build() {
    world.select();
    builder.build(++step, world.scheduler.entries(), world.scheduler.resources(), plan);
    return plan;
  }
  void run() {
    build();
    world.commit();
  }
  std::vector<int32_t> table_row(size_t row) const {
    const auto width = static_cast<ptrdiff_t>(plan.block_table_width);
    const auto begin = plan.block_tables.begin() + static_cast<ptrdiff_t>(row) * width;
    return {begin, begin + width};
  }

  SchedulerWorld world;
  StepBuilder builder;
  StepPlan plan;
  uint64_t step = 0;
};

TEST_F(Builder, writes_the_rows_of_decodes_and_chunks) {
  world.add(3, 500);
  run();
  world.add(30, 700);
  build();
  EXPECT_EQ(plan.step, 2u);
  ASSERT_EQ(plan.sequences.size(), 2u);
  const ScheduledSequence& decode = plan.sequences[0];
  EXPECT_EQ(decode.request, 1u);
  EXPECT_EQ(decode.num_computed, 3);
  EXPECT_EQ(decode.num_tokens, 1);
  EXPECT_FALSE(decode.is_prefill);
  EXPECT_EQ(decode.sample_row, 0);
  const ScheduledSequence& chunk = plan.sequences[1];
  EXPECT_EQ(chunk.first_row, 1);
  EXPECT_EQ(chunk.num_tokens, 15);
  EXPECT_TRUE(chunk.is_prefill);
  EXPECT_EQ(chunk.sample_row, -1) << "the chunk does not reach the newest token";
  EXPECT_EQ(plan.query_start, (std::vector<int32_t>{0, 1, 16}));
  EXPECT_EQ(plan.seq_lens, (std::vector<int32_t>{4, 15}));
  EXPECT_EQ(plan.token_ids[0], 1);
  EXPECT_EQ(plan.token_ids[1], 700);
  EXPECT_EQ(plan.token_ids[15], 714);
  EXPECT_EQ(plan.positions[0], 3);
  EXPECT_EQ(plan.positions[15], 14);
  // Block 1 is the first sequence's; its fourth slot is written.
  EXPECT_EQ(plan.slot_mapping[0], 1 * 4 + 3);
  EXPECT_EQ(plan.slot_mapping[1], 2 * 4);
  EXPECT_EQ(plan.slot_mapping[15], 5 * 4 + 2);
  EXPECT_EQ(plan.block_table_width, 8);
  EXPECT_EQ(table_row(0), (std::vector<int32_t>{1, 0, 0, 0, 0, 0, 0, 0}));
  EXPECT_EQ(table_row(1), (std::vector<int32_t>{2, 3, 4, 5, 0, 0, 0, 0}));
  EXPECT_EQ(plan.sample_rows, std::vector<int32_t>{0});
  EXPECT_EQ(plan.sampling.size(), 1u);
  EXPECT_EQ(plan.max_query_len, 15);
  EXPECT_EQ(plan.max_seq_len, 15);
}

TEST_F(Builder, table_rows_follow_their_sequences) {
  Sequence* first = world.add(9, 500);
  world.add(2, 600);
  world.add(7, 700);
  run();
  run();
  world.scheduler.remove(first);
  build();
  EXPECT_EQ(table_row(0), (std::vector<int32_t>{4, 0, 0, 0, 0, 0, 0, 0})) << "no rest of the first";
  EXPECT_EQ(table_row(1)[0], 5);
  world.scheduler.rollback();
  Sequence* fourth = world.add(40, 800);
  build();
  EXPECT_EQ(plan.block_table_width, 8);
  world.commit();
  while (fourth->computed < 40) run();
  build();
  EXPECT_EQ(plan.block_table_width, 16);
  for (size_t i = 0; i < 3; ++i) {
    const BlockTable& table = world.scheduler.entries()[i].sequence->table;
    std::vector<int32_t> expected(table.blocks().begin(), table.blocks().end());
    expected.resize(16);
    EXPECT_EQ(table_row(i), expected);
  }
}

TEST_F(Builder, sampling_rows_follow_their_sequences) {
  for (int i = 0; i < 3; ++i) {
    Sequence* s = world.add(2);
    s->sampling.seed = static_cast<uint64_t>(10 + i);
  }
  run();
  run();
  world.scheduler.remove(world.scheduler.running()[1]);
  build();
  ASSERT_EQ(plan.sampling.size(), 2u);
  EXPECT_EQ(plan.sampling[0].seed, 10u);
  EXPECT_EQ(plan.sampling[1].seed, 12u);
  EXPECT_EQ(plan.sampling[1].counter, 2u);
  EXPECT_EQ(plan.sampling[1].output_tokens.size(), 2u);
  world.scheduler.rollback();
  Sequence* late = world.add(2);
  late->sampling.seed = 13;
  build();
  ASSERT_EQ(plan.sampling.size(), 3u);
  EXPECT_EQ(plan.sampling[2].seed, 13u);
  EXPECT_EQ(plan.sampling[2].counter, 0u);
}

TEST_F(Builder, copies_embeddings_in_runs_and_lists_an_item_once) {
  // Span [2, 9): rows 0 1 _ 2 3 _ 4; the second request has the same item, whole.
  const std::vector<uint8_t> mask = {1, 1, 0, 1, 1, 0, 1};
  world.add(11, 500, {world_item(2, 7, 1, mask)});
  world.add(20, 600, {world_item(1, 7, 1, mask), world_item(15, 3, 0)});
  build();
  ASSERT_EQ(plan.encode.size(), 1u) << "the second item is not reached, the first is shared";
  EXPECT_EQ(plan.encode[0].request, 1u);
  EXPECT_EQ(plan.encode[0].num_embeddings, 5);
  struct Copy {
    RequestId request;
    int32_t src, dst, rows;
  };
  const std::vector<Copy> expected = {
      {1, 0, 2, 2}, {1, 2, 5, 2}, {1, 4, 8, 1}, {2, 0, 12, 2}, {2, 2, 15, 1}};
  ASSERT_EQ(plan.embeddings.size(), expected.size());
  for (size_t i = 0; i < expected.size(); ++i) {
    EXPECT_EQ(plan.embeddings[i].request, expected[i].request) << i;
    EXPECT_EQ(plan.embeddings[i].src_row, expected[i].src) << i;
    EXPECT_EQ(plan.embeddings[i].dst_row, expected[i].dst) << i;
    EXPECT_EQ(plan.embeddings[i].num_rows, expected[i].rows) << i;
    EXPECT_EQ(plan.embeddings[i].slot, plan.encode[0].slot) << i;
  }
  world.commit();
  build();
  EXPECT_EQ(plan.embeddings[0].src_row, 3) << "the second half of the second request's item";
  EXPECT_EQ(plan.encode.size(), 1u) << "its other item";
  EXPECT_EQ(plan.encode[0].item_index, 1);
}

TEST_F(Builder, scores_each_prompt_token_by_the_row_before_it) {
  Sequence* s = world.add(20, 500);
  s->sampling.num_prompt_logprobs = 3;
  build();
  ASSERT_EQ(plan.prompt_logprob_rows.size(), 16u);
  EXPECT_EQ(plan.prompt_logprob_rows[15], 15);
  EXPECT_EQ(plan.prompt_logprob_targets[0], 501);
  EXPECT_EQ(plan.prompt_logprob_targets[15], 516);
  EXPECT_EQ(plan.prompt_logprob_counts[7], 3);
  EXPECT_EQ(world.scheduler.entries()[0].num_prompt_rows, 16);
  world.commit();
  s->prompt_logprobs_done = 16;
  build();
  EXPECT_EQ(plan.prompt_logprob_rows, (std::vector<int32_t>{0, 1, 2}));
  EXPECT_EQ(plan.prompt_logprob_targets, (std::vector<TokenId>{517, 518, 519}));
  EXPECT_EQ(plan.sample_rows, std::vector<int32_t>{3});
}

}  // namespace
}  // namespace mmcore
