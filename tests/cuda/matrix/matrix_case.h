// One random matrix product on the GPU, and what it must give in double precision.
#pragma once

#include <cstdint>
#include <random>
#include <string>
#include <vector>

#include "device_tensor.h"
#include "matrix/problem.h"
#include "mmcore/ops.h"

namespace mmcore::cuda {

using Rng = std::mt19937_64;

int64_t between(Rng& rng, int64_t low, int64_t high);

/// A matrix whose rows may be further apart than they are long; NaN in between.
class StridedMatrix {
 public:
  StridedMatrix() = default;
  /// Normally distributed values times `scale`, rounded to `dtype`.
  StridedMatrix(Rng& rng, DType dtype, int64_t rows, int64_t columns, int64_t stride, double scale);
  /// NaN everywhere: to be written.
  StridedMatrix(DType dtype, int64_t rows, int64_t columns, int64_t stride);

  const TensorView& view() const { return view_; }
  /// What was filled in, without gaps.
  const std::vector<float>& values() const { return values_; }
  /// What is there now, with gaps: rows of stride() elements.
  std::vector<float> now() const { return memory_.floats(); }
  std::vector<uint8_t> bytes() const { return memory_.bytes(); }
  int64_t stride() const { return view_.strides[0]; }

 private:
  void narrow(int64_t columns);
  DeviceTensor memory_;
  TensorView view_;
  std::vector<float> values_;
};

double exact_activation(double x, ops::Activation act);

/// act(x w^T + bias) without gaps; bias may be empty.
std::vector<double> exact_product(const std::vector<float>& x, const std::vector<float>& w,
                                  const std::vector<float>& bias, int64_t tokens, int64_t n,
                                  int64_t k, ops::Activation act);

/// Where rows go: a random choice of distinct rows, some dropped; or nothing, for "row m".
struct Scatter {
  std::vector<int64_t> to;
  int64_t out_rows = 0;
  static Scatter none(int64_t tokens);
  static Scatter random(Rng& rng, int64_t tokens);
};

/// Each element of `want` [tokens, n] in its row of `out` within half a unit in the last place plus
/// `slack`, everything else still NaN. The root mean square of many errors is that of rounding.
void expect_rows(const StridedMatrix& out, const Scatter& scatter, const std::vector<double>& want,
                 int64_t n, DType dtype, double slack);

/// Rounding to nearest, relative to the value.
double unit_roundoff(DType dtype);

struct Sizes {
  int64_t tokens, n, k;
  int64_t align = 1;  // of strides, in elements
};

class MatrixCase {
 public:
  MatrixCase(Rng& rng, DType dtype, Sizes sizes);

  ops::LinearArgs args() const;
  MatrixProblem problem() const;
  void expect_right() const;
  std::vector<uint8_t> out_bytes() const { return out_.bytes(); }
  std::string name() const;

 private:
  DType dtype_;
  Sizes sizes_;
  ops::Activation act_;
  StridedMatrix x_, w_, bias_, out_;
  Scatter scatter_;
  DeviceTensor rows_;
};

}  // namespace mmcore::cuda
