#include "tensor/shape_check.h"

#include <algorithm>
#include <cstdlib>

namespace mmcore {
namespace {

std::string shape_of(const TensorView& t) {
  std::string s = "[";
  for (int i = 0; i < std::min(t.rank, kMaxRank); ++i) {
    s += (i ? ", " : "") + std::to_string(t.size(i));
  }
  return s + "]";
}

std::string name_of(Device d) {
  return d.type == DeviceType::kCuda ? "cuda:" + std::to_string(d.index) : "cpu";
}

}  // namespace

ShapeCheck::Dim ShapeCheck::dim(const char* name) {
  symbols_.push_back({.name = name});
  return {static_cast<int>(symbols_.size()) - 1, 1, 0};
}

void ShapeCheck::bind(Dim d, int64_t size, const char* source) {
  Symbol& s = symbols_[static_cast<size_t>(d.symbol)];
  s.source = source;
  s.size = size;
}

int64_t ShapeCheck::size(Dim d) const {
  return d.symbol < 0 ? d.offset
                      : symbols_[static_cast<size_t>(d.symbol)].size * d.scale + d.offset;
}

void ShapeCheck::fail(const std::string& message) {
  if (status_.ok()) status_ = Status::invalid_argument(std::string(op_) + ": " + message);
}

void ShapeCheck::require(bool condition, const std::string& message) {
  if (!condition) fail(message);
}

/// "[T, 2 * I] with T = 4 from x": what is bound is spelled out.
std::string ShapeCheck::expected(std::initializer_list<Dim> dims) const {
  std::string shape;
  std::string bound;
  for (const Dim& d : dims) {
    if (!shape.empty()) shape += ", ";
    if (d.symbol < 0) {
      shape += std::to_string(d.offset);
      continue;
    }
    const Symbol& s = symbols_[static_cast<size_t>(d.symbol)];
    if (d.scale != 1) shape += std::to_string(d.scale) + " * ";
    shape += s.name;
    if (d.offset != 0) shape += " + " + std::to_string(d.offset);
    const std::string term = std::string(s.name) + " = " + std::to_string(s.size) + " from " +
                             (s.source ? s.source : "");
    if (s.source && bound.find(term) == std::string::npos) {
      bound += (bound.empty() ? " with " : ", ") + term;
    }
  }
  return "[" + shape + "]" + bound;
}

bool ShapeCheck::matches(const char* name, const TensorView& t, std::initializer_list<Dim> dims) {
  bool fits = t.rank == static_cast<int32_t>(dims.size());
  for (int i = 0; fits && i < t.rank; ++i) {
    const Dim& d = dims.begin()[i];
    if (t.size(i) < 0) return false;
    if (d.symbol < 0) {
      fits = t.size(i) == d.offset;
      continue;
    }
    Symbol& s = symbols_[static_cast<size_t>(d.symbol)];
    if (s.source == nullptr) {
      const int64_t scaled = t.size(i) - d.offset;
      fits = scaled >= 0 && scaled % d.scale == 0;
      if (!fits) break;
      s.source = name;
      s.size = scaled / d.scale;
    }
    fits = t.size(i) == size(d);
  }
  return fits;
}

bool ShapeCheck::usable(const char* name, const TensorView& t) {
  const std::string n = name;
  if (t.rank < 0 || t.rank > kMaxRank) {
    fail(n + " has rank " + std::to_string(t.rank) + ", the most is " + std::to_string(kMaxRank));
    return false;
  }
  if (device_source_ == nullptr) {
    device_ = t.device;
    device_source_ = name;
  }
  if (!(t.device == device_)) {
    fail(n + " is on " + name_of(t.device) + ", expected " + name_of(device_) + " as " +
         device_source_);
  } else if (t.rank > 0 && t.size(t.rank - 1) > 1 && t.stride(t.rank - 1) != 1) {
    fail(n + " has stride " + std::to_string(t.stride(t.rank - 1)) +
         " in its last axis, expected 1; make it contiguous");
  } else if (t.numel() > 0 && t.data == nullptr) {
    fail(n + " has no data for shape " + shape_of(t));
  } else if (reinterpret_cast<uintptr_t>(t.data) % size_of(t.dtype) != 0) {
    fail(n + " is not aligned to its elements of " + std::to_string(size_of(t.dtype)) + " bytes");
  }
  return ok();
}

ShapeCheck::Tensor ShapeCheck::any_shape(const char* name, const TensorView& t) {
  if (ok() && !t.present) fail(std::string(name) + " is absent");
  return {*this, name, ok() && usable(name, t) ? &t : nullptr};
}

ShapeCheck::Tensor ShapeCheck::tensor(const char* name, const TensorView& t,
                                      std::initializer_list<Dim> dims) {
  if (!ok()) return {*this, name, nullptr};
  if (!t.present) {
    fail(std::string(name) + " is absent, expected " + expected(dims));
    return {*this, name, nullptr};
  }
  // Dims bound by this very tensor are no help in its own error message.
  const std::vector<Symbol> before = symbols_;
  if (!matches(name, t, dims)) {
    symbols_ = before;
    fail(std::string(name) + " has shape " + shape_of(t) + ", expected " + expected(dims));
    return {*this, name, nullptr};
  }
  return {*this, name, usable(name, t) ? &t : nullptr};
}

ShapeCheck::Tensor ShapeCheck::optional(const char* name, const TensorView& t,
                                        std::initializer_list<Dim> dims) {
  if (!t.present) return {*this, name, nullptr};
  return tensor(name, t, dims);
}

ShapeCheck::Tensor& ShapeCheck::Tensor::dtype(std::initializer_list<DType> allowed) {
  if (view_ == nullptr || std::find(allowed.begin(), allowed.end(), view_->dtype) != allowed.end())
    return *this;
  std::string names;
  for (const DType& d : allowed) {
    if (!names.empty()) names += &d == allowed.end() - 1 ? " or " : ", ";
    names += to_string(d);
  }
  check_.fail(std::string(name_) + " is " + to_string(view_->dtype) + ", expected " + names);
  return *this;
}

ShapeCheck::Tensor& ShapeCheck::Tensor::floating() {
  return dtype({DType::kFloat32, DType::kBFloat16, DType::kFloat16});
}

ShapeCheck::Tensor& ShapeCheck::Tensor::contiguous_from(int axis) {
  if (view_ == nullptr) return *this;
  int64_t step = 1;
  for (int i = view_->rank - 1; i >= axis; --i) {
    if (view_->size(i) > 1 && view_->stride(i) != step) {
      check_.fail(std::string(name_) + " has stride " + std::to_string(view_->stride(i)) +
                  " in axis " + std::to_string(i) + ", expected " + std::to_string(step) +
                  "; make it contiguous");
      break;
    }
    step *= view_->size(i);
  }
  return *this;
}

ShapeCheck::Tensor& ShapeCheck::Tensor::writable() {
  if (view_ == nullptr || view_->numel() == 0) return *this;
  // Sorted by stride, each axis has to step over all that the smaller ones cover.
  std::vector<int> order;
  for (int i = 0; i < view_->rank; ++i) {
    if (view_->size(i) > 1) order.push_back(i);
  }
  std::sort(order.begin(), order.end(), [this](int a, int b) {
    return std::abs(view_->stride(a)) < std::abs(view_->stride(b));
  });
  int64_t covered = 1;
  for (const int axis : order) {
    const int64_t stride = std::abs(view_->stride(axis));
    if (stride < covered) {
      check_.fail(std::string(name_) + " is written but its elements overlap (stride " +
                  std::to_string(view_->stride(axis)) + " in axis " + std::to_string(axis) + ")");
      break;
    }
    covered += stride * (view_->size(axis) - 1);
  }
  return *this;
}

}  // namespace mmcore
