// Items from accept() to evict, and places of tokens in the cache.
#include "mmcore/runner_books.h"

#include <gtest/gtest.h>

#include <memory>
#include <stdexcept>

namespace mmcore {
namespace {

struct Sound final : MediaPayload {
  explicit Sound(int32_t v) : value(v) {}
  int32_t value;
};
struct Other final : MediaPayload {};

Request request_with(std::vector<std::shared_ptr<const MediaPayload>> payloads) {
  Request request;
  for (auto& payload : payloads) {
    MediaItem item;
    item.payload = std::move(payload);
    request.media.push_back(std::move(item));
  }
  return request;
}

TEST(RunnerBooks, ItemsGoFromAcceptToEvict) {
  ItemBook<Sound, std::vector<int32_t>> book;
  const auto doubled = [](const Sound& sound) { return std::vector<int32_t>{2 * sound.value}; };
  EXPECT_TRUE(book.accept(1, {}).ok()) << "without items";
  auto first = std::make_shared<Sound>(10);
  const std::weak_ptr<Sound> watched = first;
  ASSERT_TRUE(book.accept(7, request_with({std::move(first), std::make_shared<Sound>(20)})).ok());
  StepPlan plan;
  plan.encode = {{.request = 7, .item_index = 1, .slot = 100}};
  book.run(plan, doubled);
  EXPECT_EQ(book.output(100), std::vector<int32_t>{40});
  plan.encode = {{.request = 7, .item_index = 0, .slot = 101}};
  plan.evict = {100, 55};  // 55 was never filled: its step had failed
  book.run(plan, doubled);
  EXPECT_EQ(book.output(101), std::vector<int32_t>{20});
  EXPECT_THROW(static_cast<void>(book.output(100)), std::out_of_range);
  EXPECT_FALSE(watched.expired());
  book.release(7);
  EXPECT_TRUE(watched.expired());
  EXPECT_EQ(book.output(101), std::vector<int32_t>{20}) << "outputs stay until they are evicted";
  // A step that is run again encodes again, under the same slot.
  ASSERT_TRUE(book.accept(8, request_with({std::make_shared<Sound>(3)})).ok());
  plan.encode = {{.request = 8, .item_index = 0, .slot = 101}};
  plan.evict.clear();
  book.run(plan, doubled);
  EXPECT_EQ(book.output(101), std::vector<int32_t>{6});
}

TEST(RunnerBooks, ItemsWithoutTheirPayloadAreRefused) {
  ItemBook<Sound, int32_t> book;
  const auto sound = std::make_shared<Sound>(1);
  const Status missing = book.accept(1, request_with({sound, nullptr}));
  EXPECT_EQ(missing.code(), StatusCode::kMediaError);
  EXPECT_NE(missing.message().find("media[1]"), std::string::npos);
  EXPECT_EQ(book.accept(1, request_with({std::make_shared<Other>()})).code(),
            StatusCode::kMediaError);
  EXPECT_EQ(sound.use_count(), 1) << "a refused request leaves nothing behind";
}

TEST(RunnerBooks, TokensLieInTheirSequencesBlocks) {
  StepPlan plan;
  plan.block_table_width = 8;
  plan.block_tables = {3, 9, 0, 0, 0, 0, 0, 0, /**/ 5, 2, 7, 0, 0, 0, 0, 0};
  EXPECT_EQ(cache_slot(plan, 0, 0, 4), 12u);
  EXPECT_EQ(cache_slot(plan, 0, 5, 4), 37u);
  EXPECT_EQ(cache_slot(plan, 1, 3, 4), 23u);
  EXPECT_EQ(cache_slot(plan, 1, 11, 4), 31u);
}

}  // namespace
}  // namespace mmcore
