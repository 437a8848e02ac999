#include "host/device.h"
#include "ops/cuda_backend.h"
#include "sampling/sampler.h"

namespace mmcore::ops::cuda {

Status sample_tensors(const SampleTensorsArgs& args, Stream stream) {
  namespace mc = mmcore::cuda;
  const TensorView& logits = args.logits;
  if (logits.size(0) == 0) return {};
  if (reinterpret_cast<uintptr_t>(args.workspace.data) % 16 != 0) {
    return Status::invalid_argument("sample_tensors: workspace is not aligned to 16 bytes");
  }
  const auto bytes = static_cast<int64_t>(size_of(logits.dtype));
  const mc::Rows rows{.logits = logits.data,
                      .dtype = logits.dtype,
                      .count = logits.size(0),
                      .vocab = logits.size(1),
                      .stride = logits.stride(0),
                      .edit_slot = nullptr,
                      .edited = nullptr,
                      .edited_stride = 0,
                      .aligned = reinterpret_cast<uintptr_t>(logits.data) % 16 == 0 &&
                                 (logits.stride(0) * bytes) % 16 == 0};
  const mc::SampleColumns columns{.temperature = args.temperature.ptr<const float>(),
                                  .top_p = args.top_p.ptr<const float>(),
                                  .min_p = args.min_p.ptr<const float>(),
                                  .top_k = args.top_k.ptr<const int32_t>(),
                                  .seed = args.seed.ptr<const int64_t>(),
                                  .counter = args.counter.ptr<const int64_t>()};
  const mc::DeviceGuard guard(logits.device);
  const cudaStream_t queue = mc::stream_of(stream);
  MMCORE_RETURN_IF_ERROR(
      mc::scan_segments(rows, columns, args.workspace.data, logits.device, queue));
  return mc::pick_tokens(rows, columns, args.workspace.data, nullptr, args.tokens.ptr<int32_t>(),
                         nullptr, logits.device, queue);
}

}  // namespace mmcore::ops::cuda
