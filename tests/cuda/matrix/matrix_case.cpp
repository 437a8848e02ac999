#include "matrix/matrix_case.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numbers>
#include <numeric>

namespace mmcore::cuda {

int64_t between(Rng& rng, int64_t low, int64_t high) {
  return std::uniform_int_distribution<int64_t>(low, high)(rng);
}

double unit_roundoff(DType dtype) {
  return dtype == DType::kBFloat16 ? 0x1p-8 : dtype == DType::kFloat16 ? 0x1p-11 : 0x1p-24;
}

void StridedMatrix::narrow(int64_t columns) {
  view_ = memory_.view();
  view_.shape[1] = columns;
}

StridedMatrix::StridedMatrix(Rng& rng, DType dtype, int64_t rows, int64_t columns, int64_t stride,
                             double scale) {
  std::normal_distribution<float> normal(0.0f, static_cast<float>(scale));
  values_.resize(static_cast<size_t>(rows * columns));
  for (float& value : values_) value = normal(rng);
  values_ = rounded(values_, dtype);
  std::vector<float> with_gaps(static_cast<size_t>(rows * stride),
                               std::numeric_limits<float>::quiet_NaN());
  for (int64_t r = 0; r < rows; ++r) {
    std::copy_n(values_.begin() + r * columns, columns, with_gaps.begin() + r * stride);
  }
  memory_ = DeviceTensor::from(with_gaps, {rows, stride}, dtype);
  narrow(columns);
}

StridedMatrix::StridedMatrix(DType dtype, int64_t rows, int64_t columns, int64_t stride)
    : memory_(dtype, {rows, stride}) {
  narrow(columns);
}

double exact_activation(double x, ops::Activation act) {
  using ops::Activation;
  switch (act) {
    case Activation::kNone:
      return x;
    case Activation::kGeluErf:
      return 0.5 * x * (1.0 + std::erf(x / std::numbers::sqrt2));
    case Activation::kGeluTanh:
      return 0.5 * x *
             (1.0 + std::tanh(std::sqrt(2.0 / std::numbers::pi) * (x + 0.044715 * x * x * x)));
    case Activation::kGeluQuick:
      return x / (1.0 + std::exp(-1.702 * x));
    case Activation::kSilu:
      return x / (1.0 + std::exp(-x));
    case Activation::kRelu:
      return std::max(x, 0.0);
  }
  return x;
}

std::vector<double> exact_product(const std::vector<float>& x, const std::vector<float>& w,
                                  const std::vector<float>& bias, int64_t tokens, int64_t n,
                                  int64_t k, ops::Activation act) {
  std::vector<double> out(static_cast<size_t>(tokens * n));
  for (int64_t m = 0; m < tokens; ++m) {
    for (int64_t j = 0; j < n; ++j) {
      const float *a = x.data() + m * k, *b = w.data() + j * k;
      double lanes[8] = {};  // lets the compiler use vectors
      for (int64_t i = 0; i < k / 8 * 8; i += 8) {
        for (int64_t l = 0; l < 8; ++l) lanes[l] += double{a[i + l]} * double{b[i + l]};
      }
      double sum = bias.empty() ? 0.0 : double{bias[static_cast<size_t>(j)]};
      for (int64_t i = k / 8 * 8; i < k; ++i) sum += double{a[i]} * double{b[i]};
      for (const double lane : lanes) sum += lane;
      out[static_cast<size_t>(m * n + j)] = exact_activation(sum, act);
    }
  }
  return out;
}

Scatter Scatter::none(int64_t tokens) { return {{}, tokens}; }

Scatter Scatter::random(Rng& rng, int64_t tokens) {
  Scatter scatter{std::vector<int64_t>(static_cast<size_t>(tokens + 5)), tokens + 5};
  std::iota(scatter.to.begin(), scatter.to.end(), 0);
  std::shuffle(scatter.to.begin(), scatter.to.end(), rng);
  scatter.to.resize(static_cast<size_t>(tokens));
  for (int64_t& row : scatter.to) {
    if (rng() % 4 == 0) row = -1 - static_cast<int64_t>(rng() % 3);
  }
  return scatter;
}

void expect_rows(const StridedMatrix& out, const Scatter& scatter, const std::vector<double>& want,
                 int64_t n, DType dtype, double slack) {
  const std::vector<float> got = out.now();
  std::vector<bool> written(got.size(), false);
  const auto tokens = n == 0 ? 0 : static_cast<int64_t>(want.size()) / n;
  double squares = 0, errors = 0;
  int64_t count = 0;
  for (int64_t m = 0; m < tokens; ++m) {
    const int64_t row = scatter.to.empty() ? m : scatter.to[static_cast<size_t>(m)];
    if (row < 0) continue;
    for (int64_t j = 0; j < n; ++j) {
      const auto at = static_cast<size_t>(row * out.stride() + j);
      const double expected = want[static_cast<size_t>(m * n + j)];
      const double error = std::abs(got[at] - expected);
      ASSERT_LE(error, unit_roundoff(dtype) * std::abs(expected) + slack)
          << "token " << m << " column " << j << " is " << got[at] << ", expected " << expected;
      written[at] = true;
      squares += expected * expected;
      errors += error * error;
      ++count;
    }
  }
  // Rounding to bfloat16 gives 1.7e-3 on average over many, up to 3.9e-3 for one.
  constexpr int64_t kMany = 256;
  if (count >= kMany) {
    EXPECT_LE(std::sqrt(errors), 2.6e-3 * std::sqrt(squares));
  }
  for (size_t i = 0; i < got.size(); ++i) {
    ASSERT_TRUE(written[i] || std::isnan(got[i])) << "element " << i << " was written";
  }
}

namespace {

/// A stride of at least `columns`, a multiple of `align`.
int64_t random_stride(Rng& rng, int64_t columns, int64_t align) {
  const int64_t least = (std::max<int64_t>(columns, 1) + align - 1) / align;
  return (least + (rng() % 2 == 0 ? 0 : between(rng, 1, 4))) * align;
}

}  // namespace

MatrixCase::MatrixCase(Rng& rng, DType dtype, Sizes s)
    : dtype_(dtype), sizes_(s), act_(static_cast<ops::Activation>(rng() % 6)) {
  const double scale = 1.0 / std::sqrt(static_cast<double>(std::max<int64_t>(1, s.k)));
  x_ = StridedMatrix(rng, dtype, s.tokens, s.k, random_stride(rng, s.k, s.align), 1.0);
  w_ = StridedMatrix(rng, dtype, s.n, s.k, random_stride(rng, s.k, s.align), scale);
  if (rng() % 2 == 0) bias_ = StridedMatrix(rng, dtype, 1, s.n, std::max<int64_t>(1, s.n), 1.0);
  const bool scattered = rng() % 2 == 0;
  scatter_ = scattered ? Scatter::random(rng, s.tokens) : Scatter::none(s.tokens);
  if (scattered) rows_ = DeviceTensor::from(scatter_.to, {s.tokens});
  out_ = StridedMatrix(dtype, scatter_.out_rows, s.n, random_stride(rng, s.n, s.align));
}

ops::LinearArgs MatrixCase::args() const {
  ops::LinearArgs args{.x = x_.view(),
                       .weight = w_.view(),
                       .bias = {},
                       .out = out_.view(),
                       .out_rows = {},
                       .act = act_,
                       .steady_weight = true};
  if (bias_.view().present) {
    args.bias = bias_.view();
    args.bias.rank = 1;
    args.bias.shape[0] = sizes_.n;
    args.bias.strides[0] = 1;
  }
  if (rows_.view().present) args.out_rows = rows_.view();
  return args;
}

MatrixProblem MatrixCase::problem() const {
  return {.dtype = dtype_,
          .x = x_.view().data,
          .x_stride = x_.stride(),
          .w = w_.view().data,
          .w_stride = w_.stride(),
          .bias = bias_.view().present ? bias_.view().data : nullptr,
          .out = out_.view().data,
          .out_stride = out_.stride(),
          .rows = rows_.view().present ? rows_.view().ptr<int64_t>() : nullptr,
          .out_rows = scatter_.out_rows,
          .tokens = sizes_.tokens,
          .n = sizes_.n,
          .k = sizes_.k,
          .act = act_,
          .steady_weights = sizes_.n % 2 == 1};
}

void MatrixCase::expect_right() const {
  const std::vector<double> want = exact_product(x_.values(), w_.values(), bias_.values(),
                                                 sizes_.tokens, sizes_.n, sizes_.k, act_);
  // Sums of terms of size 1 / sqrt(k) in float32, activations to 1e-6. Tensor cores cut off what
  // does not fit instead of rounding it: up to a unit of 2^-22 in each step of 16 along k.
  const double cut = dtype_ == DType::kFloat32 ? 0.0 : 1e-6 * static_cast<double>(sizes_.k) / 16;
  expect_rows(out_, scatter_, want, sizes_.n, dtype_, 1e-5 + cut);
}

std::string MatrixCase::name() const {
  return std::string(to_string(dtype_)) + " [" + std::to_string(sizes_.tokens) + ", " +
         std::to_string(sizes_.k) + "] x [" + std::to_string(sizes_.n) + ", " +
         std::to_string(sizes_.k) + "], strides " + std::to_string(x_.stride()) + ", " +
         std::to_string(w_.stride()) + ", " + std::to_string(out_.stride()) + ", activation " +
         std::to_string(static_cast<int>(act_)) + (bias_.view().present ? ", bias" : "") +
         (rows_.view().present ? ", scattered" : "");
}

}  // namespace mmcore::cuda
