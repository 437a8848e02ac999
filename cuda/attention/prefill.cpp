#include "attention/prefill.h"

namespace mmcore::cuda {

Status launch_prefill(const ops::AttentionProblem&, const PrefillWork&, cudaStream_t) {
  return Status::unsupported("paged_attention: there is no CUDA kernel for prefill yet");
}

}  // namespace mmcore::cuda
