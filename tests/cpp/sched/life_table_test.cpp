#include "sched/life_table.h"

#include <gtest/gtest.h>

#include <cmath>
#include <random>

namespace mmcore {
namespace {

constexpr int32_t kLimit = 100'000;

void estimate(LifeTable& table, int running = 0, int32_t outputs = 0) {
  table.begin_estimate();
  for (int i = 0; i < running; ++i) table.runs(outputs);
  table.end_estimate();
}

double mean_rest(const LifeTable& table, int32_t outputs, int32_t limit) {
  double sum = 0;
  for (int i = 0; i < 1000; ++i) sum += table.end(outputs, (i + 0.5) / 1000, limit) - outputs;
  return sum / 1000;
}

TEST(LifeTable, what_never_stopped_goes_on_to_its_limit) {
  LifeTable table(0);
  for (int i = 0; i < 50; ++i) table.cut(30);
  estimate(table, 20, 7);
  for (const int32_t outputs : {0, 1, 29, 30, 500})
    for (const double left : {0.001, 0.5, 0.999})
      EXPECT_EQ(table.end(outputs, left, 600), 600) << outputs << " " << left;
}

TEST(LifeTable, without_a_word_the_prior_stops_a_share_in_each_doubling) {
  const LifeTable table(0.5);
  for (const int32_t outputs : {16, 64, 1024}) {
    EXPECT_NEAR(table.end(outputs - 1, 0.5, kLimit), 2 * outputs, 2);
    EXPECT_NEAR(table.end(outputs - 1, 0.125, kLimit), 8 * outputs, 8);
  }
}

TEST(LifeTable, answers_of_one_length_are_expected_to_have_it) {
  LifeTable table(0.5);
  for (int i = 0; i < 200; ++i) table.stopped(100);
  estimate(table);
  for (const int32_t outputs : {0, 10, 90})
    for (const double left : {0.1, 0.5, 0.9}) {
      EXPECT_GE(table.end(outputs, left, kLimit), 95);
      EXPECT_LE(table.end(outputs, left, kLimit), 112);
    }
}

TEST(LifeTable, answers_that_stop_with_the_same_chance_at_each_token_do_not_age) {
  std::mt19937_64 random(3);
  LifeTable table(0.5);
  std::geometric_distribution<int32_t> rest(1 / 80.0);
  for (int i = 0; i < 4000; ++i) table.stopped(1 + rest(random));
  estimate(table);
  for (const int32_t outputs : {0, 20, 80, 160})
    EXPECT_NEAR(mean_rest(table, outputs, 800), 80, 16) << outputs;
}

TEST(LifeTable, one_that_was_cut_off_says_only_that_it_was_longer) {
  LifeTable table(0.5);
  for (int i = 0; i < 150; ++i) {
    table.cut(20);
    table.stopped(100);
  }
  estimate(table);
  EXPECT_GE(table.end(0, 0.5, kLimit), 95);
  EXPECT_GE(table.end(0, 0.9, kLimit), 95) << "nobody stopped at 20";
}

// The first that end are the short ones: those that still run know better.
TEST(LifeTable, what_runs_counts_for_the_lengths_that_it_has_passed) {
  LifeTable table(0.5);
  for (int i = 0; i < 10; ++i) table.stopped(10);
  estimate(table);
  EXPECT_LT(table.end(0, 0.7, kLimit), 14);
  estimate(table, 90, 60);
  EXPECT_GT(table.end(0, 0.7, kLimit), 60);
  estimate(table);
  EXPECT_LT(table.end(0, 0.7, kLimit), 14) << "it counts for one estimate";
}

TEST(LifeTable, forgets_what_was_long_ago) {
  LifeTable table(0.5);
  for (int i = 0; i < 5000; ++i) table.stopped(10);
  for (int i = 0; i < 2000; ++i) table.stopped(200);
  estimate(table);
  EXPECT_GE(table.end(0, 0.5, kLimit), 192);
  EXPECT_LE(table.end(0, 0.5, kLimit), 224);
}

TEST(LifeTable, ends_are_ordered_and_inside_their_bounds) {
  constexpr uint64_t kSeed = 11;
  SCOPED_TRACE(kSeed);
  std::mt19937_64 random(kSeed);
  for (int round = 0; round < 200; ++round) {
    LifeTable table(round % 3 * 0.3);
    const auto length = [&] {
      return static_cast<int32_t>(std::exp2(static_cast<double>(random() % 3100) / 100));
    };
    for (uint64_t n = random() % 300; n > 0; --n)
      random() % 3 == 0 ? table.cut(length()) : table.stopped(length());
    estimate(table, static_cast<int>(random() % 4), length());
    const int32_t outputs = length() - 1;
    const auto limit = static_cast<int32_t>(std::min<int64_t>(
        int64_t{outputs} + 1 + static_cast<int64_t>(random() % 100'000), INT32_MAX));
    int32_t before = outputs + 1;
    for (int i = 99; i > 0; --i) {
      const int32_t end = table.end(outputs, i / 100.0, limit);
      EXPECT_GE(end, before);
      EXPECT_LE(end, limit);
      before = end;
    }
  }
}

}  // namespace
}  // namespace mmcore
