#include "media/span_map.h"

#include <gtest/gtest.h>

#include <random>

namespace mmcore {
namespace {

// position  0 1 2 3 4 5 6 7 8 9
// item          0 0 0   1 2 2
// mask          1 0 1   1 1 1
SpanMap example() {
  MediaItem first{.offset = 2, .length = 3, .embed_mask = {1, 0, 1}};
  MediaItem second{.offset = 6, .length = 1};
  MediaItem third{.offset = 7, .length = 2, .embed_mask = {1, 1}};
  return SpanMap({first, second, third});
}

TEST(SpanMap, finds_the_items_of_a_range) {
  const SpanMap spans = example();
  struct Case {
    int64_t begin, end;
    int32_t first, last;
  };
  for (const Case& c :
       {Case{0, 2, 0, 0}, Case{0, 3, 0, 1}, Case{4, 5, 0, 1}, Case{5, 6, 1, 1}, Case{4, 7, 0, 2},
        Case{6, 8, 1, 3}, Case{0, 100, 0, 3}, Case{9, 50, 3, 3}, Case{3, 3, 0, 0}}) {
    const ItemRange range = spans.overlapping(c.begin, c.end);
    EXPECT_EQ(range.last - range.first, c.last - c.first) << c.begin << ".." << c.end;
    EXPECT_TRUE(range.empty() || range.first == c.first) << c.begin << ".." << c.end;
  }
}

TEST(SpanMap, a_cut_at_the_border_of_a_span_splits_nothing) {
  const SpanMap spans = example();
  const std::vector<bool> splits = {false, false, false, true, true,
                                    false, false, false, true, false};
  for (size_t p = 0; p < splits.size(); ++p)
    EXPECT_EQ(spans.splits_span(static_cast<int64_t>(p)), splits[p]) << p;
}

TEST(SpanMap, counts_embedding_rows_through_the_mask) {
  const SpanMap spans = example();
  EXPECT_EQ(spans.rows(0), 2);
  EXPECT_EQ(spans.rows_before(0, 0), 0);
  EXPECT_EQ(spans.rows_before(0, 3), 1);
  EXPECT_EQ(spans.rows_before(0, 4), 1);
  EXPECT_EQ(spans.rows_before(0, 5), 2);
  EXPECT_EQ(spans.rows_before(0, 99), 2);
  EXPECT_TRUE(spans.is_embedding(0, 2));
  EXPECT_FALSE(spans.is_embedding(0, 3));
  EXPECT_TRUE(spans.masked(0));
  EXPECT_FALSE(spans.masked(2)) << "a mask of ones is no mask";
}

TEST(SpanMap, agrees_with_a_token_by_token_map) {
  std::mt19937_64 random(20);
  const auto draw = [&](int64_t low, int64_t high) {
    return low + static_cast<int64_t>(random() % static_cast<uint64_t>(high - low + 1));
  };
  for (int round = 0; round < 300; ++round) {
    std::vector<MediaItem> items;
    std::vector<int> owner;
    for (int64_t count = draw(0, 4); count > 0; --count) {
      owner.insert(owner.end(), static_cast<size_t>(draw(0, 3)), -1);
      MediaItem item{.offset = static_cast<int32_t>(owner.size()),
                     .length = static_cast<int32_t>(draw(1, 5))};
      owner.insert(owner.end(), static_cast<size_t>(item.length), static_cast<int>(items.size()));
      items.push_back(item);
    }
    owner.insert(owner.end(), 3, -1);
    const SpanMap spans(items);
    const auto size = static_cast<int64_t>(owner.size());
    for (int64_t p = 1; p < size; ++p) {
      const auto at = static_cast<size_t>(p);
      EXPECT_EQ(spans.splits_span(p), owner[at] >= 0 && owner[at] == owner[at - 1]) << round;
      const ItemRange one = spans.overlapping(p, p + 1);
      EXPECT_EQ(one.empty() ? -1 : one.first, owner[at]) << round;
    }
  }
}

}  // namespace
}  // namespace mmcore
