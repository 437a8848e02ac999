// Random rows for the sampler's tests, and what decides whether two tokens may differ.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "mirror.h"
#include "mmcore/sampling.h"

namespace mmcore::cuda {

/// A row's parameters together with what their spans point to.
struct OwnedRow {
  SampleRow row;
  std::vector<TokenId> prompt, output, allowed, banned;
  std::vector<std::pair<TokenId, float>> bias;

  const SampleRow& params();
  static OwnedRow random(ops::testing::Rng& rng, int64_t vocab);
};

/// Random logits; some rows hold many ties, some tokens that cannot be.
ops::testing::HostTensor random_logits(ops::testing::Rng& rng, DType dtype, int64_t rows,
                                       int64_t vocab);

std::vector<double> row_values(const ops::testing::HostTensor& t, int64_t row);

/// Whether float32 may pick `token` where float64 does not: the cumulative probability comes within
/// 1e-5 of the uniform number, or a cut within 2e-6 of its threshold.
bool may_be_picked(const std::vector<double>& logits, const SampleRow& params, TokenId token);

/// The parameters that a failure is reproduced with.
std::string describe(const SampleRow& r);

}  // namespace mmcore::cuda
