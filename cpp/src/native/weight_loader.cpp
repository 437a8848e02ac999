#include "native/weight_loader.h"

#include <algorithm>
#include <array>
#include <numeric>
#include <utility>

namespace mmcore::native {

namespace {

// Tables that older versions of transformers saved, which every model computes.
bool is_computed(const std::string& name) {
  for (const char* end : {".rotary_emb.inv_freq", ".rotary_emb.cos_cached",
                          ".rotary_emb.sin_cached", ".position_ids"})
    if (name.ends_with(end)) return true;
  return false;
}

std::string shape_text(std::span<const int64_t> shape) {
  std::string text = "[";
  for (size_t i = 0; i < shape.size(); ++i) text += (i != 0 ? ", " : "") + std::to_string(shape[i]);
  return text + "]";
}

}  // namespace

WeightLoader::WeightLoader(std::vector<SafetensorsFile> files, DType dtype, const Place& place)
    : files_(std::move(files)), dtype_(dtype), place_(place), upload_(place) {
  for (const SafetensorsFile& file : files_)
    for (const auto& [name, tensor] : file.tensors())
      if (!tensors_.emplace(name, &tensor).second) fail("tensor '" + name + "' is in two files");
}

void WeightLoader::fail(const std::string& what) {
  if (status_.ok()) status_ = Status::invalid_argument("checkpoint: " + what);
}

void WeightLoader::rename_prefix(const std::string& from, const std::string& to) {
  std::map<std::string, const StoredTensor*> renamed;
  for (const auto& [name, tensor] : tensors_) {
    const std::string target = name.starts_with(from) ? to + name.substr(from.size()) : name;
    if (!renamed.emplace(target, tensor).second) fail("two tensors are named '" + target + "'");
  }
  tensors_ = std::move(renamed);
}

void WeightLoader::copy(const std::string& name, const TensorView& to) {
  const StoredTensor& tensor = *tensors_.find(name)->second;
  DType stored = DType::kFloat32;
  if (tensor.dtype == "BF16") stored = DType::kBFloat16;
  if (tensor.dtype == "F16") stored = DType::kFloat16;
  const TensorView from(const_cast<uint8_t*>(tensor.data), stored, {to.numel()});
  if (!place_.on_gpu())
    convert(from, to);
  else if (const Status sent = upload_.copy(from, to); status_.ok())
    status_ = sent;
  let_go({tensor.data, static_cast<size_t>(tensor.bytes)});
  used_.insert(name);
  loaded_bytes_ += to.numel() * static_cast<int64_t>(size_of(to.dtype));
}

OwnedTensor WeightLoader::load(const std::string& name, std::initializer_list<int64_t> shape) {
  return load_as(name, std::span(shape.begin(), shape.size()), shape);
}

OwnedTensor WeightLoader::load_as(const std::string& name, std::span<const int64_t> stored,
                                  std::initializer_list<int64_t> shape) {
  if (!check(name, stored)) return {};
  OwnedTensor tensor(dtype_, shape, place_.device);
  copy(name, tensor.view());
  return tensor;
}

OwnedTensor WeightLoader::load_stacked(std::span<const std::string> names,
                                       std::span<const int64_t> rows, int64_t columns) {
  for (size_t i = 0; i < names.size(); ++i) {
    const std::array<int64_t, 2> shape = {rows[i], columns};
    if (!check(names[i], std::span(shape).first(columns == 0 ? 1 : 2))) return {};
  }
  const int64_t total = std::accumulate(rows.begin(), rows.end(), int64_t{0});
  OwnedTensor stacked = columns == 0 ? OwnedTensor(dtype_, {total}, place_.device)
                                     : OwnedTensor(dtype_, {total, columns}, place_.device);
  int64_t first = 0;
  for (size_t i = 0; i < names.size(); ++i) {
    copy(names[i], stacked.rows(first, rows[i]));
    first += rows[i];
  }
  return stacked;
}

bool WeightLoader::check(const std::string& name, std::span<const int64_t> shape) {
  if (!status_.ok()) return false;
  const auto found = tensors_.find(name);
  if (found == tensors_.end()) {
    fail("tensor '" + name + "' is missing");
    return false;
  }
  const StoredTensor& tensor = *found->second;
  if (tensor.dtype != "F32" && tensor.dtype != "BF16" && tensor.dtype != "F16") {
    fail("tensor '" + name + "' is " + describe(tensor) + ", expected F32, BF16 or F16");
    return false;
  }
  if (!std::ranges::equal(tensor.shape, shape)) {
    fail("tensor '" + name + "' is " + describe(tensor) + ", expected " + shape_text(shape) +
         " by config.json");
    return false;
  }
  return true;
}

void WeightLoader::ignore_prefix(const std::string& prefix) {
  for (const auto& [name, tensor] : tensors_)
    if (name.starts_with(prefix)) used_.insert(name);
}

void WeightLoader::require_all_used() {
  for (const auto& [name, tensor] : tensors_)
    if (!used_.contains(name) && !is_computed(name))
      fail("tensor '" + name + "' (" + describe(*tensor) + ") belongs to no part of the model");
}

Status WeightLoader::finish() {
  MMCORE_RETURN_IF_ERROR(status_);
  return upload_.finish();
}

}  // namespace mmcore::native
