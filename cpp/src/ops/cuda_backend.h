// The ops on a GPU. The entry functions of ops.h check the tensors and hand them over; what is
// declared here trusts them. Defined in cuda/, or, in a build without CUDA, in cuda_absent.cpp,
// where each says that there is no kernel.
//
// Arguments that are read on the device (token ids, slots, tables, lengths) are not checked: that
// would take a synchronisation. Kernels ignore what would lead them outside of a tensor where a
// comparison costs nothing, as their comments say. All of them work on `stream` and return without
// waiting, unless said otherwise.
#pragma once

#include "mmcore/ops.h"

namespace mmcore::ops {

inline bool on_gpu(Device device) { return device.type == DeviceType::kCuda; }

}  // namespace mmcore::ops

namespace mmcore::ops::cuda {

Status rms_norm(const RmsNormArgs& args, Stream stream);
Status layer_norm(const LayerNormArgs& args, Stream stream);
Status activation(const TensorView& x, Activation kind, const TensorView& out, Stream stream);
Status activation_mul(const TensorView& x, Activation kind, const TensorView& out, Stream stream);
Status add(const TensorView& x, const TensorView& out, Stream stream);
Status linear(const LinearArgs& args, Stream stream);
Status vision_projector(const VisionProjectorArgs& args, Stream stream);
Status embedding_merge(const EmbeddingMergeArgs& args, Stream stream);
Status rope_kv_write(const RopeKvWriteArgs& args, Stream stream);
Status copy_blocks(const TensorView& cache, const TensorView& pairs, Stream stream);
Status paged_attention(const PagedAttentionArgs& args, Stream stream);
Status varlen_attention(const VarlenAttentionArgs& args, Stream stream);
/// Waits for the result.
Status sample(const TensorView& logits, std::span<const SampleRow> rows,
              std::vector<SampledToken>& out, std::vector<Status>* row_status, Stream stream);
Status sample_tensors(const SampleTensorsArgs& args, Stream stream);
/// Waits for the result.
Status logprobs(const TensorView& logits, std::span<const TokenId> targets,
                std::span<const int32_t> num, std::vector<std::vector<TokenLogprob>>& out,
                Stream stream);

}  // namespace mmcore::ops::cuda
