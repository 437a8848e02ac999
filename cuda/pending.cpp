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

Status rms_norm(const RmsNormArgs&, Stream) { return pending("rms_norm"); }
Status layer_norm(const LayerNormArgs&, Stream) { return pending("layer_norm"); }
Status activation(const TensorView&, Activation, const TensorView&, Stream) {
  return pending("activation");
}
Status activation_mul(const TensorView&, Activation, const TensorView&, Stream) {
  return pending("activation_mul");
}
Status linear(const LinearArgs&, Stream) { return pending("linear"); }
Status vision_projector(const VisionProjectorArgs&, Stream) { return pending("vision_projector"); }
Status embedding_merge(const EmbeddingMergeArgs&, Stream) { return pending("embedding_merge"); }
Status rope_kv_write(const RopeKvWriteArgs&, Stream) { return pending("rope_kv_write"); }
Status copy_blocks(const TensorView&, const TensorView&, Stream) { return pending("copy_blocks"); }
Status paged_attention(const PagedAttentionArgs&, Stream) { return pending("paged_attention"); }
Status sample(const TensorView&, std::span<const SampleRow>, std::vector<SampledToken>&,
              std::vector<Status>*, Stream) {
  return pending("sample");
}
Status logprobs(const TensorView&, std::span<const TokenId>, std::span<const int32_t>,
                std::vector<std::vector<TokenLogprob>>&, Stream) {
  return pending("logprobs");
}

}  // namespace mmcore::ops::cuda
