#include "ops/attention/problem.h"
#include "ops/cpu_isa.h"

namespace mmcore::ops {

void run_attention(const AttentionProblem& problem) { attention_reference(problem); }

}  // namespace mmcore::ops
