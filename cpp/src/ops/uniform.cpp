#include "mmcore/ops.h"
#include "ops/philox.h"

namespace mmcore::ops {

float uniform(uint64_t seed, uint64_t counter) {
  const auto words =
      philox4x32_10({static_cast<uint32_t>(counter), static_cast<uint32_t>(counter >> 32), 0, 0},
                    {static_cast<uint32_t>(seed), static_cast<uint32_t>(seed >> 32)});
  return static_cast<float>(words[0] >> 8) * 0x1p-24f;
}

}  // namespace mmcore::ops
