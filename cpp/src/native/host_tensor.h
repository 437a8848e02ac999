// Tensors that the native runner owns.
#pragma once

#include <cstdint>
#include <initializer_list>
#include <span>

#include "mmcore/tensor.h"

namespace mmcore::native {

/// Contiguous memory of zeros, aligned to pages. A page takes memory when it is first written.
/// Throws std::bad_alloc where there is no address space.
class HostTensor {
 public:
  HostTensor() = default;
  HostTensor(DType dtype, std::initializer_list<int64_t> shape);
  HostTensor(HostTensor&& other) noexcept;
  HostTensor& operator=(HostTensor&& other) noexcept;
  ~HostTensor();

  const TensorView& view() const { return view_; }
  bool present() const { return view_.present; }
  int64_t bytes() const { return static_cast<int64_t>(mapped_); }
  template <class T>
  T* data() const {
    return view_.ptr<T>();
  }
  /// Rows [first, first + count) of the first axis.
  TensorView rows(int64_t first, int64_t count) const;

 private:
  TensorView view_;
  size_t mapped_ = 0;
};

/// Rows [first, first + count) of a view's first axis.
TensorView rows_of(const TensorView& tensor, int64_t first, int64_t count);

/// Columns [first, first + heads * dim) of x [T, N], as [T, heads, dim].
TensorView heads_of(const TensorView& x, int64_t first, int64_t heads, int64_t dim);

/// Converts between float32, bfloat16 and float16; both contiguous, with as many elements.
void convert(const TensorView& from, const TensorView& to);

/// out += x, both contiguous and of one type.
void add(const TensorView& x, const TensorView& out);

}  // namespace mmcore::native
