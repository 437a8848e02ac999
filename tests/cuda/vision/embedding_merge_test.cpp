// Layer: unit. Bytes are compared with a plain gather.
#include <cuda_runtime_api.h>
#include <gtest/gtest.h>

#include <string>

#include "mirror.h"
#include "mmcore/ops.h"
#include "ops/rounding.h"

namespace mmcore::cuda {
namespace {

using ops::testing::HostTensor;
using ops::testing::random_size;
using ops::testing::Rng;

class EmbeddingMergeGpu : public GpuTest {};

void check(DType dtype, int64_t tokens, int64_t hidden, int64_t gap, bool wide_ids, bool has_media,
           Rng& rng) {
  const int64_t vocab = random_size(rng, 1, 50), images = random_size(rng, 1, 30);
  HostTensor table(dtype, {vocab, hidden}, gap), out(dtype, {tokens, hidden}, gap), media, source;
  HostTensor ids(wide_ids ? DType::kInt64 : DType::kInt32, {tokens});
  table.fill_normal(rng);
  if (has_media) {
    media = HostTensor(dtype, {images, hidden}, gap);
    media.fill_normal(rng);
    source = HostTensor(DType::kInt64, {tokens});
  }
  std::vector<double> expected;
  for (int64_t t = 0; t < tokens; ++t) {
    const int64_t id = random_size(rng, -2, vocab + 1);  // some outside: a row of zeros
    ids.set(t, static_cast<double>(id));
    int64_t row = -1;
    if (has_media) {
      row = rng() % 2 ? random_size(rng, 0, images) : -1 - static_cast<int64_t>(rng() % 3);
      source.set(t, static_cast<double>(row));
    }
    for (int64_t i = 0; i < hidden; ++i) {
      expected.push_back(row >= 0                ? (row < images ? media.at({row, i}) : 0.0)
                         : id >= 0 && id < vocab ? table.at({id, i})
                                                 : 0.0);
    }
  }
  const Mirror gids(ids), gtable(table), gsource(source), gmedia(media), gout(out);
  const Status status = ops::embedding_merge(
      {.token_ids = gids, .table = gtable, .source = gsource, .media = gmedia, .out = gout});
  ASSERT_TRUE(status.ok()) << status.message();
  gout.fetch(out);
  ASSERT_EQ(out.values(), expected);
  EXPECT_TRUE(out.untouched_outside());
}

TEST_F(EmbeddingMergeGpu, RandomShapes) {
  for (uint64_t seed = 1; seed <= static_cast<uint64_t>(cases(300)); ++seed) {
    SCOPED_TRACE("seed " + std::to_string(seed));
    Rng rng(seed);
    int64_t hidden = random_size(rng, 0, 600);
    if (rng() % 2) hidden = hidden / 8 * 8;
    const int64_t gaps[] = {0, 8, 3};
    const int64_t gap = gaps[rng() % 3];
    const DType dtype = ops::testing::random_float_type(rng);
    check(dtype, random_size(rng, 0, 60), hidden, gap, rng() % 2 == 0, rng() % 4 != 0, rng);
    if (HasFatalFailure()) return;
  }
}

TEST_F(EmbeddingMergeGpu, MoreRowsThanBlocksFit) {
  Rng rng(1);
  check(DType::kBFloat16, 9000, 64, 0, true, true, rng);
  check(DType::kBFloat16, 100, 8192, 0, false, true, rng);
}

TEST_F(EmbeddingMergeGpu, Reduced) {
  Rng rng(2);
  check(DType::kBFloat16, 5, 136, 8, true, true, rng);
  check(DType::kFloat32, 5, 7, 3, false, true, rng);
}

TEST_F(EmbeddingMergeGpu, TableOverTwoToThe31Elements) {
  constexpr int64_t kHidden = 4096, kVocab = (int64_t{1} << 31) / kHidden + 3;
  const DeviceTensor table(DType::kBFloat16, {kVocab, kHidden});
  const std::vector<float> row(kHidden, 1.25f);
  const DeviceTensor last = DeviceTensor::from(row, {kHidden}, DType::kBFloat16);
  ASSERT_EQ(cudaMemcpy(table.view().ptr<char>() + (kVocab - 1) * kHidden * 2, last.view().data,
                       kHidden * 2, cudaMemcpyDeviceToDevice),
            cudaSuccess);
  const DeviceTensor ids = DeviceTensor::from(std::vector<int64_t>{kVocab - 1}, {1});
  const DeviceTensor out(DType::kBFloat16, {1, kHidden});
  ASSERT_TRUE(ops::embedding_merge(
                  {.token_ids = ids, .table = table, .source = {}, .media = {}, .out = out})
                  .ok());
  EXPECT_EQ(out.floats(), row);
}

}  // namespace
}  // namespace mmcore::cuda
