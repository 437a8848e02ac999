#include "sampling/sampled_rows.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <sstream>

#include "mmcore/ops.h"
#include "ops/rounding.h"
#include "ops/sample_oracle.h"

namespace mmcore::cuda {

using ops::testing::HostTensor;
using ops::testing::random_size;
using ops::testing::Rng;

const SampleRow& OwnedRow::params() {
  row.prompt_tokens = prompt;
  row.output_tokens = output;
  row.allowed_tokens = allowed;
  row.banned_tokens = banned;
  row.logit_bias = bias;
  return row;
}

OwnedRow OwnedRow::random(Rng& rng, int64_t vocab) {
  const auto chance = [&](uint64_t n) { return rng() % n == 0; };
  const auto real = [&](double low, double high) {
    return static_cast<float>(std::uniform_real_distribution<double>(low, high)(rng));
  };
  const auto tokens = [&](int64_t most) {
    std::vector<TokenId> list(static_cast<size_t>(random_size(rng, 1, most)));
    for (TokenId& t : list) t = static_cast<TokenId>(random_size(rng, -1, vocab));  // some outside
    return list;
  };
  OwnedRow r;
  r.row.temperature = chance(6) ? 0.0f : chance(4) ? 1.0f : real(0.2, 2.0);
  if (chance(2)) r.row.top_k = static_cast<int32_t>(random_size(rng, 1, chance(3) ? vocab : 40));
  if (chance(2)) r.row.top_p = real(0.05, 1.0);
  if (chance(4)) r.row.min_p = real(0.0, 0.5);
  if (chance(4)) r.row.repetition_penalty = real(0.5, 2.0);
  if (chance(4)) r.row.frequency_penalty = real(-2.0, 2.0);
  if (chance(4)) r.row.presence_penalty = real(-2.0, 2.0);
  r.row.seed = rng();
  r.row.counter = rng() % 1000;
  if (chance(2)) r.prompt = tokens(30);
  if (chance(2)) r.output = tokens(30);
  if (chance(8)) r.allowed = tokens(vocab);
  for (uint64_t n = chance(4) ? rng() % 5 : 0; n > 0; --n)
    r.bias.emplace_back(static_cast<TokenId>(random_size(rng, 0, vocab - 1)), real(-5, 5));
  if (r.bias.size() > 2) r.bias[2].first = r.bias[0].first;  // twice the same
  if (chance(4)) r.banned = tokens(30);
  return r;
}

HostTensor random_logits(Rng& rng, DType dtype, int64_t rows, int64_t vocab) {
  const int64_t gaps[] = {0, 0, 8, 7};
  HostTensor logits(dtype, {rows, vocab}, gaps[rng() % 4]);
  logits.fill_normal(rng, 0.5 + static_cast<double>(rng() % 4));
  for (int64_t r = 0; r < rows; ++r) {
    const uint64_t kind = rng() % 5;
    for (int64_t i = 0; i < vocab; ++i) {
      if (kind == 0) logits.set_at({r, i}, std::round(logits.at({r, i})));  // ties, and -0
      if (kind == 1 && i > 0 && rng() % 3 == 0)
        logits.set_at({r, i}, -std::numeric_limits<double>::infinity());
    }
  }
  return logits;
}

std::vector<double> row_values(const HostTensor& t, int64_t row) {
  std::vector<double> values;
  for (int64_t i = 0; i < t.shape()[1]; ++i) values.push_back(t.at({row, i}));
  return values;
}

bool may_be_picked(const std::vector<double>& logits, const SampleRow& params, TokenId token) {
  if (token < 0 || params.temperature < 1e-5f) return false;
  SampleRow inside = params;  // the oracle takes no bias outside of the row
  const ops::testing::Kept kept = ops::testing::kept_tokens(logits, inside);
  if (kept.doubtful) return true;
  const double u = ops::uniform(params.seed, params.counter);
  double before = 0;
  for (TokenId t = 0; t < token; ++t) before += kept.probability[static_cast<size_t>(t)];
  const double own = kept.probability[static_cast<size_t>(token)];
  return own > 0 && before <= u + 1e-5 && before + own >= u - 1e-5;
}

std::string describe(const SampleRow& r) {
  std::ostringstream s;
  s << "temperature " << r.temperature << " top_k " << r.top_k << " top_p " << r.top_p << " min_p "
    << r.min_p << " penalties " << r.repetition_penalty << " " << r.frequency_penalty << " "
    << r.presence_penalty << " seed " << r.seed << " counter " << r.counter;
  return s.str();
}

}  // namespace mmcore::cuda
