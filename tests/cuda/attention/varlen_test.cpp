// varlen_attention as an encoder calls it.
#include <cuda_runtime_api.h>
#include <gtest/gtest.h>

#include <random>

#include "attention/prefill_case.h"
#include "mmcore/ops.h"

namespace mmcore::cuda {
namespace {

class VarlenTest : public GpuTest {
 protected:
  static Status run(const AttentionBatch& batch, const AttentionShape& s) {
    const Status status = ops::varlen_attention({.q = batch.q_view(),
                                                 .k = batch.k_view(),
                                                 .v = batch.v_view(),
                                                 .cu_q = batch.cu_q(),
                                                 .cu_k = batch.cu_k(),
                                                 .out = batch.out_view(),
                                                 .scale = s.scale,
                                                 .soft_cap = s.soft_cap,
                                                 .window = s.window,
                                                 .causal = s.causal});
    EXPECT_EQ(cudaDeviceSynchronize(), cudaSuccess);
    return status;
  }

  static void check(const AttentionShape& shape, uint32_t seed, ErrorSums* sums = nullptr) {
    SCOPED_TRACE("seed " + std::to_string(seed) + ": " + shape.describe());
    const AttentionBatch batch(shape, seed);
    const Status status = run(batch, shape);
    ASSERT_TRUE(status.ok()) << status.message();
    const std::vector<float> got = batch.result();
    const std::vector<double> want = batch.expected();
    EXPECT_LE(worst_row_error(shape, got, want), tolerance(shape.dtype));
    if (sums != nullptr) sums->add(got, want);
  }

  static AttentionShape random_shape(uint32_t seed, DType dtype) {
    std::mt19937 rng(seed);
    const auto pick = [&](int low, int high) {
      return std::uniform_int_distribution<int>(low, high)(rng);
    };
    AttentionShape s;
    s.dtype = s.kv_dtype = dtype;
    s.block_size = 0;
    s.dim = ops::kHeadDims[pick(0, 6)];
    s.kv_heads = pick(1, 3);
    s.heads = s.kv_heads * pick(1, 2);
    s.causal = pick(0, 3) == 0;
    s.window = pick(0, 3) == 0 ? pick(1, 200) : 0;
    s.soft_cap = pick(0, 4) == 0 ? static_cast<float>(pick(1, 50)) : 0.0f;
    s.scale = 1.0f / std::sqrt(static_cast<float>(s.dim));
    if (pick(0, 7) == 0) s.scale = static_cast<float>(pick(-10, 10)) / 10.0f;
    s.padding = pick(0, 3) == 0 ? pick(1, 9) : pick(0, 1) * 16;
    const bool itself = pick(0, 2) > 0;
    for (int n = pick(1, 4); n > 0; --n) {
      s.queries.push_back(pick(0, 5) == 0 ? pick(0, 2) : pick(1, 200));
      s.keys.push_back(itself ? s.queries.back() : pick(0, 4) == 0 ? pick(0, 3) : pick(1, 280));
    }
    return s;
  }

  static void check_random(DType dtype, uint32_t first_seed, uint32_t count) {
    ErrorSums sums;
    for (uint32_t seed = first_seed;
         seed < first_seed + static_cast<uint32_t>(cases(static_cast<int>(count))) && !HasFailure();
         ++seed) {
      check(random_shape(seed, dtype), seed, &sums);
    }
    EXPECT_LE(sums.relative(), rms_tolerance(dtype));
    RecordProperty("rms_error", std::to_string(sums.relative()));
  }
};

TEST_F(VarlenTest, RandomShapesBFloat16) { check_random(DType::kBFloat16, 100, 110); }
TEST_F(VarlenTest, RandomShapesFloat16) { check_random(DType::kFloat16, 300, 70); }
TEST_F(VarlenTest, RandomShapesFloat32) { check_random(DType::kFloat32, 400, 30); }

TEST_F(VarlenTest, Encoders) {
  for (const int dim : {64, 72, 80, 128}) {
    AttentionShape s;
    s.block_size = 0;
    s.causal = false;
    s.dim = dim;
    s.heads = s.kv_heads = 2;
    s.scale = 1.0f / std::sqrt(static_cast<float>(dim));
    s.queries = s.keys = {577, 144};
    check(s, 1);
  }
}

TEST_F(VarlenTest, ManySequencesReduced) {
  AttentionShape s;
  s.block_size = 0;
  s.causal = false;
  for (int n = 0; n < 70; ++n) {
    s.queries.push_back(n % 7 == 3 ? 0 : 1 + 29 * n % 19);
    s.keys.push_back(n % 11 == 4 ? 0 : 1 + 31 * n % 17);
  }
  check(s, 2);
  s.dim = 128;
  s.causal = true;
  check(s, 3);
}

TEST_F(VarlenTest, MoreQueriesThanKeysReduced) {
  AttentionShape s;
  s.block_size = 0;
  s.queries = {150, 10};
  s.keys = {40, 3};
  check(s, 4);
}

TEST_F(VarlenTest, NoSequencesAndNoRows) {
  AttentionShape s;
  s.block_size = 0;
  check(s, 5);
  s.queries = {0, 0};
  s.keys = {0, 4};
  check(s, 6);
}

TEST_F(VarlenTest, SameBitsAgain) {
  for (const int dim : {64, 72, 80}) {
    AttentionShape s;
    s.block_size = 0;
    s.causal = false;
    s.dim = dim;
    s.heads = s.kv_heads = 8;
    s.queries = s.keys = {577, 300, 577, 64};
    const AttentionBatch batch(s, 3);
    ASSERT_TRUE(run(batch, s).ok());
    const std::vector<uint8_t> once = batch.out_bytes();
    for (int i = 0; i < 5; ++i) {
      ASSERT_TRUE(run(batch, s).ok());
      ASSERT_EQ(batch.out_bytes(), once) << "head dim " << dim;
    }
  }
}

}  // namespace
}  // namespace mmcore::cuda
