// Prefill over the paged cache through launch_prefill, with tiles made here.
#include "attention/prefill.h"

#include <cuda_runtime_api.h>
#include <gtest/gtest.h>

#include <cmath>
#include <cstdint>
#include <random>
#include <set>
#include <string>
#include <vector>

#include "attention/prefill_case.h"
#include "attention/prefill_params.h"
#include "ops/attention/gpu_plan.h"
#include "ops/attention/prefill_cut.h"

namespace mmcore::cuda {
namespace {

class PrefillTest : public GpuTest {
 protected:
  /// Tiles of all sequences in reverse, so that order is seen not to matter; some are missing
  /// where `skip` says so.
  template <class Launch = decltype(&launch_prefill)>
  static Status run(const AttentionBatch& batch, const AttentionShape& shape, int32_t skip = -1,
                    Launch launch = &launch_prefill) {
    std::vector<int32_t> tiles;
    for (auto n = static_cast<int32_t>(shape.queries.size()) - 1; n >= 0; --n) {
      if (n == skip) continue;
      for (int32_t i = 0; i < shape.queries[static_cast<size_t>(n)]; i += kPrefillTileRows) {
        tiles.insert(tiles.end(), {n, i});
      }
    }
    const auto count = static_cast<int32_t>(tiles.size() / 2);
    tiles.insert(tiles.end(), 6, 0x7ffffff0);  // what lies past the count must not be used
    const DeviceTensor tiles_dev = DeviceTensor::from(tiles, {count + 3, 2});
    const DeviceTensor count_dev = DeviceTensor::from(std::vector<int32_t>{count}, {1});
    const PrefillWork work{tiles_dev.view().ptr<int32_t>(), count_dev.view().ptr<int32_t>(),
                           count + 3, batch.q_view().size(0)};
    const Status status = launch(batch.problem(), work, nullptr);
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

  /// Through a plan for so many workers, for several layers; the tiles must be cut unless `any`.
  static void check_cut(const AttentionShape& shape, uint32_t seed, int32_t workers,
                        bool any = false) {
    SCOPED_TRACE("seed " + std::to_string(seed) + ": " + shape.describe() + ", " +
                 std::to_string(workers) + " workers");
    const AttentionBatch batch(shape, seed);
    const auto sequences = static_cast<int64_t>(shape.queries.size());
    std::vector<int32_t> starts(1, 0), lens = shape.keys;
    for (const int32_t queries : shape.queries) starts.push_back(starts.back() + queries);
    const ops::AttentionPlanShape plan_shape{.sequences = sequences,
                                             .tokens = batch.rows(),
                                             .heads = shape.heads,
                                             .kv_heads = shape.kv_heads,
                                             .head_dim = shape.dim,
                                             .window = shape.window,
                                             .causal = shape.causal,
                                             .multiprocessors = workers};
    const ops::GpuPlanLayout layout = ops::gpu_plan_layout(plan_shape);
    std::vector<int32_t> words(static_cast<size_t>(layout.words));
    const auto host = [](std::vector<int32_t>& values) {
      return TensorView(values.data(), DType::kInt32, {static_cast<int64_t>(values.size())});
    };
    const Status planned =
        ops::plan_paged_attention(host(starts), host(lens), plan_shape, host(words));
    ASSERT_TRUE(planned.ok()) << planned.message();
    ASSERT_TRUE(any || words[ops::kCutAt] > 0) << "the tiles are not cut";
    const DeviceTensor plan = DeviceTensor::from(words, {layout.words});
    const DeviceTensor partials(DType::kUInt8, {ops::prefill_partial_bytes(shape.dim, workers)});
    auto* on_device = plan.view().ptr<int32_t>();
    const PrefillWork work{.tiles = on_device + layout.tiles_at,
                           .count = on_device + ops::kTileCountAt,
                           .max_tiles = layout.max_tiles,
                           .query_rows = batch.rows(),
                           .cuts = {.cut = on_device + ops::kCutAt,
                                    .workers = reinterpret_cast<const ops::PrefillWorker*>(
                                        on_device + layout.cut_workers_at),
                                    .counters = on_device + layout.cut_counters_at,
                                    .partials = partials.view().ptr<float>(),
                                    .num_workers = workers}};
    const std::vector<double> want = batch.expected();
    std::vector<uint8_t> once;
    for (int layer = 0; layer < 4; ++layer) {
      const Status status = launch_prefill(batch.problem(), work, nullptr);
      ASSERT_TRUE(status.ok()) << status.message();
      ASSERT_EQ(cudaDeviceSynchronize(), cudaSuccess);
      EXPECT_LE(worst_row_error(shape, batch.result(), want), tolerance(shape.dtype));
      ASSERT_EQ(plan.ints(), words) << "the next layer finds another plan";
      const std::vector<uint8_t> bytes = batch.out_bytes();
      if (layer > 0) {
        EXPECT_EQ(bytes, once);
      }
      once = bytes;
    }
  }

  static AttentionShape random_shape(uint32_t seed, DType dtype) {
    std::mt19937 rng(seed);
    const auto pick = [&](int low, int high) {
      return std::uniform_int_distribution<int>(low, high)(rng);
    };
    AttentionShape s;
    s.dtype = s.kv_dtype = dtype;
    s.dim = ops::kHeadDims[pick(0, 6)];
    s.kv_heads = pick(1, 2);
    s.heads = s.kv_heads * pick(1, 4);
    s.block_size = pick(0, 2) == 0 ? 1 << pick(0, 7) : 16;
    s.causal = pick(0, 3) > 0;
    s.window = pick(0, 2) == 0 ? pick(1, 200) : 0;
    s.soft_cap = pick(0, 3) == 0 ? static_cast<float>(pick(1, 50)) : 0.0f;
    s.scale = 1.0f / std::sqrt(static_cast<float>(s.dim));
    if (pick(0, 7) == 0) s.scale = static_cast<float>(pick(-10, 10)) / 10.0f;
    s.padding = pick(0, 3) == 0 ? pick(1, 9) : pick(0, 1) * 8;
    s.heads_first = pick(0, 3) == 0;
    for (int n = pick(1, 3); n > 0; --n) {
      const int queries = pick(0, 2) == 0 ? pick(0, 3) : pick(1, 200);
      s.queries.push_back(queries);
      s.keys.push_back(queries + (pick(0, 1) == 0 ? 0 : pick(0, 250)));
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

TEST_F(PrefillTest, RandomShapesBFloat16) { check_random(DType::kBFloat16, 1000, 110); }
TEST_F(PrefillTest, RandomShapesFloat16) { check_random(DType::kFloat16, 2000, 70); }
TEST_F(PrefillTest, RandomShapesFloat32) { check_random(DType::kFloat32, 3000, 30); }

AttentionShape with_float8(AttentionShape s, uint32_t seed) {
  constexpr float kScales[] = {1.0f, 0.3f, 0.01f, 3.0f};
  s.kv_dtype = DType::kFloat8E4M3;
  s.k_scale = kScales[seed % 4];
  s.v_scale = kScales[seed / 4 % 4];
  return s;
}

TEST_F(PrefillTest, RandomShapesOfFloat8Keys) {
  for (const DType dtype : {DType::kBFloat16, DType::kFloat16, DType::kFloat32}) {
    ErrorSums sums;
    for (uint32_t seed = 7000; seed < 7050 && !HasFailure(); ++seed) {
      check(with_float8(random_shape(seed, dtype), seed), seed, &sums);
    }
    EXPECT_LE(sums.relative(), rms_tolerance(dtype));
  }
}

TEST_F(PrefillTest, Float8KeysOfEveryHeadDimReduced) {
  for (const int dim : ops::kHeadDims) {
    for (const DType dtype : {DType::kBFloat16, DType::kFloat16}) {
      AttentionShape s;
      s.dim = dim;
      s.dtype = dtype;
      s.scale = 1.0f / std::sqrt(static_cast<float>(dim));
      s.queries = {130, 20};
      s.keys = {150, 140};
      check(with_float8(s, 5), 7);
    }
  }
}

/// One key a sequence: its values are the answer, whatever the scores are.
TEST_F(PrefillTest, Float8IsWidenedExactlyReduced) {
  for (const int dim : ops::kHeadDims) {
    for (const DType dtype : {DType::kBFloat16, DType::kFloat16}) {
      std::set<float> seen;
      for (const float scale : {1.0f, 0.1f, 0.01f}) {
        AttentionShape s;
        s.dim = dim;
        s.dtype = dtype;
        s.kv_dtype = DType::kFloat8E4M3;
        s.v_scale = scale;
        s.heads = s.kv_heads = 2;
        s.queries.assign(60, 1);
        s.keys.assign(60, 1);
        const AttentionBatch batch(s, 17);
        const auto unscaled = [](ops::AttentionProblem problem, const PrefillWork& work,
                                 cudaStream_t stream) {
          problem.v_scale = 1.0f;
          return launch_prefill(problem, work, stream);
        };
        ASSERT_TRUE(run(batch, s, -1, unscaled).ok());
        const std::vector<float> got = batch.result();
        const std::vector<double> want = batch.expected();
        for (size_t i = 0; i < got.size(); ++i) {
          ASSERT_EQ(got[i], static_cast<float>(want[i] / scale)) << s.describe();
          seen.insert(got[i]);
        }
      }
      EXPECT_GE(seen.size(), 220u);  // of 253
    }
  }
}

/// More tiles than multiprocessors, so that blocks go on from one to the next.
TEST_F(PrefillTest, Float8KeysOverManyTiles) {
  for (const int dim : {64, 128, 256}) {
    AttentionShape s;
    s.dim = dim;
    s.heads = 8;
    s.scale = 1.0f / std::sqrt(static_cast<float>(dim));
    for (int n = 0; n < 48; ++n) {
      s.queries.push_back(n % 6 == 0 ? 131 : 1 + 7 * n % 12);
      s.keys.push_back(s.queries.back() + (n % 6 == 3 ? 300 : 13 * n % 50));
    }
    check(with_float8(s, 6), 9);
    s.window = 20;
    s.causal = false;
    s.block_size = 8;
    check(with_float8(s, 9), 10);
  }
}

AttentionShape few_tiles(int dim, DType dtype) {
  AttentionShape s;
  s.dim = dim;
  s.dtype = s.kv_dtype = dtype;
  s.heads = 3;
  s.scale = 1.0f / std::sqrt(static_cast<float>(dim));
  return s;
}

TEST_F(PrefillTest, FewTilesAreCut) {
  for (const int dim : ops::kHeadDims) {
    if (dim > ops::kMostCutDim) continue;
    for (const DType dtype : {DType::kBFloat16, DType::kFloat16}) {
      AttentionShape s = few_tiles(dim, dtype);
      s.queries = {150, 64};
      s.keys = {1500, 900};
      check_cut(s, 31, 132);
      check_cut(s, 32, 7);
      check_cut(with_float8(s, 5), 33, 132);
      if (HasFailure()) return;
    }
  }
}

TEST_F(PrefillTest, FewTilesAreCutReduced) {
  for (const int dim : {64, 128}) {
    AttentionShape s = few_tiles(dim, DType::kBFloat16);
    s.queries = {20};
    s.keys = {700};
    check_cut(s, 34, 9);
    check_cut(with_float8(s, 5), 35, 9);
  }
}

TEST_F(PrefillTest, CutsOfRandomShapes) {
  std::mt19937 rng(77);
  const auto pick = [&](int low, int high) {
    return std::uniform_int_distribution<int>(low, high)(rng);
  };
  for (int i = 0; i < cases(30) && !HasFailure(); ++i) {
    constexpr int kDims[] = {32, 64, 64, 80, 128, 128};
    AttentionShape s =
        few_tiles(kDims[pick(0, 5)], pick(0, 1) == 0 ? DType::kBFloat16 : DType::kFloat16);
    s.kv_heads = pick(1, 2);
    s.heads = s.kv_heads * pick(1, 3);
    s.block_size = 8 << pick(0, 4);
    s.causal = pick(0, 3) > 0;
    s.window = pick(0, 2) == 0 ? pick(200, 800) : 0;
    s.soft_cap = pick(0, 3) == 0 ? static_cast<float>(pick(1, 50)) : 0.0f;
    s.queries = {pick(130, 200)};
    s.keys = {s.queries[0] + pick(900, 1300)};
    if (pick(0, 1) == 0) {
      s.queries.push_back(pick(17, 60));
      s.keys.push_back(s.queries.back() + pick(0, 300));
    }
    if (i % 3 == 0) s = with_float8(s, static_cast<uint32_t>(i));
    check_cut(s, static_cast<uint32_t>(1000 + i), pick(0, 1) == 0 ? 132 : 4 * s.heads + 3, true);
  }
}

TEST_F(PrefillTest, EveryHeadDimOverSeveralTiles) {
  for (const int dim : ops::kHeadDims) {
    for (const DType dtype : {DType::kBFloat16, DType::kFloat16}) {
      AttentionShape s;
      s.dim = dim;
      s.dtype = s.kv_dtype = dtype;
      s.scale = 1.0f / std::sqrt(static_cast<float>(dim));
      s.queries = {257, 70, 1};
      s.keys = {257, 641, 1};
      check(s, 7);
    }
  }
}

/// What GPUs other than Hopper run, with aligned rows, too.
template <int D>
Status launch_with_mma(const ops::AttentionProblem& problem, const PrefillWork& work,
                       cudaStream_t stream) {
  PrefillParams params = prefill_params(problem);
  params.tiles = work.tiles;
  params.count = work.count;
  params.max_tiles = work.max_tiles;
  if (problem.kv_dtype != problem.dtype) return launch_prefill_e4m3<D>("prefill", params, stream);
  return launch_prefill_mma<D>("prefill", params, stream);
}

TEST_F(PrefillTest, MmaSyncOfEveryHeadDim) {
  const auto check_dim = [](auto launch, int dim) {
    for (int i = 0; i < 4; ++i) {
      const DType dtype = i % 2 == 0 ? DType::kBFloat16 : DType::kFloat16;
      AttentionShape s;
      s.dim = dim;
      s.dtype = s.kv_dtype = dtype;
      if (i >= 2) s = with_float8(s, 5);
      s.scale = 1.0f / std::sqrt(static_cast<float>(dim));
      s.queries = {257, 40, 1};
      s.keys = {400, 40, 130};
      const AttentionBatch batch(s, 8);
      ASSERT_TRUE(run(batch, s, -1, launch).ok());
      const double error = worst_row_error(s, batch.result(), batch.expected());
      EXPECT_LE(error, tolerance(dtype)) << s.describe();
    }
  };
  check_dim(&launch_with_mma<32>, 32);
  check_dim(&launch_with_mma<64>, 64);
  check_dim(&launch_with_mma<72>, 72);
  check_dim(&launch_with_mma<80>, 80);
  check_dim(&launch_with_mma<96>, 96);
  check_dim(&launch_with_mma<128>, 128);
  check_dim(&launch_with_mma<256>, 256);
}

TEST_F(PrefillTest, EveryBlockSize) {
  for (int block = 1; block <= 128; block *= 2) {
    for (const int dim : {64, 128}) {
      AttentionShape s;
      s.dim = dim;
      s.block_size = block;
      s.queries = {200, 64};
      s.keys = {333, 64};
      check(s, static_cast<uint32_t>(block));
      check(with_float8(s, 4), static_cast<uint32_t>(block));
    }
  }
}

TEST_F(PrefillTest, ManySequencesReduced) {
  AttentionShape s;
  s.heads = 4;
  for (int n = 0; n < 40; ++n) {
    s.queries.push_back(1 + 37 * n % 23);
    s.keys.push_back(s.queries.back() + 13 * n % 50);
  }
  check(s, 11);
  s.dim = 128;
  s.block_size = 32;
  check(s, 12);
}

TEST_F(PrefillTest, MixedDtypesReduced) {
  const DType types[] = {DType::kFloat32, DType::kBFloat16, DType::kFloat16};
  for (const DType q : types) {
    for (const DType kv : types) {
      AttentionShape s;
      s.dtype = q;
      s.kv_dtype = kv;
      s.queries = {9, 30};
      s.keys = {70, 30};
      check(s, 21);
    }
  }
}

TEST_F(PrefillTest, RowsWithoutTileAreLeftAloneReduced) {
  AttentionShape s;
  s.queries = {20, 3, 40};
  s.keys = {20, 90, 55};
  const AttentionBatch batch(s, 5);
  ASSERT_TRUE(run(batch, s, 1).ok());
  const std::vector<float> got = batch.result();
  const std::vector<double> want = batch.expected();
  const auto row = static_cast<size_t>(s.heads * s.dim);
  for (size_t i = 0; i < got.size(); ++i) {
    if (i / row >= 20 && i / row < 23) {
      ASSERT_TRUE(std::isnan(got[i])) << i;
    } else {
      ASSERT_NEAR(got[i], want[i], 0.05) << i;
    }
  }
}

TEST_F(PrefillTest, NothingToDo) {
  AttentionShape s;
  s.queries = {5};
  s.keys = {5};
  const AttentionBatch batch(s, 1);
  EXPECT_TRUE(launch_prefill(batch.problem(), {nullptr, nullptr, 0, 5}, nullptr).ok());
  const DeviceTensor tiles = DeviceTensor::from(std::vector<int32_t>{0, 0}, {1, 2});
  const DeviceTensor none = DeviceTensor::from(std::vector<int32_t>{0}, {1});
  EXPECT_TRUE(launch_prefill(batch.problem(),
                             {tiles.view().ptr<int32_t>(), none.view().ptr<int32_t>(), 1, 5},
                             nullptr)
                  .ok());
  for (const float value : batch.result()) ASSERT_TRUE(std::isnan(value));
}

TEST_F(PrefillTest, SameBitsAgain) {
  for (int i = 0; i < 8; ++i) {
    constexpr int kDims[] = {64, 80, 128, 256};
    const int dim = kDims[i % 4];
    AttentionShape s;
    if (i >= 4) s = with_float8(s, 5);
    s.dim = dim;
    s.heads = 8;
    s.kv_heads = 2;
    s.queries = {300, 100, 512};
    s.keys = {900, 100, 600};
    const AttentionBatch batch(s, 3);
    ASSERT_TRUE(run(batch, s).ok());
    const std::vector<uint8_t> once = batch.out_bytes();
    for (int again = 0; again < 5; ++again) {
      ASSERT_TRUE(run(batch, s).ok());
      ASSERT_EQ(batch.out_bytes(), once) << s.describe();
    }
  }
}

}  // namespace
}  // namespace mmcore::cuda
