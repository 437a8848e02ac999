// Layer: unit.
#include <gtest/gtest.h>

#include <cstring>

#include "mmcore/ops.h"
#include "ops/host_tensor.h"

namespace mmcore::ops::testing {
namespace {

HostTensor pairs_of(const std::vector<std::pair<int64_t, int64_t>>& list) {
  HostTensor pairs(DType::kInt64, {static_cast<int64_t>(list.size()), 2});
  for (size_t i = 0; i < list.size(); ++i) {
    pairs.set_at({static_cast<int64_t>(i), 0}, static_cast<double>(list[i].first));
    pairs.set_at({static_cast<int64_t>(i), 1}, static_cast<double>(list[i].second));
  }
  return pairs;
}

/// Random pairs with chains (a block written and then read), over dtypes, ranks and gaps.
TEST(CopyBlocks, MatchesCopiesOneAfterTheOther) {
  const int threads_before = num_threads();
  for (uint64_t seed = 0; seed < 200; ++seed) {
    SCOPED_TRACE("seed " + std::to_string(seed));
    Rng rng(seed);
    set_num_threads(static_cast<int>(rng() % 3) + 1);
    constexpr DType kTypes[] = {DType::kFloat32, DType::kBFloat16, DType::kFloat16, DType::kUInt8,
                                DType::kInt64};
    const std::vector<std::vector<int64_t>> shapes = {{9, 16, 2, 64},  {5, 1, 1, 32}, {4, 3}, {6},
                                                      {3, 128, 3, 80}, {7, 16, 0, 64}};
    const std::vector<int64_t>& shape = shapes[rng() % shapes.size()];
    HostTensor cache(kTypes[rng() % 5], shape);
    cache.fill_uniform(rng, 0, 100);
    std::vector<std::pair<int64_t, int64_t>> list(rng() % 6);
    for (auto& [from, to] : list) {
      from = static_cast<int64_t>(rng() % static_cast<uint64_t>(shape[0]));
      to = static_cast<int64_t>(rng() % static_cast<uint64_t>(shape[0]));
    }
    std::vector<double> expected = cache.values();
    const int64_t width = cache.numel() / shape[0];
    for (const auto& [from, to] : list) {
      for (int64_t i = 0; i < width; ++i) {
        expected[static_cast<size_t>(to * width + i)] =
            expected[static_cast<size_t>(from * width + i)];
      }
    }
    const HostTensor pairs = pairs_of(list);
    const Status status = copy_blocks(cache.view(), pairs.view());
    ASSERT_TRUE(status.ok()) << status.message();
    ASSERT_EQ(cache.values(), expected);
    ASSERT_TRUE(cache.untouched_outside());
  }
  set_num_threads(threads_before);
}

TEST(CopyBlocks, LeavesTheSpaceBetweenBlocksAlone) {
  Rng rng(1);
  HostTensor cache(DType::kFloat32, {4, 8});
  cache.fill_normal(rng);
  TensorView view = cache.view();
  view.shape = {2, 6};  // blocks of 6 that start 16 apart
  view.strides = {16, 1};
  const std::vector<double> before = cache.values();
  const HostTensor pairs = pairs_of({{1, 0}});
  ASSERT_TRUE(copy_blocks(view, pairs.view()).ok());
  for (int64_t i = 0; i < 32; ++i) {
    const auto at = static_cast<size_t>(i);
    EXPECT_EQ(cache.get(i), i < 6 ? before[at + 16] : before[at]) << i;
  }
}

TEST(CopyBlocks, RefusesWhatDoesNotFit) {
  HostTensor cache(DType::kFloat32, {4, 8, 2});
  Rng rng(1);
  cache.fill_uniform(rng, 0, 1);
  const std::vector<double> before = cache.values();
  const auto message = [&](const TensorView& c, const TensorView& p) {
    const Status status = copy_blocks(c, p);
    EXPECT_EQ(status.code(), StatusCode::kInvalidArgument);
    EXPECT_EQ(cache.values(), before);
    return status.message();
  };
  const HostTensor good = pairs_of({{0, 1}});
  EXPECT_EQ(message(cache.view(), pairs_of({{0, 1}, {2, 4}}).view()),
            "copy_blocks: pairs[1, 1] is 4, expected 0 to 3");
  EXPECT_EQ(message(cache.view(), pairs_of({{-1, 1}}).view()),
            "copy_blocks: pairs[0, 0] is -1, expected 0 to 3");
  EXPECT_EQ(message({}, good.view()), "copy_blocks: cache is absent");
  EXPECT_EQ(message(cache.view(), HostTensor(DType::kInt64, {1, 3}).view()),
            "copy_blocks: pairs has shape [1, 3], expected [n, 2]");
  EXPECT_EQ(message(cache.view(), HostTensor(DType::kInt32, {1, 2}).view()),
            "copy_blocks: pairs is int32, expected int64");
  TensorView torn = cache.view();
  torn.shape = {4, 4, 2};
  torn.strides = {16, 4, 1};
  EXPECT_EQ(message(torn, good.view()),
            "copy_blocks: cache has stride 4 in axis 1, expected 2; make it contiguous");
  TensorView overlapping = cache.view();
  overlapping.strides[0] = 8;
  EXPECT_EQ(message(overlapping, good.view()),
            "copy_blocks: cache is written but its blocks overlap (stride 8 in axis 0)");
}

}  // namespace
}  // namespace mmcore::ops::testing
