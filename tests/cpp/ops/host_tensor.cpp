#include "ops/host_tensor.h"

#include <cstring>

#include "tensor/float8.h"
#include "tensor/half.h"

namespace mmcore::ops::testing {
namespace {

constexpr size_t kGuard = 256;

double load(const std::byte* p, DType dtype) {
  const auto read = [p]<class T>(T value) {
    std::memcpy(&value, p, sizeof(T));
    return value;
  };
  switch (dtype) {
    case DType::kFloat32:
      return read(float{});
    case DType::kBFloat16:
      return float(read(bf16(0.0f)));
    case DType::kFloat16:
      return float(read(f16(0.0f)));
    case DType::kInt32:
      return read(int32_t{});
    case DType::kInt64:
      return static_cast<double>(read(int64_t{}));
    case DType::kUInt8:
      return read(uint8_t{});
    case DType::kFloat8E4M3:
      return float(read(f8e4m3(0.0f)));
  }
  return 0;
}

void store(std::byte* p, DType dtype, double value) {
  const auto write = [p](auto v) { std::memcpy(p, &v, sizeof(v)); };
  switch (dtype) {
    case DType::kFloat32:
      return write(static_cast<float>(value));
    case DType::kBFloat16:
      return write(bf16(static_cast<float>(value)));
    case DType::kFloat16:
      return write(f16(static_cast<float>(value)));
    case DType::kInt32:
      return write(static_cast<int32_t>(value));
    case DType::kInt64:
      return write(static_cast<int64_t>(value));
    case DType::kUInt8:
      return write(static_cast<uint8_t>(value));
    case DType::kFloat8E4M3:
      return write(f8e4m3(static_cast<float>(value)));
  }
}

}  // namespace

HostTensor::HostTensor(DType dtype, std::vector<int64_t> shape, int64_t gap)
    : dtype_(dtype), shape_(std::move(shape)), strides_(shape_.size()) {
  int64_t step = 1;
  for (size_t axis = shape_.size(); axis-- > 0;) {
    strides_[axis] = step;
    step = step * shape_[axis] + gap;
  }
  const size_t size = static_cast<size_t>(step) * size_of(dtype_);
  bytes_.assign(size + 2 * kGuard + 64, std::byte{0xff});
  const auto base = reinterpret_cast<uintptr_t>(bytes_.data());
  start_ = (base + kGuard + 63) / 64 * 64 - base;
}

TensorView HostTensor::view() const {
  if (!present()) return {};
  TensorView v;
  v.data = address(0);
  v.dtype = dtype_;
  v.rank = static_cast<int32_t>(shape_.size());
  for (size_t axis = 0; axis < shape_.size(); ++axis) {
    v.shape[axis] = shape_[axis];
    v.strides[axis] = strides_[axis];
  }
  v.present = true;
  return v;
}

int64_t HostTensor::numel() const {
  if (!present()) return 0;
  int64_t n = 1;
  for (int64_t size : shape_) n *= size;
  return n;
}

int64_t HostTensor::number(std::initializer_list<int64_t> index) const {
  int64_t i = 0;
  for (size_t axis = 0; axis < shape_.size(); ++axis) i = i * shape_[axis] + index.begin()[axis];
  return i;
}

int64_t HostTensor::offset(int64_t i) const {
  int64_t result = 0;
  for (size_t axis = shape_.size(); axis-- > 0;) {
    result += i % shape_[axis] * strides_[axis];
    i /= shape_[axis];
  }
  return result;
}

std::byte* HostTensor::address(int64_t i) const {
  const int64_t elements = numel() == 0 ? 0 : offset(i);
  return bytes_.data() + start_ + static_cast<size_t>(elements) * size_of(dtype_);
}

double HostTensor::get(int64_t i) const { return load(address(i), dtype_); }
void HostTensor::set(int64_t i, double value) { store(address(i), dtype_, value); }

std::vector<double> HostTensor::values() const {
  std::vector<double> all(static_cast<size_t>(numel()));
  for (int64_t i = 0; i < numel(); ++i) all[static_cast<size_t>(i)] = get(i);
  return all;
}

void HostTensor::fill_normal(Rng& rng, double deviation) {
  std::normal_distribution<double> normal(0.0, deviation);
  for (int64_t i = 0; i < numel(); ++i) set(i, normal(rng));
}

void HostTensor::fill_uniform(Rng& rng, double low, double high) {
  std::uniform_real_distribution<double> uniform(low, high);
  for (int64_t i = 0; i < numel(); ++i) set(i, uniform(rng));
}

bool HostTensor::untouched_outside() const {
  std::vector<bool> inside(bytes_.size());
  for (int64_t i = 0; i < numel(); ++i) {
    const auto at = static_cast<size_t>(address(i) - bytes_.data());
    for (size_t b = 0; b < size_of(dtype_); ++b) inside[at + b] = true;
  }
  for (size_t b = 0; b < bytes_.size(); ++b) {
    if (!inside[b] && bytes_[b] != std::byte{0xff}) return false;
  }
  return true;
}

double rounded(double value, DType dtype) {
  std::byte memory[8];
  store(memory, dtype, value);
  return load(memory, dtype);
}

}  // namespace mmcore::ops::testing
