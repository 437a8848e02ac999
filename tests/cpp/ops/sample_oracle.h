// Sampling by its definition: float64, a full sort, no shortcuts.
#pragma once

#include <cstdint>
#include <vector>

#include "mmcore/sampling.h"

namespace mmcore::ops::testing {

/// What a row may become before the draw.
struct Kept {
  std::vector<double> probability;  // per token, 0 where it was cut; sums up to 1
  /// Whether a cut passes so close to a token that float32 may decide otherwise.
  bool doubtful = false;
};

/// Masks, bias and penalties of `params` on a copy of `logits`.
std::vector<double> edited_logits(std::vector<double> logits, const SampleRow& params);
/// All of sample() up to the draw. Needs temperature > 0 and something left.
Kept kept_tokens(const std::vector<double>& logits, const SampleRow& params);
/// First token whose cumulative probability exceeds u; -1 where float32 may come to its neighbour.
TokenId draw(const Kept& kept, double u);
TokenId best_token(const std::vector<double>& logits);
/// log_softmax.
std::vector<double> log_probabilities(const std::vector<double>& logits);
/// All tokens, more likely first, smaller ids first among equals.
std::vector<TokenId> by_rank(const std::vector<double>& logits);

}  // namespace mmcore::ops::testing
