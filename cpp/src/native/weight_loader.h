// From the tensors of a checkpoint to those of a model, by name. The first failure is kept and all
// later calls do nothing, so that a model can be loaded in one go and asked at the end.
#pragma once

#include <cstdint>
#include <map>
#include <set>
#include <span>
#include <string>
#include <vector>

#include "mmcore/status.h"
#include "native/owned_tensor.h"
#include "native/place.h"
#include "native/safetensors.h"
#include "native/weight_upload.h"

namespace mmcore::native {

class WeightLoader {
 public:
  /// `dtype` is what tensors are converted to, `place` where they go.
  WeightLoader(std::vector<SafetensorsFile> files, DType dtype, const Place& place);

  /// Renames all tensors whose name begins with `from`. Two tensors of one name are an error.
  void rename_prefix(const std::string& from, const std::string& to);
  bool has(const std::string& name) const { return tensors_.contains(name); }

  /// Loads a tensor of exactly this shape.
  OwnedTensor load(const std::string& name, std::initializer_list<int64_t> shape);
  /// Loads a tensor of `shape`'s elements in another shape: a convolution as a matrix.
  OwnedTensor load_as(const std::string& name, std::span<const int64_t> stored,
                      std::initializer_list<int64_t> shape);
  /// Loads tensors [rows[i], columns], or [rows[i]] without columns, one below the other.
  OwnedTensor load_stacked(std::span<const std::string> names, std::span<const int64_t> rows,
                           int64_t columns);

  /// Says that tensors with this prefix are not needed.
  void ignore_prefix(const std::string& prefix);
  /// Fails if a tensor was neither loaded nor ignored: the model would not be the checkpoint's.
  void require_all_used();
  /// Returns when all tensors are where they belong.
  Status finish();

  const Place& place() const { return place_; }
  int64_t loaded_bytes() const { return loaded_bytes_; }
  const Status& status() const { return status_; }

 private:
  void fail(const std::string& what);
  bool check(const std::string& name, std::span<const int64_t> shape);
  void copy(const std::string& name, const TensorView& to);

  std::vector<SafetensorsFile> files_;
  std::map<std::string, const StoredTensor*> tensors_;
  std::set<std::string> used_;
  DType dtype_;
  Place place_;
  WeightUpload upload_;
  int64_t loaded_bytes_ = 0;
  Status status_;
};

}  // namespace mmcore::native
