// The CUDA backend of a build without CUDA.
#include <string>

#include "ops/cuda_backend.h"

namespace mmcore::ops::cuda {
namespace {

Status absent(const char* op) {
  return Status::unsupported(std::string(op) +
                             ": the tensors are on a GPU and this build has no CUDA kernels; move "
                             "them to the CPU or build mmcore with MMCORE_CUDA=on");
}

}  // namespace

Status rms_norm(const RmsNormArgs&, Stream) { return absent("rms_norm"); }
Status layer_norm(const LayerNormArgs&, Stream) { return absent("layer_norm"); }
Status activation(const TensorView&, Activation, const TensorView&, Stream) {
  return absent("activation");
}
Status activation_mul(const TensorView&, Activation, const TensorView&, Stream) {
  return absent("activation_mul");
}
Status add(const TensorView&, const TensorView&, Stream) { return absent("add"); }
Status linear(const LinearArgs&, Stream) { return absent("linear"); }
Status vision_projector(const VisionProjectorArgs&, Stream) { return absent("vision_projector"); }
Status embedding_merge(const EmbeddingMergeArgs&, Stream) { return absent("embedding_merge"); }
Status rope_kv_write(const RopeKvWriteArgs&, Stream) { return absent("rope_kv_write"); }
Status copy_blocks(const TensorView&, const TensorView&, Stream) { return absent("copy_blocks"); }
Status paged_attention(const PagedAttentionArgs&, Stream) { return absent("paged_attention"); }
Status varlen_attention(const VarlenAttentionArgs&, Stream) { return absent("varlen_attention"); }
Status sample(const TensorView&, std::span<const SampleRow>, std::vector<SampledToken>&,
              std::vector<Status>*, Stream) {
  return absent("sample");
}
Status sample_tensors(const SampleTensorsArgs&, Stream) { return absent("sample_tensors"); }
Status logprobs(const TensorView&, std::span<const TokenId>, std::span<const int32_t>,
                std::vector<std::vector<TokenLogprob>>&, Stream) {
  return absent("logprobs");
}

}  // namespace mmcore::ops::cuda
