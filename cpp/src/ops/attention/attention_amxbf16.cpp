#include "ops/attention/simd/run_item.h"

namespace mmcore::ops {

const AttentionKernels kAttentionAmxBf16 = {run_item, merge_partials};

}  // namespace mmcore::ops
