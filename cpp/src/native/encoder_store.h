// Outputs of the encoder by slot, in one tensor of which each has as many rows.
#pragma once

#include <cstdint>
#include <unordered_map>
#include <vector>

#include "mmcore/model_runner.h"
#include "mmcore/status.h"
#include "native/owned_tensor.h"
#include "native/place.h"

namespace mmcore::native {

class EncoderStore {
 public:
  /// `rows` of `hidden_size`, for outputs of `item_rows` each.
  EncoderStore(const Place& place, DType dtype, int64_t rows, int64_t item_rows,
               int64_t hidden_size);

  /// Drops outputs; slots that are not held are left alone.
  void evict(const std::vector<EncoderSlot>& slots);
  /// Makes room for an output, and gives its first row. Fails where there is none: an engine keeps
  /// no more rows than the configuration that it was made with.
  Result<int64_t> add(EncoderSlot slot);

  /// Says for each of the step's tokens which row overwrites its embedding, or -1; nothing where
  /// none does.
  Status find_rows(const StepPlan& plan, std::vector<int64_t>& sources) const;

  const TensorView& view() const { return rows_.view(); }  // [rows, hidden size]

 private:
  int64_t item_rows_;
  OwnedTensor rows_;
  std::vector<int64_t> free_;                         // first rows, the next one last
  std::unordered_map<EncoderSlot, int64_t> outputs_;  // their first rows
};

}  // namespace mmcore::native
