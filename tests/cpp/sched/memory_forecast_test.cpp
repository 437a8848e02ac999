#include "sched/memory_forecast.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <random>
#include <vector>

namespace mmcore {
namespace {

using Life = MemoryForecast::Life;

// Step by step: what all need while `entering` lives.
int64_t peak_by_steps(const std::vector<Life>& lives, const Life& entering) {
  int64_t highest = INT64_MIN;
  for (int64_t step = 0; step <= entering.steps; ++step) {
    int64_t sum = entering.at_once + entering.grows * step;
    for (const Life& life : lives)
      sum += step <= life.steps ? life.at_once + life.grows * step : -life.given_back;
    highest = std::max(highest, sum);
  }
  return highest;
}

TEST(MemoryForecast, is_highest_right_before_enough_has_ended) {
  MemoryForecast forecast;
  forecast.add({.steps = 10, .grows = true, .given_back = 100});
  forecast.add({.steps = 40, .grows = true, .given_back = 30});
  const Life briefly{.steps = 6, .at_once = 20, .grows = true};
  EXPECT_EQ(forecast.peak(briefly), 20 + 3 * 6);
  const Life longer{.steps = 200, .at_once = 20, .grows = true};
  // At step 200 nobody else is there: 20 + 200 - 130. At 40: 20 + 40 + 40 - 100. At 10: 50.
  EXPECT_EQ(forecast.peak(longer), 90);
  const Life whole{.steps = 200, .at_once = 220};
  EXPECT_EQ(forecast.peak(whole), 220 + 2 * 10) << "what is set aside does not grow";
}

TEST(MemoryForecast, one_that_ends_before_the_others_have_grown_needs_little) {
  MemoryForecast forecast;
  for (int i = 0; i < 4; ++i) forecast.add({.steps = 1000, .grows = true, .given_back = 50});
  EXPECT_EQ(forecast.peak({.steps = 5, .at_once = 10, .grows = true}), 10 + 5 * 5);
  EXPECT_EQ(forecast.peak({.steps = 1000, .at_once = 10, .grows = true}), 10 + 5 * 1000);
}

// Ends of an interval of steps count as its last one: exact where they are the same.
TEST(MemoryForecast, is_the_highest_sum_over_steps_and_never_below_it) {
  constexpr uint64_t kSeed = 17;
  SCOPED_TRACE(kSeed);
  std::mt19937_64 random(kSeed);
  MemoryForecast forecast;
  for (int round = 0; round < 600; ++round) {
    const bool aligned = round % 2 == 0;
    forecast.clear();
    const auto draw = [&] {
      Life life{.steps = static_cast<int64_t>(random() % 700),
                .grows = random() % 4 != 0,
                .given_back = static_cast<int64_t>(random() % 400)};
      if (aligned) life.steps = static_cast<int64_t>((8 + random() % 8) << random() % 6);
      if (life.grows) life.at_once = static_cast<int64_t>(random() % 30);
      return life;
    };
    std::vector<Life> lives(random() % 40);
    for (Life& life : lives) forecast.add(life = draw());
    const Life entering = draw();
    const int64_t exact = peak_by_steps(lives, entering);
    if (aligned)
      EXPECT_EQ(forecast.peak(entering), exact);
    else
      EXPECT_GE(forecast.peak(entering), exact);
  }
}

}  // namespace
}  // namespace mmcore
