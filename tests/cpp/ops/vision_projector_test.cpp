// Layer: unit. The fused projector against its two layers run apart.
#include <gtest/gtest.h>

#include <algorithm>
#include <numeric>

#include "ops/isa_test.h"
#include "ops/linear_case.h"
#include "ops/rounding.h"

namespace mmcore::ops::testing {
namespace {

struct Projector {
  DType dtype;
  HostTensor x, w1, b1, w2, b2, rows, out, workspace;
  int64_t tokens, features, intermediate, hidden, out_rows;
  Activation act;

  Projector(DType type, Rng& rng, int64_t t, int64_t k, int64_t m, int64_t h, bool scatter)
      : dtype(type), tokens(t), features(k), intermediate(m), hidden(h) {
    act = static_cast<Activation>(rng() % 6);
    out_rows = scatter ? t + 4 : t;
    const auto gap = static_cast<int64_t>(rng() % 2) * 3;
    x = HostTensor(type, {t, k}, gap);
    w1 = HostTensor(type, {m, k}, gap);
    w2 = HostTensor(type, {h, m}, gap);
    out = HostTensor(type, {out_rows, h}, gap);
    x.fill_normal(rng);
    w1.fill_normal(rng, 1.0 / std::sqrt(static_cast<double>(k)));
    w2.fill_normal(rng, 1.0 / std::sqrt(static_cast<double>(m)));
    if (rng() % 2 == 0) {
      b1 = HostTensor(type, {m});
      b2 = HostTensor(type, {h});
      b1.fill_normal(rng);
      b2.fill_normal(rng);
    }
    if (scatter) {
      std::vector<int64_t> to(static_cast<size_t>(out_rows));
      std::iota(to.begin(), to.end(), 0);
      std::shuffle(to.begin(), to.end(), rng);
      for (auto& row : to) row = rng() % 5 == 0 ? -1 : row;
      rows = HostTensor(DType::kInt64, {t});
      for (int64_t i = 0; i < t; ++i) rows.set(i, static_cast<double>(to[static_cast<size_t>(i)]));
    }
    workspace = HostTensor(DType::kUInt8, {vision_projector_workspace_bytes(t, m, type)});
  }

  VisionProjectorArgs args() const {
    return {.x = x.view(),
            .w1 = w1.view(),
            .b1 = b1.view(),
            .w2 = w2.view(),
            .b2 = b2.view(),
            .rows = rows.view(),
            .out = out.view(),
            .act = act,
            .workspace = workspace.view()};
  }

  /// Both layers of one token in double precision, rounded between them as the workspace rounds.
  void expect_row(int64_t t, int64_t row) const {
    std::vector<double> middle(static_cast<size_t>(intermediate));
    for (int64_t m = 0; m < intermediate; ++m) {
      double sum = b1.present() ? b1.get(m) : 0.0;
      for (int64_t k = 0; k < features; ++k) sum += x.at({t, k}) * w1.at({m, k});
      middle[static_cast<size_t>(m)] = exact_activation(sum, act);
    }
    for (int64_t h = 0; h < hidden; ++h) {
      double sum = b2.present() ? b2.get(h) : 0.0, slack = 0.0;
      for (int64_t m = 0; m < intermediate; ++m) {
        const double value = middle[static_cast<size_t>(m)];
        sum += value * w2.at({h, m});
        slack +=
            (half_unit(value, dtype) + 4e-6 * (1.0 + std::abs(value))) * std::abs(w2.at({h, m}));
      }
      ASSERT_LE(std::abs(out.at({row, h}) - sum), half_unit(std::abs(sum) + slack, dtype) + slack)
          << "token " << t << " to row " << row << " column " << h;
    }
  }
};

class VisionProjectorPerIsa : public IsaTest {};
INSTANTIATE_TEST_SUITE_P(, VisionProjectorPerIsa, kEveryIsa, isa_name);

TEST_P(VisionProjectorPerIsa, MatchesDoublePrecision) {
  for (uint64_t seed = 1; seed <= 30; ++seed) {
    Rng rng(seed);
    const bool scatter = rng() % 2 == 0;
    const Projector p(random_float_type(rng), rng, random_size(rng, 0, 40), random_size(rng, 1, 60),
                      random_size(rng, 1, 70), random_size(rng, 1, 50), scatter);
    SCOPED_TRACE("seed " + std::to_string(seed) + ", " + std::to_string(p.tokens) + " tokens, " +
                 to_string(p.dtype));
    const Status status = vision_projector(p.args());
    ASSERT_TRUE(status.ok()) << status.message();
    std::vector<bool> written(static_cast<size_t>(p.out_rows), false);
    for (int64_t t = 0; t < p.tokens; ++t) {
      const int64_t row = scatter ? static_cast<int64_t>(p.rows.get(t)) : t;
      if (row < 0) continue;
      written[static_cast<size_t>(row)] = true;
      p.expect_row(t, row);
    }
    for (int64_t row = 0; row < p.out_rows; ++row) {
      EXPECT_TRUE(written[static_cast<size_t>(row)] || std::isnan(p.out.at({row, 0}))) << row;
    }
    EXPECT_TRUE(p.out.untouched_outside());
    EXPECT_TRUE(p.workspace.untouched_outside());
    if (HasFailure()) return;
  }
}

/// More rows than the workspace holds at a time: bit by bit what two calls of linear give.
TEST_P(VisionProjectorPerIsa, EqualsTwoLinearLayersOverManyBlocks) {
  Rng rng(7);
  for (const DType dtype : {DType::kFloat32, DType::kBFloat16}) {
    const Projector p(dtype, rng, 600, 24, 40, 17, false);
    ASSERT_TRUE(vision_projector(p.args()).ok());
    HostTensor middle(dtype, {600, 40}), out(dtype, {600, 17});
    ASSERT_TRUE(linear({.x = p.x.view(),
                        .weight = p.w1.view(),
                        .bias = p.b1.view(),
                        .out = middle.view(),
                        .out_rows = {},
                        .act = p.act})
                    .ok());
    ASSERT_TRUE(linear({.x = middle.view(),
                        .weight = p.w2.view(),
                        .bias = p.b2.view(),
                        .out = out.view(),
                        .out_rows = {}})
                    .ok());
    EXPECT_EQ(p.out.values(), out.values());
  }
}

TEST(VisionProjector, NamesWhatIsWrong) {
  Rng rng(8);
  const Projector p(DType::kFloat32, rng, 5, 6, 7, 8, true);
  const auto expect = [](const VisionProjectorArgs& a, const std::string& word) {
    const Status status = vision_projector(a);
    EXPECT_EQ(status.code(), StatusCode::kInvalidArgument);
    EXPECT_NE(status.message().find(word), std::string::npos) << status.message();
  };
  VisionProjectorArgs a = p.args();
  a.workspace.shape[0] -= 1;
  expect(a, "workspace has 139 bytes, expected at least 140");
  a = p.args();
  a.w2 = p.w1.view();
  expect(a, "w2 has shape [7, 6]");
  a = p.args();
  a.out.shape[0] = 1;
  expect(a, "rows[");
  a = p.args();
  a.rows = {};
  expect(a, "out has shape");
  EXPECT_EQ(vision_projector_workspace_bytes(0, 4096, DType::kBFloat16), 0);
  EXPECT_EQ(vision_projector_workspace_bytes(1'000'000, 4096, DType::kBFloat16),
            vision_projector_workspace_bytes(256, 4096, DType::kBFloat16));
}

}  // namespace
}  // namespace mmcore::ops::testing
