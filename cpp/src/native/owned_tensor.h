// Tensors that the native runner owns.
#pragma once

#include <cstdint>
#include <initializer_list>
#include <new>
#include <utility>

#include "mmcore/gpu.h"
#include "mmcore/tensor.h"

namespace mmcore::native {

/// What a tensor throws that finds no memory on its GPU.
class OutOfGpuMemory : public std::bad_alloc {
 public:
  explicit OutOfGpuMemory(Status status) : status_(std::move(status)) {}
  const char* what() const noexcept override { return status_.message().c_str(); }
  const Status& status() const { return status_; }

 private:
  Status status_;
};

/// Contiguous memory of zeros. The CPU's is aligned to pages, and a page takes memory when it is
/// first written. Throws std::bad_alloc where there is no memory.
class OwnedTensor {
 public:
  OwnedTensor() = default;
  OwnedTensor(DType dtype, std::initializer_list<int64_t> shape, Device device = {});
  OwnedTensor(OwnedTensor&& other) noexcept;
  OwnedTensor& operator=(OwnedTensor&& other) noexcept;
  ~OwnedTensor();

  const TensorView& view() const { return view_; }
  bool present() const { return view_.present; }
  /// Elements, where they are the CPU's.
  template <class T>
  T* data() const {
    return view_.ptr<T>();
  }
  /// Rows [first, first + count) of the first axis.
  TensorView rows(int64_t first, int64_t count) const;

 private:
  TensorView view_;
  size_t mapped_ = 0;
  gpu::Memory on_gpu_;
};

/// Rows [first, first + count) of a view's first axis.
TensorView rows_of(const TensorView& tensor, int64_t first, int64_t count);

/// Columns [first, first + heads * dim) of x [T, N], as [T, heads, dim].
TensorView heads_of(const TensorView& x, int64_t first, int64_t heads, int64_t dim);

/// Converts between float32, bfloat16 and float16 on the CPU; both contiguous, with as many
/// elements.
void convert(const TensorView& from, const TensorView& to);

}  // namespace mmcore::native
