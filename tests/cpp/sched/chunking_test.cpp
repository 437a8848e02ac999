#include "sched/chunking.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <random>

namespace mmcore {
namespace {

// position  0 1 2 3 4 5 6 7 8 9 10 11
// item          0 0 0 0     1 1 1
SpanMap example() { return SpanMap({{.offset = 2, .length = 4}, {.offset = 8, .length = 3}}); }

struct Case {
  int64_t begin, budget, max_chunk, split_end, whole_end;
};

TEST(Chunking, ends_where_the_budget_and_the_spans_allow) {
  for (const Case& c : {
           Case{0, 1, 0, 1, 1},
           Case{0, 2, 0, 2, 2},
           Case{0, 3, 0, 3, 2},     // inside item 0
           Case{0, 6, 0, 6, 6},     // behind item 0
           Case{0, 9, 0, 9, 8},     // inside item 1
           Case{0, 50, 0, 12, 12},  // the end
           Case{2, 3, 0, 5, 2},     // item 0 does not fit: nothing
           Case{2, 4, 0, 6, 6},
           Case{2, 4, 1, 3, 6},  // a span may exceed the longest chunk
           Case{2, 3, 1, 3, 2},  // but not the budget
           Case{6, 50, 1, 7, 7},
           Case{6, 50, 3, 9, 8},
           Case{11, 50, 0, 12, 12},
       }) {
    ChunkLimits limits{.budget = c.budget, .max_chunk = c.max_chunk};
    EXPECT_EQ(chunk_end(example(), c.begin, 12, limits), c.split_end) << c.begin << " " << c.budget;
    limits.split_items = false;
    EXPECT_EQ(chunk_end(example(), c.begin, 12, limits), c.whole_end) << c.begin << " " << c.budget;
  }
}

TEST(Chunking, without_chunks_it_is_all_or_nothing) {
  ChunkLimits limits{.budget = 12, .max_chunk = 3, .chunked = false};
  EXPECT_EQ(chunk_end(example(), 0, 12, limits), 12);
  limits.budget = 11;
  EXPECT_EQ(chunk_end(example(), 0, 12, limits), 0);
  EXPECT_EQ(chunk_end(example(), 1, 12, limits), 12);
}

TEST(Chunking, a_hit_leaves_a_token_and_enters_no_whole_item) {
  struct Hit {
    int64_t matched, size, split, whole;
  };
  for (const Hit& h : {Hit{0, 12, 0, 0}, Hit{2, 12, 2, 2}, Hit{4, 12, 4, 2}, Hit{6, 12, 6, 6},
                       Hit{8, 12, 8, 8}, Hit{9, 12, 9, 8}, Hit{12, 12, 11, 11}, Hit{12, 11, 10, 8},
                       Hit{3, 3, 2, 2}, Hit{1, 1, 0, 0}}) {
    EXPECT_EQ(usable_hit(example(), h.matched, h.size, true), h.split) << h.matched;
    EXPECT_EQ(usable_hit(example(), h.matched, h.size, false), h.whole) << h.matched;
  }
}

// Whatever the spans, repeated chunks reach the end, and in whole mode never stop inside a span.
TEST(Chunking, always_reaches_the_end_when_every_span_fits_the_budget) {
  std::mt19937_64 random(9);
  for (int round = 0; round < 500; ++round) {
    std::vector<MediaItem> items;
    int32_t at = 0;
    int64_t longest = 1;
    for (uint64_t n = random() % 5; n > 0; --n) {
      MediaItem item{.offset = at + static_cast<int32_t>(random() % 3),
                     .length = 1 + static_cast<int32_t>(random() % 6)};
      at = item.offset + item.length;
      longest = std::max<int64_t>(longest, item.length);
      items.push_back(item);
    }
    const SpanMap spans(items);
    const int64_t size = at + 1 + static_cast<int64_t>(random() % 3);
    const ChunkLimits limits{.budget = longest + static_cast<int64_t>(random() % 4),
                             .max_chunk = static_cast<int64_t>(random() % 4),
                             .split_items = random() % 2 == 0};
    for (int64_t begin = 0; begin < size;) {
      const int64_t end = chunk_end(spans, begin, size, limits);
      ASSERT_GT(end, begin) << "round " << round;
      ASSERT_LE(end - begin, limits.budget) << "round " << round;
      ASSERT_TRUE(limits.split_items || !spans.splits_span(end)) << "round " << round;
      begin = end;
    }
  }
}

}  // namespace
}  // namespace mmcore
