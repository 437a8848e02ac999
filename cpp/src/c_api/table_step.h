// One step as a host's C functions see it: the plan to read, and room for the answer.
#pragma once

#include <array>
#include <string>
#include <vector>

#include "mmcore/c_api.h"
#include "mmcore/model_runner.h"

namespace mmcore::c_api {

/// A failure that the host told with a code. Codes of the border, and made up ones, mean nothing
/// inside the engine.
Status host_failure(mmcore_status code, const char* function, std::string message = {});

/// Kept from step to step, so that steps do not allocate.
class TableStep {
 public:
  TableStep() = default;
  TableStep(const TableStep&) = delete;
  TableStep& operator=(const TableStep&) = delete;

  /// Sets both structs up for `plan`, which must stay as it is while they are used.
  void show(const StepPlan& plan);
  const mmcore_step* step() const { return &step_; }
  mmcore_step_result* room() { return &room_; }

  /// Reads the answer of a step that `function` says was computed.
  Status take(const StepPlan& plan, const char* function, StepResult& result);
  /// The failure of the step as a whole.
  Status failure(mmcore_status code, const char* function);
  /// Moves the requests that the host named as the ones at fault to `result.failed`.
  void take_failed(const StepPlan& plan, const char* function, StepResult& result);

 private:
  void show_plan(const StepPlan& plan);
  void make_room(const StepPlan& plan);
  const char* message();

  mmcore_step step_{};
  mmcore_step_result room_{};
  std::vector<mmcore_sequence> sequences_;
  std::vector<mmcore_sample_row> sampling_;
  std::vector<mmcore_logit_bias> biases_;
  std::vector<mmcore_host_copy> host_saves_;
  std::vector<mmcore_host_copy> host_loads_;
  std::vector<mmcore_block_copy> block_copies_;
  std::vector<mmcore_encode_item> encode_;
  std::vector<mmcore_embedding_copy> embeddings_;
  std::vector<int32_t> tokens_;
  std::vector<mmcore_status> sequence_status_;
  struct Logprobs {
    std::vector<int64_t> starts;
    std::vector<mmcore_logprob> values;
    std::vector<int32_t> counts;
    void clear(size_t rows);
    void add_row(int32_t num_logprobs);
    /// False if the runner announces more than there is room for.
    bool read(size_t row, std::vector<TokenLogprob>& out) const;
  };
  Logprobs logprobs_;
  Logprobs prompt_logprobs_;
  std::array<char, 1024> message_{};
};

}  // namespace mmcore::c_api
