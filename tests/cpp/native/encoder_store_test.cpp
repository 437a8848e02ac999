#include "native/encoder_store.h"

#include <gtest/gtest.h>

#include <set>

namespace mmcore::native {
namespace {

constexpr int64_t kItemRows = 4;

// 14 rows: three outputs, and two rows that no output fits into.
EncoderStore make_store() { return EncoderStore({}, DType::kFloat32, 14, kItemRows, 8); }

TEST(EncoderStore, KeepsOutputsApartUntilTheyAreEvicted) {
  EncoderStore store = make_store();
  std::set<int64_t> firsts;
  for (const EncoderSlot slot : {7, 100, 3}) firsts.insert(store.add(slot).value());
  EXPECT_EQ(firsts, (std::set<int64_t>{0, 4, 8}));
  const int64_t kept = store.add(100).value();
  EXPECT_TRUE(firsts.contains(kept)) << "a step that runs again finds its place";

  const Status full = store.add(5).status();
  EXPECT_EQ(full.code(), StatusCode::kInvalidArgument);
  EXPECT_NE(full.message().find("encoder_cache_rows"), std::string::npos) << full.message();

  store.evict({7, 7, 99});  // twice, and one that is not there
  EXPECT_TRUE(store.add(5).ok());
  EXPECT_FALSE(store.add(6).ok());
  EXPECT_EQ(store.add(100).value(), kept);
}

TEST(EncoderStore, SaysWhichRowOverwritesAToken) {
  EncoderStore store = make_store();
  const int64_t a = store.add(1).value(), b = store.add(2).value();
  StepPlan plan;
  plan.token_ids.assign(7, 0);
  std::vector<int64_t> sources = {1, 2};
  ASSERT_TRUE(store.find_rows(plan, sources).ok());
  EXPECT_TRUE(sources.empty());

  // The end of one output, then the beginning of another one.
  plan.embeddings = {
      {.request = 1, .item_index = 0, .slot = 1, .src_row = 2, .dst_row = 0, .num_rows = 2},
      {.request = 1, .item_index = 1, .slot = 2, .src_row = 0, .dst_row = 4, .num_rows = 3}};
  ASSERT_TRUE(store.find_rows(plan, sources).ok());
  EXPECT_EQ(sources, (std::vector<int64_t>{a + 2, a + 3, -1, -1, b, b + 1, b + 2}));

  plan.embeddings[0].num_rows = 3;
  EXPECT_EQ(store.find_rows(plan, sources).code(), StatusCode::kInternal) << "beyond its end";
  plan.embeddings[0].num_rows = 2;
  store.evict({2});
  EXPECT_EQ(store.find_rows(plan, sources).code(), StatusCode::kInternal) << "evicted";
}

}  // namespace
}  // namespace mmcore::native
