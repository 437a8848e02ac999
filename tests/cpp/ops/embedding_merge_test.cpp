// Layer: unit. A copy is a copy: results are compared bit by bit.
#include <gtest/gtest.h>

#include "mmcore/ops.h"
#include "ops/rounding.h"

namespace mmcore::ops::testing {
namespace {

TEST(EmbeddingMerge, GathersTextAndCopiesMedia) {
  for (uint64_t seed = 1; seed <= 60; ++seed) {
    Rng rng(seed);
    const DType dtype = random_float_type(rng);
    const int64_t tokens = random_size(rng, 0, 40), vocab = random_size(rng, 1, 50);
    const int64_t hidden = random_size(rng, 1, 70), rows = random_size(rng, 1, 20);
    const auto gap = static_cast<int64_t>(rng() % 2) * 5;
    const bool with_media = rng() % 3 != 0;
    HostTensor ids(rng() % 2 == 0 ? DType::kInt32 : DType::kInt64, {tokens});
    HostTensor table(dtype, {vocab, hidden}, gap), media(dtype, {rows, hidden}, gap);
    HostTensor source(DType::kInt64, {tokens}), out(dtype, {tokens, hidden}, gap);
    table.fill_normal(rng);
    media.fill_normal(rng);
    std::vector<double> expected;
    for (int64_t t = 0; t < tokens; ++t) {
      const bool is_media = with_media && rng() % 2 == 0;
      const int64_t row = random_size(rng, 0, rows - 1), id = random_size(rng, 0, vocab - 1);
      source.set(t, static_cast<double>(is_media ? row : -1));
      // The id of a placeholder stands for nothing, it need not be in the table.
      ids.set(t, static_cast<double>(is_media ? vocab + 1000 : id));
      for (int64_t i = 0; i < hidden; ++i)
        expected.push_back(is_media ? media.at({row, i}) : table.at({id, i}));
    }
    SCOPED_TRACE("seed " + std::to_string(seed));
    const Status status = embedding_merge({.token_ids = ids.view(),
                                           .table = table.view(),
                                           .source = with_media ? source.view() : TensorView(),
                                           .media = with_media ? media.view() : TensorView(),
                                           .out = out.view()});
    ASSERT_TRUE(status.ok()) << status.message();
    ASSERT_EQ(out.values(), expected);
    ASSERT_TRUE(out.untouched_outside());
  }
}

TEST(EmbeddingMerge, NamesTheEntryThatPointsNowhere) {
  HostTensor ids(DType::kInt32, {3}), table(DType::kFloat32, {4, 2}), out(DType::kFloat32, {3, 2});
  HostTensor source(DType::kInt64, {3}), media(DType::kFloat32, {2, 2});
  const auto merge = [&](std::vector<int32_t> tokens, std::vector<int64_t> rows, bool with_media) {
    ids.assign<int32_t>(tokens);
    source.assign<int64_t>(rows);
    return embedding_merge({.token_ids = ids.view(),
                            .table = table.view(),
                            .source = source.view(),
                            .media = with_media ? media.view() : TensorView(),
                            .out = out.view()});
  };
  const auto expect = [](const Status& status, const std::string& word) {
    EXPECT_EQ(status.code(), StatusCode::kInvalidArgument);
    EXPECT_NE(status.message().find(word), std::string::npos) << status.message();
  };
  EXPECT_TRUE(merge({0, 3, 99}, {-1, -5, 1}, true).ok());
  expect(merge({0, 4, 1}, {-1, -1, -1}, true), "token_ids[1] is 4");
  expect(merge({0, 1, -1}, {-1, -1, -1}, true), "token_ids[2] is -1");
  expect(merge({0, 1, 1}, {2, -1, -1}, true), "source[0] is 2");
  expect(merge({0, 1, 1}, {-1, 0, -1}, false), "source[1] is 0");
  HostTensor half(DType::kFloat16, {2, 2});
  expect(embedding_merge({.token_ids = ids.view(),
                          .table = table.view(),
                          .source = source.view(),
                          .media = half.view(),
                          .out = out.view()}),
         "media is float16");
  expect(embedding_merge({.token_ids = table.view(),
                          .table = table.view(),
                          .source = {},
                          .media = {},
                          .out = out.view()}),
         "token_ids");
}

}  // namespace
}  // namespace mmcore::ops::testing
