// Cosines and sines of rotary positions, as ops::rope_kv_write reads them.
#pragma once

#include "native/model_config.h"
#include "native/owned_tensor.h"

namespace mmcore::native {

/// float32 [positions, dim]: row p is [cos(p f_0) ... | sin(p f_0) ...].
OwnedTensor make_rope_table(const RopeConfig& rope, int32_t dim, int64_t positions);

}  // namespace mmcore::native
