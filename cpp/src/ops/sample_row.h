// What every backend of sample says about a row: its parameters' ranges and its failures.
#pragma once

#include <cstdint>
#include <vector>

#include "mmcore/sampling.h"
#include "mmcore/status.h"

namespace mmcore::ops {

/// Below it a row is greedy.
inline constexpr float kGreedyBelow = 1e-5f;

/// The ranges of sampling.h.
Status check_sample_row(const SampleRow& row);
/// The logits that came in hold a NaN.
Status nan_in_logits();
/// A bias or a penalty made one.
Status nan_from_edits();
/// Every token is masked or impossible.
Status nothing_left(int64_t vocab);
/// The first failure with its row's number, for a caller that takes no status per row.
Status first_failure(const std::vector<Status>& rows);

}  // namespace mmcore::ops
