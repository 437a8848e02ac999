#include "ops/linear_case.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <limits>
#include <numbers>
#include <numeric>

#include "ops/rounding.h"

namespace mmcore::ops::testing {

double exact_activation(double x, Activation kind) {
  const auto sigmoid = [](double v) { return 1.0 / (1.0 + std::exp(-v)); };
  switch (kind) {
    case Activation::kNone:
      return x;
    case Activation::kGeluErf:
      return 0.5 * x * std::erfc(-x / std::numbers::sqrt2);
    case Activation::kGeluTanh:
      return x * sigmoid(2.0 * std::sqrt(2.0 / std::numbers::pi) * (x + 0.044715 * x * x * x));
    case Activation::kGeluQuick:
      return x * sigmoid(1.702 * x);
    case Activation::kSilu:
      return x * sigmoid(x);
    case Activation::kRelu:
      return std::max(0.0, x);
  }
  return std::numeric_limits<double>::quiet_NaN();
}

LinearCase LinearCase::random(Rng& rng) {
  LinearCase c;
  c.dtype = random_float_type(rng);
  c.tokens = rng() % 2 == 0 ? random_size(rng, 0, 12) : random_size(rng, 1, 90);
  c.n = rng() % 8 == 0 ? 1 : random_size(rng, 1, 130);
  c.k = rng() % 8 == 0 ? 1 : random_size(rng, 1, 260);
  c.gap = rng() % 2 == 0 ? 0 : random_size(rng, 1, 9);
  c.bias = rng() % 2 == 0;
  c.scatter = rng() % 3 == 0;
  c.act = static_cast<Activation>(rng() % 6);
  return c;
}

std::string LinearCase::describe() const {
  return std::string(to_string(dtype)) + " T " + std::to_string(tokens) + " N " +
         std::to_string(n) + " K " + std::to_string(k) + " gap " + std::to_string(gap) +
         (bias ? " bias" : "") + (scatter ? " scatter" : "") + " act " +
         std::to_string(static_cast<int>(act));
}

LinearData::LinearData(const LinearCase& c, Rng& rng)
    : x(c.dtype, {c.tokens, c.k}, c.gap), weight(c.dtype, {c.n, c.k}, c.gap) {
  x.fill_normal(rng);
  weight.fill_normal(rng, 1.0 / std::sqrt(static_cast<double>(c.k)));
  if (c.bias) {
    bias = HostTensor(c.dtype, {c.n});
    bias.fill_normal(rng);
  }
  if (c.scatter) {
    std::vector<int64_t> rows(static_cast<size_t>(c.tokens + 3));
    std::iota(rows.begin(), rows.end(), 0);
    std::shuffle(rows.begin(), rows.end(), rng);
    out_rows = HostTensor(DType::kInt64, {c.tokens});
    for (int64_t t = 0; t < c.tokens; ++t) {
      const int64_t row = rng() % 4 == 0 ? -1 - t : rows[static_cast<size_t>(t)];
      out_rows.set(t, static_cast<double>(row));
    }
  }
  clear_out(c);
}

void LinearData::clear_out(const LinearCase& c) {
  out = HostTensor(c.dtype, {c.tokens + (c.scatter ? 3 : 0), c.n}, c.gap);
}

LinearAnswer linear_oracle(const LinearCase& c, const LinearData& data) {
  LinearAnswer answer;
  answer.values.assign(static_cast<size_t>(data.out.numel()),
                       std::numeric_limits<double>::quiet_NaN());
  answer.slack.assign(answer.values.size(), 0.0);
  const std::vector<double> x = data.x.values(), w = data.weight.values();
  for (int64_t t = 0; t < c.tokens; ++t) {
    const int64_t row = c.scatter ? static_cast<int64_t>(data.out_rows.get(t)) : t;
    if (row < 0) continue;
    for (int64_t n = 0; n < c.n; ++n) {
      double sum = c.bias ? data.bias.get(n) : 0.0;
      double magnitude = std::abs(sum);
      for (int64_t k = 0; k < c.k; ++k) {
        const double product =
            x[static_cast<size_t>(t * c.k + k)] * w[static_cast<size_t>(n * c.k + k)];
        sum += product;
        magnitude += std::abs(product);
      }
      const auto i = static_cast<size_t>(row * c.n + n);
      const double roundings = 4.0 + std::sqrt(static_cast<double>(c.k));
      answer.values[i] = exact_activation(sum, c.act);
      answer.slack[i] = 1.5 * roundings * 0x1p-24 * magnitude +
                        (c.act == Activation::kNone ? 0.0 : 1e-6 * (1.0 + std::abs(sum)));
    }
  }
  return answer;
}

LinearArgs linear_args(const LinearCase& c, const LinearData& data) {
  return {.x = data.x.view(),
          .weight = data.weight.view(),
          .bias = data.bias.view(),
          .out = data.out.view(),
          .out_rows = data.out_rows.view(),
          .act = c.act};
}

void expect_answer(const HostTensor& out, const LinearAnswer& answer) {
  for (size_t i = 0; i < answer.values.size(); ++i) {
    const double got = out.get(static_cast<int64_t>(i)), expected = answer.values[i];
    if (std::isnan(expected)) {
      ASSERT_TRUE(std::isnan(got)) << "element " << i << " was written";
      continue;
    }
    const double slack = answer.slack[i];
    ASSERT_LE(std::abs(got - expected), half_unit(std::abs(expected) + slack, out.dtype()) + slack)
        << "element " << i << " is " << got << ", expected " << expected;
  }
}

}  // namespace mmcore::ops::testing
