// Ops whose kernels are still to come.
#include <string>

#include "ops/cuda_backend.h"

namespace mmcore::ops::cuda {
namespace {

Status pending(const char* op) {
  return Status::unsupported(std::string(op) +
                             ": there is no CUDA kernel for it yet; move the tensors "
                             "to the CPU");
}

}  // namespace

Status sample(const TensorView&, std::span<const SampleRow>, std::vector<SampledToken>&,
              std::vector<Status>*, Stream) {
  return pending("sample");
}
Status logprobs(const TensorView&, std::span<const TokenId>, std::span<const int32_t>,
                std::vector<std::vector<TokenLogprob>>&, Stream) {
  return pending("logprobs");
}

}  // namespace mmcore::ops::cuda
