#include <algorithm>
#include <limits>
#include <string>

#include "mmcore/ops.h"
#include "ops/cuda_backend.h"
#include "ops/vocab_segments.h"
#include "tensor/shape_check.h"

namespace mmcore::ops {

int64_t sample_tensors_workspace_bytes(int64_t rows, int64_t vocab) {
  return rows * num_segments(vocab) * kSegmentBytes;
}

Status sample_tensors(const SampleTensorsArgs& args, Stream stream) {
  ShapeCheck check("sample_tensors");
  const auto S = check.dim("S"), V = check.dim("V"), W = check.dim("workspace bytes");
  check.tensor("logits", args.logits, {S, V}).floating();
  check.tensor("temperature", args.temperature, {S}).dtype(DType::kFloat32);
  check.tensor("top_p", args.top_p, {S}).dtype(DType::kFloat32);
  check.tensor("min_p", args.min_p, {S}).dtype(DType::kFloat32);
  check.tensor("top_k", args.top_k, {S}).dtype(DType::kInt32);
  check.tensor("seed", args.seed, {S}).dtype(DType::kInt64);
  check.tensor("counter", args.counter, {S}).dtype(DType::kInt64);
  check.tensor("tokens", args.tokens, {S}).dtype(DType::kInt32).writable();
  check.optional("workspace", args.workspace, {W}).dtype(DType::kUInt8).writable();
  MMCORE_RETURN_IF_ERROR(check.status());
  const int64_t rows = check.size(S), vocab = check.size(V);
  check.require(rows == 0 || (vocab >= 1 && vocab <= std::numeric_limits<TokenId>::max()),
                "logits have " + std::to_string(vocab) + " tokens, expected 1 to 2^31 - 1");
  if (on_gpu(check.device())) {
    const int64_t needed = sample_tensors_workspace_bytes(rows, vocab);
    check.require(check.size(W) >= needed, "workspace has " + std::to_string(check.size(W)) +
                                               " bytes, expected at least " +
                                               std::to_string(needed));
    MMCORE_RETURN_IF_ERROR(check.status());
    return cuda::sample_tensors(args, stream);
  }
  MMCORE_RETURN_IF_ERROR(check.status());
  std::vector<SampleRow> params(static_cast<size_t>(rows));
  for (int64_t i = 0; i < rows; ++i) {
    SampleRow& r = params[static_cast<size_t>(i)];
    r.temperature = args.temperature.ptr<const float>()[i];
    r.top_p = args.top_p.ptr<const float>()[i];
    r.min_p = args.min_p.ptr<const float>()[i];
    r.top_k = args.top_k.ptr<const int32_t>()[i];
    r.seed = static_cast<uint64_t>(args.seed.ptr<const int64_t>()[i]);
    r.counter = static_cast<uint64_t>(args.counter.ptr<const int64_t>()[i]);
  }
  std::vector<SampledToken> picked;
  std::vector<Status> row_status;
  MMCORE_RETURN_IF_ERROR(sample(args.logits, params, picked, &row_status, stream));
  std::transform(picked.begin(), picked.end(), args.tokens.ptr<int32_t>(),
                 [](const SampledToken& t) { return t.token; });
  return {};
}

}  // namespace mmcore::ops
