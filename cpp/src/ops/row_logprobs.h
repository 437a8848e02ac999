// Log-probabilities of one row of raw logits.
#pragma once

#include <cstdint>
#include <vector>

#include "mmcore/sampling.h"
#include "mmcore/status.h"
#include "ops/vocab_row.h"

namespace mmcore::ops {

/// Fills `out` with `token` first and then the `num` best tokens by (logprob descending, id
/// ascending), `token` again if it is one of them. `row` holds unedited logits, one above -inf.
void row_logprobs(VocabRow& row, TokenId token, int64_t num, std::vector<TokenLogprob>& out);

/// What logprobs says about row `index`: a target that is no token, a NaN, nothing above -inf.
Status check_target(int64_t index, TokenId target, int64_t vocab);
Status nan_in_row(int64_t index);
Status nothing_in_row(int64_t index);

}  // namespace mmcore::ops
