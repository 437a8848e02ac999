#include "device_tensor.h"

#include <cuda_runtime_api.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <utility>

#include "tensor/dispatch.h"

namespace mmcore::cuda {
namespace {

constexpr int64_t kGuardBytes = 512;
constexpr int kGuard = 0xa5;
constexpr int kNaN = 0xff;  // all bits set is a NaN in float32, bfloat16, float16 and e4m3

void must(cudaError_t error) { ASSERT_EQ(error, cudaSuccess) << cudaGetErrorString(error); }

}  // namespace

int cases(int usual) {
  const char* text = std::getenv("MMCORE_TEST_CASES");
  return usual * (text == nullptr ? 1 : std::max(1, std::atoi(text)));
}

void GpuTest::SetUp() {
  int count = 0;
  if (cudaGetDeviceCount(&count) != cudaSuccess || count == 0) GTEST_SKIP() << "no GPU here";
}

void GpuTest::TearDown() {
  if (!IsSkipped()) must(cudaDeviceSynchronize());
}

DeviceTensor::DeviceTensor(DType dtype, std::initializer_list<int64_t> dims)
    : view_(nullptr, dtype, dims, Device{DeviceType::kCuda, 0}) {
  bytes_ = view_.numel() * static_cast<int64_t>(size_of(dtype));
  must(cudaMalloc(&base_, static_cast<size_t>(bytes_ + 2 * kGuardBytes)));
  must(cudaMemset(base_, kGuard, static_cast<size_t>(bytes_ + 2 * kGuardBytes)));
  view_.data = static_cast<char*>(base_) + kGuardBytes;
  must(cudaMemset(view_.data, kNaN, static_cast<size_t>(bytes_)));
}

DeviceTensor::~DeviceTensor() {
  if (base_ == nullptr) return;
  std::vector<uint8_t> guards(2 * kGuardBytes);
  must(cudaMemcpy(guards.data(), base_, kGuardBytes, cudaMemcpyDeviceToHost));
  must(cudaMemcpy(guards.data() + kGuardBytes, static_cast<char*>(view_.data) + bytes_, kGuardBytes,
                  cudaMemcpyDeviceToHost));
  EXPECT_TRUE(std::all_of(guards.begin(), guards.end(), [](uint8_t b) { return b == kGuard; }))
      << "a kernel wrote outside of " << describe(view_);
  must(cudaFree(base_));
}

void DeviceTensor::swap(DeviceTensor& other) noexcept {
  std::swap(view_, other.view_);
  std::swap(base_, other.base_);
  std::swap(bytes_, other.bytes_);
}

void DeviceTensor::write(std::span<const uint8_t> bytes) {
  ASSERT_LE(static_cast<int64_t>(bytes.size()), bytes_);
  must(cudaMemcpy(view_.data, bytes.data(), bytes.size(), cudaMemcpyHostToDevice));
}

namespace {

template <class T>
std::span<const uint8_t> raw(const std::vector<T>& values) {
  return {reinterpret_cast<const uint8_t*>(values.data()), values.size() * sizeof(T)};
}

template <class T>
std::vector<T> cast(const std::vector<uint8_t>& bytes) {
  std::vector<T> values(bytes.size() / sizeof(T));
  std::memcpy(values.data(), bytes.data(), values.size() * sizeof(T));
  return values;
}

}  // namespace

DeviceTensor DeviceTensor::from(const std::vector<float>& values,
                                std::initializer_list<int64_t> dims, DType dtype) {
  DeviceTensor t(dtype, dims);
  EXPECT_EQ(t.view_.numel(), static_cast<int64_t>(values.size()));
  const Status status = dispatch_cache(dtype, "DeviceTensor", [&]<class T>() {
    std::vector<T> stored(values.size());
    std::transform(values.begin(), values.end(), stored.begin(), [](float f) { return T(f); });
    t.write(raw(stored));
  });
  EXPECT_TRUE(status.ok()) << status.message();
  return t;
}

DeviceTensor DeviceTensor::from(const std::vector<int32_t>& values,
                                std::initializer_list<int64_t> dims) {
  DeviceTensor t(DType::kInt32, dims);
  t.write(raw(values));
  return t;
}

DeviceTensor DeviceTensor::from(const std::vector<int64_t>& values,
                                std::initializer_list<int64_t> dims) {
  DeviceTensor t(DType::kInt64, dims);
  t.write(raw(values));
  return t;
}

std::vector<uint8_t> DeviceTensor::bytes() const {
  std::vector<uint8_t> out(static_cast<size_t>(bytes_));
  must(cudaMemcpy(out.data(), view_.data, out.size(), cudaMemcpyDeviceToHost));
  return out;
}

std::vector<float> DeviceTensor::floats() const {
  std::vector<float> out;
  const Status status = dispatch_cache(view_.dtype, "DeviceTensor", [&]<class T>() {
    for (const T& value : cast<T>(bytes())) out.push_back(static_cast<float>(value));
  });
  EXPECT_TRUE(status.ok()) << status.message();
  return out;
}

std::vector<int32_t> DeviceTensor::ints() const { return cast<int32_t>(bytes()); }
std::vector<int64_t> DeviceTensor::longs() const { return cast<int64_t>(bytes()); }

std::vector<float> rounded(std::vector<float> values, DType dtype) {
  const Status status = dispatch_cache(dtype, "rounded", [&]<class T>() {
    for (float& value : values) value = static_cast<float>(T(value));
  });
  EXPECT_TRUE(status.ok()) << status.message();
  return values;
}

double relative_error(std::span<const float> got, std::span<const double> want) {
  if (got.size() != want.size()) return std::numeric_limits<double>::infinity();
  double worst = 0, squares = 0;
  for (size_t i = 0; i < got.size(); ++i) {
    const double error = std::abs(got[i] - want[i]);
    worst = std::isnan(error) ? std::numeric_limits<double>::infinity() : std::max(worst, error);
    squares += want[i] * want[i];
  }
  const double rms = want.empty() ? 0 : std::sqrt(squares / static_cast<double>(want.size()));
  return worst / (rms > 0 ? rms : 1.0);
}

}  // namespace mmcore::cuda
