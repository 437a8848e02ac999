// Random linear layers and their answer in double precision.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "mmcore/ops.h"
#include "ops/host_tensor.h"

namespace mmcore::ops::testing {

struct LinearCase {
  DType dtype = DType::kFloat32;
  int64_t tokens = 1;
  int64_t n = 1;
  int64_t k = 1;
  int64_t gap = 0;  // between the rows of x, weight and out
  bool bias = true;
  bool scatter = false;  // out has more rows; some tokens go nowhere
  Activation act = Activation::kNone;

  static LinearCase random(Rng& rng);
  std::string describe() const;
};

struct LinearData {
  HostTensor x;
  HostTensor weight;
  HostTensor bias;
  HostTensor out;
  HostTensor out_rows;

  LinearData(const LinearCase& c, Rng& rng);
  void clear_out(const LinearCase& c);
};

/// What each element of out is, and how far float32 sums may take it from that; rows that nothing
/// is written to are expected to be NaN, as they were.
struct LinearAnswer {
  std::vector<double> values;
  std::vector<double> slack;
};

LinearAnswer linear_oracle(const LinearCase& c, const LinearData& data);
LinearArgs linear_args(const LinearCase& c, const LinearData& data);
void expect_answer(const HostTensor& out, const LinearAnswer& answer);

/// The activation in double precision.
double exact_activation(double x, Activation kind);

}  // namespace mmcore::ops::testing
