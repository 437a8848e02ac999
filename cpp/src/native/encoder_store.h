// Outputs of the encoder by slot, and the step's rows of them.
#pragma once

#include <cstdint>
#include <unordered_map>
#include <vector>

#include "mmcore/model_runner.h"
#include "mmcore/status.h"
#include "native/host_tensor.h"

namespace mmcore::native {

class EncoderStore {
 public:
  EncoderStore(DType dtype, int64_t hidden_size) : dtype_(dtype), hidden_size_(hidden_size) {}

  /// Drops outputs; slots that are not held are left alone.
  void evict(const std::vector<EncoderSlot>& slots);
  /// Makes room for an output [rows, hidden size], and gives it.
  TensorView add(EncoderSlot slot, int64_t rows);

  /// Gathers the step's rows, one below the other, and says for each of its tokens which one
  /// overwrites its embedding, or -1.
  Status gather(const StepPlan& plan);
  const TensorView& rows() const { return rows_; }      // [M, hidden size]; absent without any
  const TensorView& source() const { return source_; }  // int64 [T]; absent without any

 private:
  DType dtype_;
  int64_t hidden_size_;
  std::unordered_map<EncoderSlot, HostTensor> outputs_;
  HostTensor gathered_;
  std::vector<int64_t> sources_;
  TensorView rows_, source_;
};

}  // namespace mmcore::native
