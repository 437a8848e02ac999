#include "ops/sample_oracle.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>
#include <numeric>
#include <set>

namespace mmcore::ops::testing {
namespace {

constexpr double kMasked = -std::numeric_limits<double>::infinity();
constexpr double kDoubt = 2e-6;

std::map<size_t, int> counts(std::span<const TokenId> tokens, size_t vocab) {
  std::map<size_t, int> count;
  for (const TokenId t : tokens) {
    if (t >= 0 && static_cast<size_t>(t) < vocab) ++count[static_cast<size_t>(t)];
  }
  return count;
}

}  // namespace

std::vector<double> edited_logits(std::vector<double> logits, const SampleRow& params) {
  const size_t vocab = logits.size();
  const auto allowed = counts(params.allowed_tokens, vocab);
  for (size_t i = 0; i < vocab; ++i) {
    if (!params.allowed_tokens.empty() && !allowed.contains(i)) logits[i] = kMasked;
  }
  for (const auto& [i, n] : counts(params.banned_tokens, vocab)) logits[i] = kMasked;
  for (const auto& [token, bias] : params.logit_bias) logits[static_cast<size_t>(token)] += bias;
  const auto prompt = counts(params.prompt_tokens, vocab);
  const auto output = counts(params.output_tokens, vocab);
  for (size_t i = 0; i < vocab; ++i) {
    if (!prompt.contains(i) && !output.contains(i)) continue;
    logits[i] = logits[i] > 0 ? logits[i] / params.repetition_penalty
                              : logits[i] * params.repetition_penalty;
  }
  for (const auto& [i, n] : output) {
    logits[i] -= double{params.frequency_penalty} * n;
    logits[i] -= params.presence_penalty;
  }
  return logits;
}

std::vector<TokenId> by_rank(const std::vector<double>& logits) {
  std::vector<TokenId> order(logits.size());
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(), [&](TokenId a, TokenId b) {
    return logits[static_cast<size_t>(a)] > logits[static_cast<size_t>(b)];
  });
  return order;
}

TokenId best_token(const std::vector<double>& logits) { return by_rank(logits).front(); }

std::vector<double> log_probabilities(const std::vector<double>& logits) {
  const double max = *std::max_element(logits.begin(), logits.end());
  double total = 0.0;
  for (const double x : logits) total += std::exp(x - max);
  std::vector<double> result;
  for (const double x : logits) result.push_back(x - max - std::log(total));
  return result;
}

Kept kept_tokens(const std::vector<double>& raw, const SampleRow& params) {
  std::vector<double> logits = edited_logits(raw, params);
  const std::vector<TokenId> order = by_rank(logits);
  for (double& x : logits) x /= params.temperature;
  Kept kept;
  kept.probability.assign(logits.size(), 0.0);
  const double best = logits[static_cast<size_t>(order[0])];
  const auto weight = [&](TokenId t) { return std::exp(logits[static_cast<size_t>(t)] - best); };

  size_t left = order.size();
  if (params.top_k >= 1) left = std::min(left, static_cast<size_t>(params.top_k));
  double total = 0.0;
  for (size_t i = 0; i < left; ++i) total += weight(order[i]);
  if (params.top_p < 1.0f) {
    double sum = 0.0;
    size_t n = 0;
    while (n < left && sum / total < params.top_p) {
      sum += weight(order[n++]);
      kept.doubtful |= std::abs(sum / total - params.top_p) < kDoubt;
    }
    left = n;
  }
  double mass = 0.0;
  for (size_t i = 0; i < left; ++i) {
    const double w = weight(order[i]);
    kept.doubtful |=
        params.min_p > 0.0f && params.min_p < 1.0f && std::abs(w - params.min_p) < kDoubt * w;
    if (w < params.min_p) continue;
    kept.probability[static_cast<size_t>(order[i])] = w;
    mass += w;
  }
  for (double& p : kept.probability) p /= mass;
  return kept;
}

TokenId draw(const Kept& kept, double u) {
  double sum = 0.0;
  for (size_t i = 0; i < kept.probability.size(); ++i) {
    sum += kept.probability[i];
    if (kept.probability[i] > 0.0 && std::abs(sum - u) < kDoubt) return -1;
    if (sum > u) return static_cast<TokenId>(i);
  }
  return -1;
}

}  // namespace mmcore::ops::testing
