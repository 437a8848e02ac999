#include "tensor/shape_check.h"

#include <algorithm>
#include <cstdlib>

#include "base/check.h"

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
  mmcore::check(symbol_count_ < kMaxSymbols, "more dims than ShapeCheck has room for");
  symbols_[static_cast<size_t>(symbol_count_)].name = name;
  return {symbol_count_++, 1, 0};
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
  const auto fail_tensor = [&](const std::string& what) { fail(name + (" " + what)); };
  if (t.rank < 0 || t.rank > kMaxRank) {
    fail_tensor("has rank " + std::to_string(t.rank) + ", the most is " + std::to_string(kMaxRank));
    return false;
  }
  if (size_of(t.dtype) == 0) {
    fail_tensor("has dtype number " + std::to_string(static_cast<int>(t.dtype)) +
                ", which does not exist");
    return false;
  }
  for (int i = 0; i < t.rank; ++i) {
    if (t.size(i) < 0) {
      fail_tensor("has shape " + shape_of(t) + ", expected no negative size");
      return false;
    }
  }
  if (device_source_ == nullptr) {
    device_ = t.device;
    device_source_ = name;
  }
  if (!(t.device == device_)) {
    fail_tensor("is on " + name_of(t.device) + ", expected " + name_of(device_) + " as " +
                device_source_);
  } else if (t.rank > 0 && t.size(t.rank - 1) > 1 && t.stride(t.rank - 1) != 1) {
    fail_tensor("has stride " + std::to_string(t.stride(t.rank - 1)) +
                " in its last axis, expected 1; make it contiguous");
  } else if (t.numel() > 0 && t.data == nullptr) {
    fail_tensor("has no data for shape " + shape_of(t));
  } else if (reinterpret_cast<uintptr_t>(t.data) % size_of(t.dtype) != 0) {
    fail_tensor("is not aligned to its elements of " + std::to_string(size_of(t.dtype)) + " bytes");
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
  if (!matches(name, t, dims)) {
    // Dims bound by this very tensor are no help in its own error message.
    for (Symbol& s : symbols_) {
      if (s.source == name) s.source = nullptr;
    }
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

ShapeCheck::Tensor& ShapeCheck::Tensor::cached() {
  return dtype({DType::kFloat32, DType::kBFloat16, DType::kFloat16, DType::kFloat8E4M3});
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
  // Sorted by stride, each axis has to step over all that the smaller ones cover. Insertion from
  // the last axis on: mostly they are in order already.
  std::array<int, kMaxRank> order{};
  int n = 0;
  for (int i = view_->rank - 1; i >= 0; --i) {
    if (view_->size(i) <= 1) continue;
    int at = n++;
    const auto stride_at = [&](int k) {
      return std::abs(view_->stride(order[static_cast<size_t>(k)]));
    };
    for (; at > 0 && stride_at(at - 1) > std::abs(view_->stride(i)); --at) {
      order[static_cast<size_t>(at)] = order[static_cast<size_t>(at - 1)];
    }
    order[static_cast<size_t>(at)] = i;
  }
  int64_t covered = 1;
  for (int k = 0; k < n; ++k) {
    const int axis = order[static_cast<size_t>(k)];
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
