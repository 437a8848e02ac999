#include "mmcore/status.h"

#include <gtest/gtest.h>

#include <memory>
#include <set>

namespace mmcore {
namespace {

TEST(Status, is_ok_until_it_says_otherwise) {
  EXPECT_TRUE(Status().ok());
  const Status status = Status::unservable("too big");
  EXPECT_FALSE(status.ok());
  EXPECT_EQ(status.code(), StatusCode::kUnservable);
  EXPECT_EQ(status.message(), "too big");
}

TEST(Status, every_code_has_its_own_name) {
  std::set<std::string> names;
  for (int32_t code = 0; code <= static_cast<int32_t>(StatusCode::kTimeout); ++code)
    names.insert(to_string(static_cast<StatusCode>(code)));
  EXPECT_EQ(names.size(), 12u);
  EXPECT_FALSE(names.contains("unknown"));
  EXPECT_STREQ(to_string(StatusCode::kPlaceholderMismatch), "placeholder_mismatch");
  EXPECT_STREQ(to_string(static_cast<StatusCode>(99)), "unknown");
}

TEST(Result, holds_a_value_or_a_status) {
  Result<std::unique_ptr<int>> good(std::make_unique<int>(7));
  ASSERT_TRUE(good.ok());
  EXPECT_TRUE(good.status().ok());
  const std::unique_ptr<int> moved = std::move(good).value();
  EXPECT_EQ(*moved, 7);
  const Result<std::unique_ptr<int>> bad(Status::internal("x"));
  EXPECT_FALSE(bad.ok());
  EXPECT_EQ(bad.status().code(), StatusCode::kInternal);
}

Status twice(const Status& first, int& runs) {
  MMCORE_RETURN_IF_ERROR(first);
  ++runs;
  return {};
}

TEST(Status, return_if_error_leaves_at_the_first_failure) {
  int runs = 0;
  EXPECT_TRUE(twice(Status(), runs).ok());
  EXPECT_EQ(twice(Status::unsupported("no"), runs).message(), "no");
  EXPECT_EQ(runs, 1);
}

}  // namespace
}  // namespace mmcore
