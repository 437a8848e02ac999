// A tensor of a test: owns its memory, reads and writes elements as double, and sees whether an op
// wrote where it should not have. All bytes start as 0xff, a NaN in every float type: what an op
// reads without being allowed to poisons its result.
#pragma once

#include <cstddef>
#include <cstdint>
#include <random>
#include <span>
#include <vector>

#include "mmcore/tensor.h"

namespace mmcore::ops::testing {

using Rng = std::mt19937_64;

class HostTensor {
 public:
  HostTensor() = default;  // absent
  /// Gaps of `gap` elements follow each step of every axis but the last.
  HostTensor(DType dtype, std::vector<int64_t> shape, int64_t gap = 0);

  TensorView view() const;
  bool present() const { return !bytes_.empty(); }
  DType dtype() const { return dtype_; }
  const std::vector<int64_t>& shape() const { return shape_; }
  int64_t numel() const;

  /// Element by its row-major number, whatever the strides.
  double get(int64_t i) const;
  void set(int64_t i, double value);
  double at(std::initializer_list<int64_t> index) const { return get(number(index)); }
  void set_at(std::initializer_list<int64_t> index, double value) { set(number(index), value); }
  /// All elements, row-major.
  std::vector<double> values() const;
  void fill_normal(Rng& rng, double deviation = 1.0);
  void fill_uniform(Rng& rng, double low, double high);
  template <class T>
  void assign(std::span<const T> values) {
    for (size_t i = 0; i < values.size(); ++i) {
      set(static_cast<int64_t>(i), static_cast<double>(values[i]));
    }
  }

  /// The gaps and the guards at both ends still hold 0xff.
  bool untouched_outside() const;
  const std::vector<std::byte>& bytes() const { return bytes_; }

 private:
  int64_t number(std::initializer_list<int64_t> index) const;
  /// Of element i, in elements from the first.
  int64_t offset(int64_t i) const;
  std::byte* address(int64_t i) const;

  DType dtype_ = DType::kFloat32;
  std::vector<int64_t> shape_;
  std::vector<int64_t> strides_;
  mutable std::vector<std::byte> bytes_;
  size_t start_ = 0;  // of the first element: past the guard, aligned
};

/// A value as `dtype` stores it.
double rounded(double value, DType dtype);

}  // namespace mmcore::ops::testing
