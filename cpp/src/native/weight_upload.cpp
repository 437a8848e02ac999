#include "native/weight_upload.h"

#include <algorithm>
#include <utility>

#include "native/owned_tensor.h"

namespace mmcore::native {

namespace {

constexpr int64_t kPieceBytes = int64_t{16} << 20;

TensorView piece_of(const TensorView& tensor, int64_t first, int64_t count) {
  return TensorView(
      static_cast<uint8_t*>(tensor.data) + first * static_cast<int64_t>(size_of(tensor.dtype)),
      tensor.dtype, {count}, tensor.device);
}

}  // namespace

Status WeightUpload::next(Buffer*& buffer) {
  buffer = &buffers_[turn_];
  turn_ = (turn_ + 1) % buffers_.size();
  if (buffer->memory.data() != nullptr) return buffer->sent.wait();
  Result<gpu::Event> event = gpu::Event::make(place_.device);
  if (!event.ok()) return event.status();
  Result<gpu::Memory> memory = gpu::Memory::pinned(place_.device, kPieceBytes);
  if (!memory.ok()) return memory.status();
  buffer->sent = std::move(event).value();
  buffer->memory = std::move(memory).value();
  return {};
}

Status WeightUpload::copy(const TensorView& from, const TensorView& to) {
  const int64_t total = to.numel(), element = static_cast<int64_t>(size_of(to.dtype));
  for (int64_t first = 0; first < total; first += kPieceBytes / element) {
    const int64_t count = std::min(kPieceBytes / element, total - first);
    Buffer* buffer = nullptr;
    MMCORE_RETURN_IF_ERROR(next(buffer));
    convert(piece_of(from, first, count), TensorView(buffer->memory.data(), to.dtype, {count}));
    MMCORE_RETURN_IF_ERROR(native::copy(place_, piece_of(to, first, count).data,
                                        buffer->memory.data(), count * element));
    MMCORE_RETURN_IF_ERROR(buffer->sent.record(place_.stream));
  }
  return {};
}

Status WeightUpload::finish() {
  for (const Buffer& buffer : buffers_)
    if (buffer.memory.data() != nullptr) MMCORE_RETURN_IF_ERROR(buffer.sent.wait());
  return {};
}

}  // namespace mmcore::native
