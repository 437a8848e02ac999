// A tensor that somebody else owns: what kernels take and return.
#pragma once

#include <array>
#include <cstdint>
#include <initializer_list>
#include <string>

#include "mmcore/export.h"
#include "mmcore/types.h"

namespace mmcore {

inline constexpr int kMaxRank = 6;

/// Views memory of the caller; never owns, never allocates. Strides count elements, not bytes.
/// A default-constructed view is "absent" and stands for an optional argument that was not given.
struct TensorView {
  void* data = nullptr;
  DType dtype = DType::kFloat32;
  Device device{};
  int32_t rank = 0;
  std::array<int64_t, kMaxRank> shape{};
  std::array<int64_t, kMaxRank> strides{};
  bool present = false;

  TensorView() = default;
  /// Views contiguous row-major memory.
  TensorView(void* p, DType t, std::initializer_list<int64_t> dims, Device d = {})
      : data(p), dtype(t), device(d), rank(static_cast<int32_t>(dims.size())), present(true) {
    int i = 0;
    for (int64_t n : dims) shape[static_cast<size_t>(i++)] = n;
    int64_t step = 1;
    for (int k = rank - 1; k >= 0; --k) {
      strides[static_cast<size_t>(k)] = step;
      step *= shape[static_cast<size_t>(k)];
    }
  }

  int64_t size(int axis) const { return shape[static_cast<size_t>(axis)]; }
  int64_t stride(int axis) const { return strides[static_cast<size_t>(axis)]; }
  int64_t numel() const {
    int64_t n = 1;
    for (int i = 0; i < rank; ++i) n *= shape[static_cast<size_t>(i)];
    return n;
  }
  template <class T>
  T* ptr() const {
    return static_cast<T*>(data);
  }
};

/// "bfloat16 [4, 128, 64] cpu", for error messages.
MMCORE_API std::string describe(const TensorView& t);

}  // namespace mmcore
