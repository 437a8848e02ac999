#include "ops/rope_kv_write_vec.h"

namespace mmcore::ops {

void rope_kv_write_avx2(const RopeKvWriteProblem& p, int64_t begin, int64_t end) {
  run_tokens(p, begin, end);
}

}  // namespace mmcore::ops
