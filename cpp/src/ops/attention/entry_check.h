// What both attention ops check of their arguments beyond shapes.
#pragma once

#include "ops/attention/problem.h"
#include "tensor/shape_check.h"

namespace mmcore::ops {

/// Head counts, head dim, scale, soft cap and window.
void check_attention_parameters(ShapeCheck& check, int64_t heads, int64_t kv_heads,
                                int64_t head_dim, float scale, float soft_cap, int32_t window);

/// `starts` [n + 1] ascends within [0, rows]; reads the CPU's memory.
void check_starts(ShapeCheck& check, const char* name, const int32_t* starts, int64_t n,
                  int64_t rows);

}  // namespace mmcore::ops
