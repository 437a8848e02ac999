// Picking tokens on a GPU without waiting more than once: rows that ask for no more than
// sample_tensors gives.
#pragma once

#include <cstdint>
#include <span>

#include "mmcore/gpu.h"
#include "mmcore/model_runner.h"
#include "mmcore/status.h"
#include "native/owned_tensor.h"
#include "native/place.h"
#include "native/step_arrays.h"

namespace mmcore::native {

class DeviceSampler {
 public:
  /// For at most `rows` rows of `vocab` logits. Look at status() afterwards.
  DeviceSampler(const Place& place, int64_t rows, int64_t vocab);
  const Status& status() const { return status_; }

  /// Whether pick() gives what these rows ask for.
  bool takes(std::span<const SampleRow> rows) const;
  /// Picks a token for each of `logits`' rows and waits for them; -1 where sample has an error.
  Status pick(const TensorView& logits, const StepTensors& step,
              std::span<const TokenId>& tokens) const;

 private:
  Place place_;
  int64_t most_;
  OwnedTensor tokens_, workspace_;
  gpu::Memory host_tokens_;
  gpu::Event done_;
  Status status_;
};

}  // namespace mmcore::native
