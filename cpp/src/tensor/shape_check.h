// Checks of an op's tensors at its entry, in the notation of its documentation:
//
//   ShapeCheck check("rms_norm");
//   const auto T = check.dim("T"), H = check.dim("H");
//   check.tensor("x", x, {T, H}).floating();
//   check.tensor("weight", weight, {H}).dtype(x.dtype);
//   MMCORE_RETURN_IF_ERROR(check.status());
//
// A dim takes its size from the first tensor that has it and must match in all others; the first
// failure is kept, later checks do nothing. Every tensor must be present, lie on the device of the
// first one, have a contiguous last axis and an address aligned to its elements.
#pragma once

#include <array>
#include <cstdint>
#include <initializer_list>
#include <string>

#include "mmcore/status.h"
#include "mmcore/tensor.h"

namespace mmcore {

class ShapeCheck {
 public:
  /// scale * dim + offset, or a number; made by dim(), 2 * I, N + 1 or an integer.
  struct Dim {
    Dim(int64_t value) : offset(value) {}  // NOLINT: implicit, {T, 2}
    Dim(int symbol_, int64_t scale_, int64_t offset_)
        : symbol(symbol_), scale(scale_), offset(offset_) {}
    friend Dim operator*(int64_t n, Dim d) { return {d.symbol, n * d.scale, n * d.offset}; }
    friend Dim operator+(Dim d, int64_t n) { return {d.symbol, d.scale, d.offset + n}; }

    int symbol = -1;  // -1: a number
    int64_t scale = 0;
    int64_t offset = 0;
  };

  /// What else one tensor has to satisfy.
  class Tensor {
   public:
    Tensor& dtype(std::initializer_list<DType> allowed);
    Tensor& dtype(DType only) { return dtype({only}); }
    Tensor& floating();
    /// What a KV cache may hold: floating() or float8_e4m3fn.
    Tensor& cached();
    /// Axes from `axis` on are packed, row-major.
    Tensor& contiguous_from(int axis);
    /// No two rows overlap (they may be in any order): for tensors that are written.
    Tensor& writable();

   private:
    friend class ShapeCheck;
    Tensor(ShapeCheck& check, const char* name, const TensorView* view)
        : check_(check), name_(name), view_(view) {}
    ShapeCheck& check_;
    const char* name_;
    const TensorView* view_;  // null: absent or already refused
  };

  explicit ShapeCheck(const char* op) : op_(op) {}

  Dim dim(const char* name);
  /// Gives `d` a size from elsewhere; `source` says from where.
  void bind(Dim d, int64_t size, const char* source);
  Tensor tensor(const char* name, const TensorView& t, std::initializer_list<Dim> dims);
  /// As tensor() if `t` is present.
  Tensor optional(const char* name, const TensorView& t, std::initializer_list<Dim> dims);
  /// Everything but the shape, for any rank.
  Tensor any_shape(const char* name, const TensorView& t);
  /// Fails with "op: message" unless `condition`; for what shapes cannot say. Where the message is
  /// put together at some cost, test first and call fail().
  void require(bool condition, const std::string& message);
  void fail(const std::string& message);

  /// Size of a dim; 0 while nothing has bound it.
  int64_t size(Dim d) const;
  bool ok() const { return status_.ok(); }
  const Status& status() const { return status_; }
  /// Of the first tensor.
  Device device() const { return device_; }

 private:
  static constexpr int kMaxSymbols = 12;
  struct Symbol {
    const char* name = nullptr;
    const char* source = nullptr;  // the tensor that bound it
    int64_t size = 0;
  };

  /// What does not depend on the shape; false when it has failed.
  bool usable(const char* name, const TensorView& t);
  bool matches(const char* name, const TensorView& t, std::initializer_list<Dim> dims);
  std::string expected(std::initializer_list<Dim> dims) const;

  const char* op_;
  std::array<Symbol, kMaxSymbols> symbols_;  // no allocation: ops are called for single tokens
  int symbol_count_ = 0;
  Device device_{};
  const char* device_source_ = nullptr;
  Status status_;
};

}  // namespace mmcore
