// Tensors on the GPU for tests: owned memory, filled from and read back as plain vectors.
#pragma once

#include <gtest/gtest.h>

#include <cstdint>
#include <initializer_list>
#include <span>
#include <vector>

#include "mmcore/tensor.h"

namespace mmcore::cuda {

/// Skips where there is no GPU; every CUDA test derives from it. After each test it waits for the
/// device and fails on an error that a kernel left.
class GpuTest : public testing::Test {
 protected:
  void SetUp() override;
  void TearDown() override;
};

/// How many random cases a test tries: `usual`, or MMCORE_TEST_CASES times as many.
int cases(int usual);

/// Memory of the first GPU, freed with the object. Guard bytes on both sides are checked when it
/// goes: a kernel that writes outside of its tensors fails the test.
class DeviceTensor {
 public:
  DeviceTensor() = default;
  /// Filled with a pattern that reads as NaN in every float type.
  DeviceTensor(DType dtype, std::initializer_list<int64_t> dims);
  ~DeviceTensor();
  DeviceTensor(DeviceTensor&& other) noexcept { swap(other); }
  DeviceTensor& operator=(DeviceTensor&& other) noexcept {
    swap(other);
    return *this;
  }

  /// Rounds to `dtype`, which is a float type.
  static DeviceTensor from(const std::vector<float>& values, std::initializer_list<int64_t> dims,
                           DType dtype = DType::kFloat32);
  static DeviceTensor from(const std::vector<int32_t>& values, std::initializer_list<int64_t> dims);
  static DeviceTensor from(const std::vector<int64_t>& values, std::initializer_list<int64_t> dims);

  const TensorView& view() const { return view_; }
  operator const TensorView&() const { return view_; }  // NOLINT: stands for its view in arguments
  /// Waits for the device and reads everything back, widened from a float type.
  std::vector<float> floats() const;
  std::vector<int32_t> ints() const;
  std::vector<int64_t> longs() const;
  std::vector<uint8_t> bytes() const;
  /// Writes raw bytes over the beginning.
  void write(std::span<const uint8_t> bytes);
  int64_t num_bytes() const { return bytes_; }

 private:
  void swap(DeviceTensor& other) noexcept;
  TensorView view_;
  void* base_ = nullptr;
  int64_t bytes_ = 0;
};

/// Values as they are after rounding to `dtype`: what a reference must start from.
std::vector<float> rounded(std::vector<float> values, DType dtype);

/// Largest |got - want| over the root mean square of `want` (1 where all is zero). NaN counts as
/// infinite.
double relative_error(std::span<const float> got, std::span<const double> want);

}  // namespace mmcore::cuda
