// The tensors of a checkpoint, in one safetensors file or in several with an index.
//
//   file   [ 8 bytes: n ][ n bytes: JSON header ][ data ............................ ]
//   header {"name": {"dtype": "BF16", "shape": [2, 3], "data_offsets": [begin, end]}, ...}
//
// The header is believed in nothing: offsets lie in the file, in order and without gap or overlap,
// and agree with type and shape. Files are mapped, and must not be cut off while this lives.
#pragma once

#include <functional>
#include <map>
#include <string>
#include <vector>

#include "mmcore/status.h"
#include "mmcore/tensor.h"
#include "native/mapped_file.h"

namespace mmcore::native {

struct StoredTensor {
  std::string dtype;           // "BF16", "F32" ...
  std::vector<int64_t> shape;  // of any rank
  const uint8_t* data = nullptr;
  int64_t bytes = 0;
};

std::string describe(const StoredTensor& tensor);  // "BF16 [2, 3]"

class SafetensorsFile {
 public:
  static Result<SafetensorsFile> open(const std::string& path);

  /// Tensors by name; data point into the mapping.
  const std::map<std::string, StoredTensor, std::less<>>& tensors() const { return tensors_; }

 private:
  explicit SafetensorsFile(MappedFile file) : file_(std::move(file)) {}
  Status read_header();

  MappedFile file_;
  std::map<std::string, StoredTensor, std::less<>> tensors_;
};

/// Opens model.safetensors, or all files that model.safetensors.index.json names, each of whose
/// tensors is where the index says.
Result<std::vector<SafetensorsFile>> open_checkpoint_tensors(const std::string& folder);

}  // namespace mmcore::native
