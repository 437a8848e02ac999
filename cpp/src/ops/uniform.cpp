#include "mmcore/ops.h"
#include "ops/philox.h"

namespace mmcore::ops {

float uniform(uint64_t seed, uint64_t counter) { return uniform_from(seed, counter); }

}  // namespace mmcore::ops
