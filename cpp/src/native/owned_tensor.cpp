#include "native/owned_tensor.h"

#include <sys/mman.h>

#include <cstring>
#include <utility>

#include "base/check.h"
#include "tensor/half.h"

namespace mmcore::native {

namespace {

template <class F>
void with_float_type(DType dtype, F&& f) {
  switch (dtype) {
    case DType::kFloat32:
      return f.template operator()<float>();
    case DType::kBFloat16:
      return f.template operator()<bf16>();
    case DType::kFloat16:
      return f.template operator()<f16>();
    default:
      check(false, "a tensor of the model is no floating-point one");
  }
}

}  // namespace

OwnedTensor::OwnedTensor(DType dtype, std::initializer_list<int64_t> shape, Device device)
    : view_(nullptr, dtype, shape, device) {
  const auto bytes = static_cast<size_t>(view_.numel()) * size_of(dtype);
  if (bytes == 0) return;
  if (device.type == DeviceType::kCuda) {
    Result<gpu::Memory> made = gpu::Memory::on_device(device, static_cast<int64_t>(bytes));
    if (!made.ok()) throw OutOfGpuMemory(made.status());
    on_gpu_ = std::move(made).value();
    view_.data = on_gpu_.data();
    return;
  }
  void* memory = ::mmap(nullptr, bytes, PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (memory == MAP_FAILED) throw std::bad_alloc();
  view_.data = memory;
  mapped_ = bytes;
}

OwnedTensor::OwnedTensor(OwnedTensor&& other) noexcept
    : view_(std::exchange(other.view_, {})),
      mapped_(std::exchange(other.mapped_, 0)),
      on_gpu_(std::move(other.on_gpu_)) {}

OwnedTensor& OwnedTensor::operator=(OwnedTensor&& other) noexcept {
  std::swap(view_, other.view_);
  std::swap(mapped_, other.mapped_);
  on_gpu_ = std::move(other.on_gpu_);  // which swaps
  return *this;
}

OwnedTensor::~OwnedTensor() {
  if (mapped_ != 0) ::munmap(view_.data, mapped_);
}

TensorView OwnedTensor::rows(int64_t first, int64_t count) const {
  return rows_of(view_, first, count);
}

TensorView rows_of(const TensorView& tensor, int64_t first, int64_t count) {
  TensorView rows = tensor;
  rows.shape[0] = count;
  rows.data = static_cast<uint8_t*>(tensor.data) +
              first * tensor.stride(0) * static_cast<int64_t>(size_of(tensor.dtype));
  return rows;
}

TensorView heads_of(const TensorView& x, int64_t first, int64_t heads, int64_t dim) {
  TensorView view(static_cast<uint8_t*>(x.data) + first * static_cast<int64_t>(size_of(x.dtype)),
                  x.dtype, {x.size(0), heads, dim});
  view.strides[0] = x.stride(0);
  view.device = x.device;
  return view;
}

void convert(const TensorView& from, const TensorView& to) {
  check_eq(from.numel(), to.numel(), "convert");
  if (from.dtype == to.dtype) {
    if (from.numel() != 0)
      std::memcpy(to.data, from.data, static_cast<size_t>(from.numel()) * size_of(from.dtype));
    return;
  }
  with_float_type(from.dtype, [&]<class From>() {
    with_float_type(to.dtype, [&]<class To>() {
      const auto* source = static_cast<const uint8_t*>(from.data);
      To* target = to.ptr<To>();
      for (int64_t i = 0; i < from.numel(); ++i, source += sizeof(From)) {
        From value;  // a checkpoint's data lie at any address
        std::memcpy(&value, source, sizeof(From));
        target[i] = To(float(value));
      }
    });
  });
}

}  // namespace mmcore::native
