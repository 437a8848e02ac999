#include "engine/recovery.h"

#include <gtest/gtest.h>

#include <vector>

namespace mmcore {
namespace {

TEST(Recovery, goes_from_probation_over_caution_to_normal) {
  Recovery recovery;
  EXPECT_TRUE(recovery.normal());
  recovery.begin(std::vector<RequestId>{5, 3});
  EXPECT_TRUE(recovery.probing());
  EXPECT_EQ(recovery.suspect(), 5u);
  recovery.dismiss();
  EXPECT_EQ(recovery.suspect(), 3u);
  recovery.dismiss();
  EXPECT_FALSE(recovery.probing());
  EXPECT_FALSE(recovery.normal());
  recovery.healthy_step();
  EXPECT_FALSE(recovery.normal());
  recovery.healthy_step();
  EXPECT_TRUE(recovery.normal());
  recovery.healthy_step();
  EXPECT_TRUE(recovery.normal());
}

TEST(Recovery, a_failure_during_caution_starts_again) {
  Recovery recovery;
  recovery.begin(std::vector<RequestId>{1});
  recovery.dismiss();
  recovery.healthy_step();
  recovery.begin(std::vector<RequestId>{2});
  recovery.dismiss();
  recovery.healthy_step();
  EXPECT_FALSE(recovery.normal());
}

}  // namespace
}  // namespace mmcore
