// A build without CUDA refuses tensors on a GPU, op by op; nothing reads them.
#include <gtest/gtest.h>

#include "mmcore/gpu.h"
#include "mmcore/ops.h"

namespace mmcore::ops {
namespace {

TensorView on_gpu(DType dtype, std::initializer_list<int64_t> dims) {
  return {reinterpret_cast<void*>(4096), dtype, dims, {DeviceType::kCuda, 1}};
}

void expect_refused(const Status& status, const char* op) {
  EXPECT_EQ(status.code(), StatusCode::kUnsupported) << op << ": " << status.message();
  EXPECT_EQ(status.message().rfind(std::string(op) + ": ", 0), 0u) << status.message();
  EXPECT_NE(status.message().find("no CUDA kernels"), std::string::npos) << status.message();
}

TEST(CudaAbsent, EveryOpRefusesTensorsOnAGpu) {
  const TensorView x = on_gpu(DType::kFloat32, {2, 8}), out = on_gpu(DType::kFloat32, {2, 8});
  const TensorView weight = on_gpu(DType::kFloat32, {8}), square = on_gpu(DType::kFloat32, {8, 8});
  const TensorView ids = on_gpu(DType::kInt64, {2});
  const TensorView heads = on_gpu(DType::kFloat32, {2, 1, 32});
  const TensorView cache = on_gpu(DType::kFloat32, {4, 16, 1, 32});
  const TensorView starts = on_gpu(DType::kInt32, {2}), lens = on_gpu(DType::kInt32, {1});
  expect_refused(rms_norm({.x = x, .weight = weight, .residual = {}, .out = out}), "rms_norm");
  expect_refused(layer_norm({.x = x, .weight = weight, .bias = {}, .out = out}), "layer_norm");
  expect_refused(activation(x, Activation::kSilu, out), "activation");
  expect_refused(activation_mul(on_gpu(DType::kFloat32, {2, 16}), Activation::kSilu, out),
                 "activation_mul");
  expect_refused(add(x, out), "add");
  LinearArgs linear_args;
  linear_args.x = x;
  linear_args.weight = square;
  linear_args.out = out;
  expect_refused(linear(linear_args), "linear");
  VisionProjectorArgs projector;
  projector.x = x;
  projector.w1 = projector.w2 = square;
  projector.out = out;
  projector.workspace = on_gpu(DType::kUInt8, {1 << 20});
  expect_refused(vision_projector(projector), "vision_projector");
  EmbeddingMergeArgs merge;
  merge.token_ids = ids;
  merge.table = square;
  merge.out = out;
  expect_refused(embedding_merge(merge), "embedding_merge");
  RopeKvWriteArgs rope;
  rope.k = heads;
  expect_refused(rope_kv_write(rope), "rope_kv_write");
  expect_refused(copy_blocks(cache, on_gpu(DType::kInt64, {1, 2})), "copy_blocks");
  PagedAttentionArgs paged;
  paged.q = heads;
  paged.k_cache = cache;
  paged.v_cache = cache;
  paged.block_tables = on_gpu(DType::kInt32, {1, 4});
  paged.query_start = starts;
  paged.seq_lens = lens;
  paged.out = heads;
  expect_refused(paged_attention(paged), "paged_attention");
  VarlenAttentionArgs varlen;
  varlen.q = varlen.k = varlen.v = varlen.out = heads;
  varlen.cu_q = varlen.cu_k = starts;
  expect_refused(varlen_attention(varlen), "varlen_attention");
  std::vector<SampledToken> tokens;
  const std::vector<SampleRow> rows(2);
  expect_refused(sample(x, rows, tokens), "sample");
  const TensorView floats = on_gpu(DType::kFloat32, {2}), ints = on_gpu(DType::kInt32, {2});
  expect_refused(sample_tensors({.logits = x,
                                 .temperature = floats,
                                 .top_p = floats,
                                 .min_p = floats,
                                 .top_k = ints,
                                 .seed = ids,
                                 .counter = ids,
                                 .tokens = ints,
                                 .workspace = on_gpu(DType::kUInt8, {64})}),
                 "sample_tensors");
  std::vector<std::vector<TokenLogprob>> lists;
  const std::vector<TokenId> targets{1, 2};
  const std::vector<int32_t> num{0, 0};
  expect_refused(logprobs(x, targets, num, lists), "logprobs");
}

TEST(CudaAbsent, ThereIsNoGpuAndEverythingSaysSo) {
  const Device first{DeviceType::kCuda, 0};
  EXPECT_EQ(gpu::device_count(), 0);
  int byte = 0;
  for (const Status& status :
       {gpu::properties(first).status(), gpu::Memory::on_device(first, 8).status(),
        gpu::Memory::pinned(first, 8).status(), gpu::OwnedStream::make(first).status(),
        gpu::OwnedStream().wait(), gpu::Event::make(first).status(), gpu::Event().record({}),
        gpu::Event().wait(), gpu::Graph::capture(first, {}, [] { return Status(); }).status(),
        gpu::Graph().launch({}), gpu::copy(first, &byte, &byte, 1, {}),
        gpu::copy_rows(first, &byte, 1, &byte, 1, 1, 1, {}),
        gpu::fill_zeros(first, &byte, 1, {})}) {
    EXPECT_EQ(status.code(), StatusCode::kUnsupported);
    EXPECT_NE(status.message().find("no CUDA kernels; use the device cpu"), std::string::npos)
        << status.message();
  }
}

}  // namespace
}  // namespace mmcore::ops
