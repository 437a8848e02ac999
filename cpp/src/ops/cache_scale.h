// What both ops of the KV cache check of its scales.
#pragma once

#include "tensor/shape_check.h"

namespace mmcore::ops {

/// Scales are finite and above 0, and 1 unless `cache` is float8_e4m3fn.
void check_cache_scales(ShapeCheck& check, DType cache, float k_scale, float v_scale);

}  // namespace mmcore::ops
