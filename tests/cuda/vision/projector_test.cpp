// Layer: unit. The fused projector against double precision, rounded between its layers.
#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cmath>

#include "matrix/matrix_case.h"

namespace mmcore::cuda {
namespace {

struct Sides {
  int64_t tokens, features, intermediate, hidden;
};

double largest(const std::vector<float>& values) {
  double most = 0;
  for (const float value : values) most = std::max(most, std::abs(double{value}));
  return most;
}

class ProjectorTest : public GpuTest {
 protected:
  /// `workspace_rows`: 0 for what the op asks for.
  void check(uint64_t seed, DType dtype, Sides s, int64_t align, int64_t workspace_rows) {
    Rng rng(seed);
    SCOPED_TRACE("seed " + std::to_string(seed) + ", " + to_string(dtype) + ", " +
                 std::to_string(s.tokens) + " tokens, " + std::to_string(s.features) + " -> " +
                 std::to_string(s.intermediate) + " -> " + std::to_string(s.hidden));
    const auto scaled = [](int64_t k) { return 1.0 / std::sqrt(static_cast<double>(k)); };
    const auto stride = [&](int64_t columns) {
      return columns + (rng() % 2 == 0 ? 0 : align * between(rng, 1, 3));
    };
    const int64_t m = s.intermediate;
    const StridedMatrix x(rng, dtype, s.tokens, s.features, stride(s.features), 1.0);
    const StridedMatrix w1(rng, dtype, m, s.features, stride(s.features), scaled(s.features));
    const StridedMatrix w2(rng, dtype, s.hidden, m, stride(m), scaled(m));
    const bool with_bias = rng() % 4 != 0;
    const StridedMatrix b1(rng, dtype, 1, m, m, 1.0), b2(rng, dtype, 1, s.hidden, s.hidden, 1.0);
    const bool scattered = rng() % 4 != 0;
    const Scatter scatter = scattered ? Scatter::random(rng, s.tokens) : Scatter::none(s.tokens);
    const DeviceTensor rows = DeviceTensor::from(scatter.to, {std::ssize(scatter.to)});
    const StridedMatrix out(dtype, scatter.out_rows, s.hidden, stride(s.hidden));
    const Device gpu{DeviceType::kCuda, 0};
    const int64_t bytes = workspace_rows > 0
                              ? workspace_rows * m * static_cast<int64_t>(size_of(dtype))
                              : ops::vision_projector_workspace_bytes(s.tokens, m, dtype, gpu);
    const DeviceTensor workspace(DType::kUInt8, {bytes});
    const auto act =
        rng() % 2 == 0 ? ops::Activation::kGeluErf : static_cast<ops::Activation>(rng() % 6);
    const auto vector = [](const StridedMatrix& matrix) {
      TensorView view = matrix.view();
      view.rank = 1;
      view.shape[0] = view.shape[1];
      view.strides[0] = 1;
      return view;
    };
    const ops::VisionProjectorArgs args{.x = x.view(),
                                        .w1 = w1.view(),
                                        .b1 = with_bias ? vector(b1) : TensorView{},
                                        .w2 = w2.view(),
                                        .b2 = with_bias ? vector(b2) : TensorView{},
                                        .rows = scattered ? rows.view() : TensorView{},
                                        .out = out.view(),
                                        .act = act,
                                        .workspace = workspace.view()};
    const Status status = ops::vision_projector(args);
    ASSERT_TRUE(status.ok()) << status.message();
    const std::vector<float> none;
    const std::vector<double> middle = exact_product(
        x.values(), w1.values(), with_bias ? b1.values() : none, s.tokens, m, s.features, act);
    const std::vector<float> stored =
        rounded(std::vector<float>(middle.begin(), middle.end()), dtype);
    const std::vector<double> want =
        exact_product(stored, w2.values(), with_bias ? b2.values() : none, s.tokens, s.hidden, m,
                      ops::Activation::kNone);
    // Intermediate values next to a tie may round the other way, by a whole unit: at most two for
    // one result, each times a weight. Rounding of the result comes on top.
    const double flip = 2.0 * unit_roundoff(dtype) * largest(stored) * largest(w2.values());
    expect_rows(out, scatter, want, s.hidden, dtype, 1e-5 + 2.0 * flip);
    const std::vector<uint8_t> first = out.bytes();
    ASSERT_TRUE(ops::vision_projector(args).ok());
    EXPECT_EQ(first, out.bytes()) << "other bits in the second run";
  }

  void check_random(int seeds, int64_t most_tokens) {
    for (int seed = 1; seed <= cases(seeds); ++seed) {
      Rng rng(static_cast<uint64_t>(seed) + 1000);
      const int64_t align = rng() % 3 == 0 ? 1 : 8;
      const DType dtype = std::array{DType::kFloat32, DType::kBFloat16, DType::kFloat16}[rng() % 3];
      const Sides sides{between(rng, 0, most_tokens), align * between(rng, 1, 120 / align),
                        align * between(rng, 1, 200 / align), align * between(rng, 1, 160 / align)};
      check(static_cast<uint64_t>(seed), dtype, sides, align, 0);
      if (HasFailure()) return;
    }
  }
};

TEST_F(ProjectorTest, RandomSizes) { check_random(100, 600); }
TEST_F(ProjectorTest, ReducedSizes) { check_random(12, 40); }

TEST_F(ProjectorTest, PicturesOf577Rows) {
  check(1, DType::kBFloat16, {577, 64, 256, 256}, 8, 0);
  check(2, DType::kBFloat16, {2 * 577, 72, 264, 136}, 8, 0);
}

/// A workspace sized for a CPU: blocks of 256 rows.
TEST_F(ProjectorTest, SmallWorkspace) {
  for (const uint64_t seed : {1, 2, 3, 4}) {
    check(seed, DType::kBFloat16, {600, 64, 128, 96}, 8, 256);
    check(seed, DType::kFloat32, {600, 24, 40, 17}, 1, 256);
  }
}

}  // namespace
}  // namespace mmcore::cuda
