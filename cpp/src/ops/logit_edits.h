// What changes logits before temperature: masks, biases, penalties.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "mmcore/sampling.h"

namespace mmcore::ops {

/// Whether `params` changes any logit.
bool edits_logits(const SampleRow& params);
/// Applies, in this order: allowed and banned tokens, logit bias, repetition penalty (over prompt
/// and output tokens), frequency and presence penalties (over output tokens). Token ids outside the
/// row are ignored: a prompt holds placeholders that no logit stands for. `marks` is scratch, all
/// zero between calls. Returns whether anything was there to apply.
/// O(prompt + output) when a penalty is on.
bool edit_logits(const SampleRow& params, std::span<float> row, std::vector<int32_t>& marks);

}  // namespace mmcore::ops
