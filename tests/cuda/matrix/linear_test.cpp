// Layer: unit. Every kernel behind `linear` against double precision, and the choice between them.
#include <gtest/gtest.h>

#include <array>
#include <functional>

#include "matrix/few_tokens.h"
#include "matrix/matrix_case.h"
#include "matrix/wgmma_tiles.h"

namespace mmcore::cuda {
namespace {

constexpr std::array kFloatTypes = {DType::kFloat32, DType::kBFloat16, DType::kFloat16};

DType random_type(Rng& rng) { return kFloatTypes[rng() % kFloatTypes.size()]; }
DType random_half(Rng& rng) { return kFloatTypes[1 + rng() % 2]; }

class LinearTest : public GpuTest {
 protected:
  using Run = std::function<Status(const MatrixCase&)>;

  /// Runs and checks a case for each seed, then again for the same bits.
  void check(int seeds, const std::function<MatrixCase(Rng&)>& make, const Run& run) {
    for (int seed = 1; seed <= cases(seeds); ++seed) {
      Rng rng(static_cast<uint64_t>(seed));
      const MatrixCase one = make(rng);
      SCOPED_TRACE("seed " + std::to_string(seed) + ": " + one.name());
      Status status = run(one);
      ASSERT_TRUE(status.ok()) << status.message();
      one.expect_right();
      const std::vector<uint8_t> first = one.out_bytes();
      status = run(one);
      ASSERT_TRUE(status.ok()) << status.message();
      EXPECT_EQ(first, one.out_bytes()) << "other bits in the second run";
      if (HasFailure()) return;
    }
  }

  void check_reduced_few(int split, bool several_tiles);

  void skip_unless_hopper() {
    const auto facts = device_facts({DeviceType::kCuda, 0});
    if (!facts.ok() || facts.value()->capability != 90) GTEST_SKIP() << "wgmma needs a Hopper GPU";
  }
};

Status run_linear(const MatrixCase& one) { return ops::linear(one.args()); }

MatrixCase odd_sizes(Rng& rng) {
  return {rng,
          random_type(rng),
          {.tokens = between(rng, 0, 600), .n = between(rng, 1, 200), .k = between(rng, 1, 200)}};
}

TEST_F(LinearTest, OddSizes) { check(120, odd_sizes, run_linear); }

TEST_F(LinearTest, AlignedSizes) {
  const auto make = [](Rng& rng) {
    return MatrixCase(rng, random_type(rng),
                      {.tokens = between(rng, 0, 600),
                       .n = 8 * between(rng, 1, 60),
                       .k = 8 * between(rng, 1, 60),
                       .align = 8});
  };
  check(120, make, run_linear);
}

TEST_F(LinearTest, FewTokens) {
  const auto make = [](Rng& rng) {
    return MatrixCase(rng, random_type(rng),
                      {.tokens = between(rng, 1, 17),
                       .n = between(rng, 1, 300),
                       .k = 8 * between(rng, 1, 600),
                       .align = 8});
  };
  check(120, make, run_linear);
}

TEST_F(LinearTest, ReducedOfAllKinds) {
  const auto make = [](Rng& rng) {
    const int64_t align = rng() % 2 == 0 ? 8 : 1;
    return MatrixCase(rng, random_type(rng),
                      {.tokens = between(rng, 0, 40),
                       .n = align * between(rng, 1, 12),
                       .k = align * between(rng, 1, 20),
                       .align = align});
  };
  check(24, make, run_linear);
}

TEST_F(LinearTest, NoFeaturesNoColumns) {
  Rng rng(1);
  const MatrixCase no_features(rng, DType::kBFloat16, {.tokens = 20, .n = 0, .k = 16});
  EXPECT_TRUE(run_linear(no_features).ok());
  for (const DType dtype : kFloatTypes) {  // the bias alone
    for (const int64_t tokens : {1, 5, 20}) {
      const MatrixCase no_columns(rng, dtype, {.tokens = tokens, .n = 16, .k = 0, .align = 8});
      const Status status = run_linear(no_columns);
      ASSERT_TRUE(status.ok()) << status.message();
      no_columns.expect_right();
    }
  }
}

// ---- kernels that the choice on this device may leave out

const DeviceFacts& facts() { return *device_facts({DeviceType::kCuda, 0}).value(); }

TEST_F(LinearTest, TensorCoreKernel) {
  const auto make = [](Rng& rng) {
    const int64_t align = rng() % 2 == 0 ? 8 : 1;
    return MatrixCase(rng, random_half(rng),
                      {.tokens = between(rng, 1, 400),
                       .n = between(rng, 1, 300),
                       .k = align * between(rng, 1, 400 / align),
                       .align = align});
  };
  check(60, make,
        [](const MatrixCase& one) { return run_tensor_core("linear", one.problem(), nullptr); });
}

TEST_F(LinearTest, GemvKernel) {
  const auto make = [](Rng& rng) {
    const DType dtype = random_type(rng);
    return MatrixCase(rng, dtype,
                      {.tokens = dtype == DType::kFloat32 ? between(rng, 1, 8) : 1,
                       .n = between(rng, 1, 90),
                       .k = 8 * between(rng, 1, 500),
                       .align = 8});
  };
  check(40, make,
        [](const MatrixCase& one) { return run_gemv("linear", one.problem(), facts(), nullptr); });
}

TEST_F(LinearTest, SkinnyKernelWithOneToken) {
  const auto make = [](Rng& rng) {
    return MatrixCase(
        rng, random_half(rng),
        {.tokens = 1, .n = between(rng, 1, 90), .k = 8 * between(rng, 1, 500), .align = 8});
  };
  check(20, make, [](const MatrixCase& one) {
    return run_skinny("linear", one.problem(), facts(), nullptr);
  });
}

/// As on a device of a few clusters, so that each works on several tiles.
Status run_few(const MatrixCase& one, int split, int clusters, int room, bool steady) {
  DeviceFacts small = facts();
  small.multiprocessors = split * clusters;
  MatrixProblem problem = one.problem();
  problem.steady_weights = steady;
  return run_few_tokens("linear", problem, plan_few_tokens(problem, small, split, room), nullptr);
}

TEST_F(LinearTest, FewTokensKernel) {
  skip_unless_hopper();
  if (IsSkipped()) return;
  for (const int split : {1, 2, 4, 8}) {
    SCOPED_TRACE("split " + std::to_string(split));
    const auto make = [](Rng& rng) {
      return MatrixCase(rng, random_half(rng),
                        {.tokens = between(rng, 1, kFewTokens),
                         .n = 8 * between(rng, 1, 150),
                         .k = rng() % 2 == 0 ? between(rng, 1, 300) : between(rng, 300, 4000),
                         .align = 8});
    };
    int turn = 0;
    check(24, make, [&](const MatrixCase& one) {
      const int now = turn++ / 2;  // each case runs twice
      const int room = now % 3 == 0 ? 80 * 1024 : facts().shared_bytes;
      return run_few(one, split, now % 5 == 0 ? 32 / split : now % 5, room, now % 2 == 0);
    });
    if (HasFailure()) return;
  }
}

/// Needs no GPU.
TEST(FewTokensPlanTest, SharesCoverTheFeaturesAndFitIntoABlock) {
  constexpr DeviceFacts kHopper{
      .multiprocessors = 132, .capability = 90, .shared_bytes = 227 * 1024, .l2_bytes = 50 << 20};
  Rng rng(1);
  for (int i = 0; i < 20000; ++i) {
    MatrixProblem p;
    p.tokens = between(rng, 1, kFewTokens);
    p.n = 8 * between(rng, 1, i % 2 == 0 ? 500 : 20000);
    p.k = between(rng, 1, 20000);
    SCOPED_TRACE(std::to_string(p.tokens) + " tokens, " + std::to_string(p.n) + " features");
    for (const int split : {0, 1, 2, 4, 8}) {
      const FewTokensPlan plan = split == 0
                                     ? plan_few_tokens(p, kHopper)
                                     : plan_few_tokens(p, kHopper, split, kHopper.shared_bytes);
      ASSERT_GE(plan.tokens, p.tokens);
      ASSERT_GE(plan.boxes * plan.box, p.n);
      ASSERT_LT((plan.boxes - 1) * plan.box, p.n);
      ASSERT_GE(plan.boxes, plan.clusters);
      ASSERT_LE(plan.clusters * plan.split, kHopper.multiprocessors);
      ASSERT_LE(plan.shared_bytes, kHopper.shared_bytes);
      ASSERT_LE(plan.early, plan.stages);
      // The largest tile of the first cluster, whose share is the largest one.
      const int64_t share = (plan.boxes + plan.clusters - 1) / plan.clusters;
      const int64_t tiles = (share + plan.most - 1) / plan.most;
      ASSERT_LE(((share + tiles - 1) / tiles * plan.box + plan.tokens) * 128, plan.stage_bytes);
    }
  }
}

/// Three tiles or one, since only from the second on does a block wait for room in another's inbox.
void LinearTest::check_reduced_few(int split, bool several_tiles) {
  const auto make = [several_tiles](Rng& rng) {
    return MatrixCase(rng, DType::kBFloat16,
                      {.tokens = between(rng, 1, kFewTokens),
                       .n = 8 * (several_tiles ? between(rng, 33, 40) : between(rng, 9, 16)),
                       .k = between(rng, 400, 700),
                       .align = 8});
  };
  check(2, make, [&](const MatrixCase& one) { return run_few(one, split, 1, 96 * 1024, true); });
}

TEST_F(LinearTest, FewTokensKernelReduced) {
  skip_unless_hopper();
  if (!IsSkipped()) check_reduced_few(1, true);
}
TEST_F(LinearTest, FewTokensOfAPairReduced) {
  skip_unless_hopper();
  if (!IsSkipped()) check_reduced_few(2, false);
}
TEST_F(LinearTest, FewTokensOfAPairSeveralTilesReduced) {
  skip_unless_hopper();
  if (!IsSkipped()) check_reduced_few(2, true);
}
TEST_F(LinearTest, FewTokensOfFourReduced) {
  skip_unless_hopper();
  if (!IsSkipped()) check_reduced_few(4, true);
}

using RunTile = Status (*)(const char*, const MatrixProblem&, int, cudaStream_t);
struct Tile {
  const char* name;
  const WgmmaTile& shape;
  RunTile run;
};
const std::array kTiles = {Tile{"256", kTile256, run_wgmma_256},
                           Tile{"192", kTile192, run_wgmma_192},
                           Tile{"176 wide", kTile176Wide, run_wgmma_176_wide},
                           Tile{"144", kTile144, run_wgmma_144},
                           Tile{"128 pair", kTile128Pair, run_wgmma_128_pair},
                           Tile{"128", kTile128, run_wgmma_128},
                           Tile{"64", kTile64, run_wgmma_64}};

/// Few blocks, so that each works on several tiles.
TEST_F(LinearTest, EveryWgmmaTile) {
  skip_unless_hopper();
  if (IsSkipped()) return;
  for (const Tile& tile : kTiles) {
    SCOPED_TRACE(tile.name);
    const auto make = [](Rng& rng) {
      return MatrixCase(rng, random_half(rng),
                        {.tokens = between(rng, 1, 600),
                         .n = 8 * between(rng, 1, 60),
                         .k = rng() % 2 == 0 ? between(rng, 1, 80) : between(rng, 1, 900),
                         .align = 8});
    };
    int blocks = 0;
    check(12, make, [&](const MatrixCase& one) {
      blocks = blocks % 4 + 1;
      return tile.run("linear", one.problem(), blocks * tile.shape.cluster_f * tile.shape.cluster_t,
                      nullptr);
    });
    if (HasFailure()) return;
  }
}

/// A tile's steps along k are more than twice the stages: warpgroups that take turns may not run
/// ahead of each other.
TEST_F(LinearTest, WgmmaTilesOverALongSum) {
  skip_unless_hopper();
  if (IsSkipped()) return;
  for (const Tile& tile : kTiles) {
    SCOPED_TRACE(tile.name);
    const auto make = [](Rng& rng) {
      return MatrixCase(rng, DType::kBFloat16,
                        {.tokens = 600, .n = 264, .k = 64 * between(rng, 8, 40), .align = 8});
    };
    check(2, make, [&](const MatrixCase& one) {
      return tile.run("linear", one.problem(), tile.shape.cluster_f * tile.shape.cluster_t,
                      nullptr);
    });
    if (HasFailure()) return;
  }
}

TEST_F(LinearTest, ReducedWgmmaTiles) {
  skip_unless_hopper();
  if (IsSkipped()) return;
  for (const Tile& tile : kTiles) {
    SCOPED_TRACE(tile.name);
    const auto make = [](Rng& rng) {
      return MatrixCase(rng, DType::kBFloat16,
                        {.tokens = 300, .n = 136, .k = between(rng, 60, 200), .align = 8});
    };
    check(1, make, [&](const MatrixCase& one) {
      return tile.run("linear", one.problem(), tile.shape.cluster_f * tile.shape.cluster_t,
                      nullptr);
    });
    if (HasFailure()) return;
  }
}

/// Offsets beyond 2^31 elements, of x and of out: two parts of the same rows.
TEST_F(LinearTest, MoreThanTwoBillionElements) {
  constexpr int64_t kRows = 70000, kWidth = 32768, kK = 64, kN = 64, kLast = 3;
  const DeviceTensor big(DType::kBFloat16, {kRows, kWidth});
  Rng rng(1);
  const StridedMatrix x(rng, DType::kBFloat16, kLast, kK, kK, 1.0);
  const StridedMatrix w(rng, DType::kBFloat16, kN, kK, kK, 0.125);
  auto* data = big.view().ptr<uint16_t>();
  for (int64_t i = 0; i < kLast; ++i) {
    ASSERT_EQ(cudaMemcpy(data + (kRows - kLast + i) * kWidth, x.view().ptr<uint16_t>() + i * kK,
                         kK * 2, cudaMemcpyDeviceToDevice),
              cudaSuccess);
  }
  const std::vector<double> want =
      exact_product(x.values(), w.values(), {}, kLast, kN, kK, ops::Activation::kNone);
  const MatrixProblem problem{.dtype = DType::kBFloat16,
                              .x = data,
                              .x_stride = kWidth,
                              .w = w.view().data,
                              .w_stride = kK,
                              .bias = nullptr,
                              .out = data + 1024,
                              .out_stride = kWidth,
                              .rows = nullptr,
                              .out_rows = kRows,
                              .tokens = kRows,
                              .n = kN,
                              .k = kK,
                              .act = ops::Activation::kNone};
  const auto facts = device_facts({DeviceType::kCuda, 0});
  ASSERT_TRUE(facts.ok());
  const bool hopper = fits_wgmma(problem, *facts.value());
  for (const bool wgmma : {false, true}) {
    if (wgmma && !hopper) break;
    const Status status = wgmma ? run_wgmma("linear", problem, *facts.value(), nullptr)
                                : run_tensor_core("linear", problem, nullptr);
    ASSERT_TRUE(status.ok()) << status.message();
    const StridedMatrix out(DType::kBFloat16, kLast, kN, kN);
    for (int64_t i = 0; i < kLast; ++i) {
      ASSERT_EQ(
          cudaMemcpy(out.view().ptr<uint16_t>() + i * kN,
                     data + (kRows - kLast + i) * kWidth + 1024, kN * 2, cudaMemcpyDeviceToDevice),
          cudaSuccess);
    }
    expect_rows(out, Scatter::none(kLast), want, kN, DType::kBFloat16, 1e-5);
  }
}

}  // namespace
}  // namespace mmcore::cuda
